using System.Text;
using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <summary>What Kubernetes demands of names, labels and ports: an export that breaks it could become no object of ours.</summary>
internal static class ExportRules
{
    /// <summary>Seconds: a day.</summary>
    public const uint LongestAffinity = 86_400;

    private const int NameLength = 63;
    private const int DomainLength = 253;
    private const int AnnotationBytes = 1 << 17;

    public static void Name(string field, string name)
    {
        if (!IsLabel(name))
            throw new RejectedRecordException($"{field} {Quoted.Text(name)} must be 1 to 63 of a-z, 0-9 and '-'");
    }

    public static ExportedPort Port(ExportedPort port)
    {
        if (port.Port == 0)
            throw new RejectedRecordException($"port {Quoted.Text(port.Name)} has no number");
        if (port.Name.Length > 0 && !IsLabel(port.Name))
            throw new RejectedRecordException($"port name {Quoted.Text(port.Name)} must be 1 to 63 of a-z, 0-9 and '-'");
        if (port.AppProtocol is { } application && !IsQualified(application))
            throw new RejectedRecordException($"appProtocol {Quoted.Text(application)} is no protocol's name");
        return port;
    }

    public static IReadOnlyDictionary<string, string> Labels(IReadOnlyDictionary<string, string> labels)
    {
        foreach (var (key, value) in labels)
        {
            if (!IsQualified(key) || (value.Length > 0 && !IsWord(value)))
                throw new RejectedRecordException($"label {Quoted.Text($"{key}={value}")} is none that Kubernetes takes");
        }
        return labels;
    }

    public static IReadOnlyDictionary<string, string> Annotations(IReadOnlyDictionary<string, string> annotations)
    {
        var bytes = 0;
        foreach (var (key, value) in annotations)
        {
            if (!IsQualified(key))
                throw new RejectedRecordException($"annotation {Quoted.Text(key)} has a name that Kubernetes does not take");
            bytes += key.Length + Encoding.UTF8.GetByteCount(value);
        }
        return bytes <= AnnotationBytes ? annotations : throw new RejectedRecordException($"its annotations take {bytes} bytes");
    }

    private static bool IsLabel(string text) => text.Length is > 0 and <= NameLength && text[0] != '-' && text[^1] != '-'
        && text.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-');

    private static bool IsWord(string text) => text.Length is > 0 and <= NameLength && char.IsAsciiLetterOrDigit(text[0])
        && char.IsAsciiLetterOrDigit(text[^1]) && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.');

    /// <summary>[DOMAIN/]WORD.</summary>
    private static bool IsQualified(string text)
    {
        var slash = text.IndexOf('/', StringComparison.Ordinal);
        return slash < 0 ? IsWord(text) : slash <= DomainLength && IsWord(text[(slash + 1)..]) && text[..slash].Split('.').All(IsLabel);
    }
}
