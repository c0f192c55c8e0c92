using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Imports;

/// <summary>
/// CLUSTER.imports.json beside the peer's etcd file. Every member is optional; a member that is unknown, given twice or impossible
/// makes the file malformed: a limit that is misspelt must not read as "no limit".
/// </summary>
public static class ImportPolicyFile
{
    public const string Suffix = ".imports.json";

    private static readonly JsonDocumentOptions Lenient = new() { CommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true };

    /// <param name="cluster">Name of the peer, which "name" must repeat if it is there.</param>
    /// <exception cref="FormatException">Malformed; the message names the member and what is allowed.</exception>
    public static ImportPolicy Parse(string text, string cluster)
    {
        try
        {
            using var document = JsonDocument.Parse(text, Lenient);
            return Read(document.RootElement, cluster);
        }
        catch (JsonException e)
        {
            throw new FormatException($"it is not JSON: {Quoted.Text(e.Message)}", e);
        }
    }

    private static ImportPolicy Read(JsonElement root, string cluster)
    {
        var policy = new ImportPolicy { FromFile = true };
        foreach (var (name, value) in Members(root, "the file"))
        {
            policy = name switch
            {
                "name" => value.ValueKind == JsonValueKind.String && value.GetString() == cluster
                    ? policy
                    : throw new FormatException($"name: must be {Quoted.Text(cluster)}, the name of the peer's file"),
                "clusterID" => policy with { ClusterId = (uint)Number(name, value, 1, 511) },
                "podCIDRs" => policy with { PodCidrs = Ranges(name, value) },
                "nodeCIDRs" => policy with { NodeCidrs = Ranges(name, value) },
                "namespaces" => policy with { Namespaces = Texts(name, value) },
                "quotas" => policy with { Quotas = ReadQuotas(value) },
                "breaker" => policy with { Breaker = ReadBreaker(value) },
                _ => throw Unknown(name, "name, clusterID, podCIDRs, nodeCIDRs, namespaces, quotas, breaker"),
            };
        }
        return policy;
    }

    private static ImportQuotas ReadQuotas(JsonElement value)
    {
        var quotas = new ImportQuotas();
        foreach (var (name, member) in Members(value, "quotas"))
        {
            quotas = name switch
            {
                "keys" => quotas with { Keys = (int)Number(name, member, 1, int.MaxValue) },
                "bytes" => quotas with { Bytes = Number(name, member, 1, long.MaxValue) },
                "valueBytes" => quotas with { ValueBytes = (int)Number(name, member, 1, int.MaxValue) },
                "eventsPerSecond" => quotas with { EventsPerSecond = (int)Number(name, member, 1, 10_000_000) },
                _ => throw Unknown($"quotas.{name}", "keys, bytes, valueBytes, eventsPerSecond"),
            };
        }
        return quotas;
    }

    private static BreakerPolicy ReadBreaker(JsonElement value)
    {
        var breaker = new BreakerPolicy();
        foreach (var (name, member) in Members(value, "breaker"))
        {
            breaker = name switch
            {
                "sharePercent" => breaker with { SharePercent = (int)Number(name, member, 1, 100) },
                "confirmAfterSeconds" => breaker with { ConfirmAfter = TimeSpan.FromSeconds(Number(name, member, 1, 86_400)) },
                _ => throw Unknown($"breaker.{name}", "sharePercent, confirmAfterSeconds"),
            };
        }
        return breaker;
    }

    private static IEnumerable<(string Name, JsonElement Value)> Members(JsonElement value, string what)
    {
        if (value.ValueKind != JsonValueKind.Object)
            throw new FormatException($"{what} must be an object {{…}}");
        var seen = new HashSet<string>(StringComparer.Ordinal);
        foreach (var member in value.EnumerateObject())
        {
            if (!seen.Add(member.Name))
                throw new FormatException($"{Quoted.Text(member.Name)} is given twice");
            yield return (member.Name, member.Value);
        }
    }

    private static FormatException Unknown(string name, string allowed) => new($"{Quoted.Text(name)} is unknown; allowed are {allowed}");

    private static long Number(string name, JsonElement value, long least, long most) =>
        value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out var number) && number >= least && number <= most
            ? number
            : throw new FormatException($"{name}: must be a whole number from {least} to {most}");

    private static PrefixSet Ranges(string name, JsonElement value) => new(Texts(name, value).Select(text =>
        IpPrefix.TryParse(text, out var range) && text.Contains('/') && text.StartsWith($"{range.Address}/", StringComparison.Ordinal)
            ? range
            : throw new FormatException($"{name}: {Quoted.Text(text)} is no range such as 10.2.0.0/16, with zeros behind the mask")).ToList());

    private static List<string> Texts(string name, JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.Array)
            throw new FormatException($"{name}: must be a list [\"…\"]");
        var texts = new List<string>();
        foreach (var item in value.EnumerateArray())
        {
            if (item.ValueKind != JsonValueKind.String || item.GetString() is not { Length: > 0 } text)
                throw new FormatException($"{name}: must hold texts only");
            texts.Add(text);
        }
        return texts;
    }
}
