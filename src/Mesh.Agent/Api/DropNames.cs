using System.Text;
using Mesh.Datapath.Maps;

namespace Mesh.Agent.Api;

/// <summary>NoServiceBackend → "no service backend", the words of metrics and status.</summary>
internal static class DropNames
{
    public static string Of(DropReason reason)
    {
        var words = new StringBuilder();
        foreach (var c in reason.ToString())
        {
            if (char.IsUpper(c) && words.Length > 0)
                words.Append(' ');
            words.Append(char.ToLowerInvariant(c));
        }
        return words.ToString();
    }
}
