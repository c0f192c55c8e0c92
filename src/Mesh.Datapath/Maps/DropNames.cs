using System.Text;

namespace Mesh.Datapath.Maps;

/// <summary>NoServiceBackend → "no service backend", the words of metrics, status and the CLI.</summary>
public static class DropNames
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
