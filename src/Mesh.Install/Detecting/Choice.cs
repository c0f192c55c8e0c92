using System.Globalization;
using System.Net;
using System.Text;
using Mesh.Install.Text;
using Mesh.Model;

namespace Mesh.Install.Detecting;

/// <summary>A value that was picked for a cluster, and why.</summary>
public sealed record Picked(string Name, object? Value, string Reason);

/// <summary>Picks what nobody said: name, number, ranges of addresses, and how services are handled. What was said stays.</summary>
public static class Choice
{
    private const int NodeMask = 24;

    /// <param name="given">Values that people gave.</param>
    /// <param name="context">Of the kubeconfig; null in a cluster.</param>
    public static IReadOnlyList<Picked> Pick(ClusterFacts facts, Map given, string? context)
    {
        var picked = new List<Picked>();
        if (given.At("cluster.name") is null)
            picked.Add(new("cluster.name", NameOf(facts, context), "from the kubeconfig's context"));
        var name = given.At("cluster.name") as string ?? (string)picked[^1].Value!;
        var id = given.At("cluster.id") as long? ?? NumberOf(name, facts.Uid);
        if (given.At("cluster.id") is null)
            picked.Add(new("cluster.id", id, "made of name and cluster; must be unique in the mesh, and stays for ever"));
        if (given.At("ipam.mode") is null)
            picked.AddRange(Ranges(facts, given, id));
        if (given.At("kubeProxyReplacement") is null)
        {
            picked.Add(facts.HasKubeProxy
                ? new("kubeProxyReplacement", false, "kube-proxy runs")
                : new("kubeProxyReplacement", true, "no kube-proxy runs"));
        }
        var replaces = given.At("kubeProxyReplacement") ?? picked[^1].Value;
        if (replaces is true or "true" && given.At("k8sServiceHost") is null && facts.ApiEndpoint is { } endpoint)
        {
            picked.Add(new("k8sServiceHost", endpoint.Host, "the API server itself: without kube-proxy no service leads there yet"));
            picked.Add(new("k8sServicePort", endpoint.Port.ToString(CultureInfo.InvariantCulture), "as above"));
        }
        return picked;
    }

    /// <summary>A context's name as a name of a cluster: kind-tokyo → tokyo, arn:aws:eks:…:cluster/tokyo → tokyo,
    /// gke_project_zone_tokyo → tokyo.</summary>
    public static string NameOf(ClusterFacts facts, string? context)
    {
        var text = context ?? "";
        text = text[(text.LastIndexOf('/') + 1)..];
        text = text.StartsWith("gke_", StringComparison.Ordinal) ? text[(text.LastIndexOf('_') + 1)..] : text;
        text = facts.Flavor == ClusterFlavor.Kind && text.StartsWith("kind-", StringComparison.Ordinal) ? text["kind-".Length..] : text;
        text = text[(text.LastIndexOf('@') + 1)..];
        var name = new StringBuilder();
        foreach (var c in text.ToLowerInvariant())
            name.Append(char.IsAsciiLetterOrDigit(c) ? c : '-');
        var clean = name.ToString().Trim('-');
        clean = clean.Length > 32 ? clean[..32].TrimEnd('-') : clean;
        // Two clusters of that name could never be joined.
        if (clean is "" or "default" or "kubernetes" || ClusterName.Validate(clean) is not null)
            return $"{facts.Flavor.ToString().ToLowerInvariant()}-{(facts.Uid.Length >= 8 ? facts.Uid[..8] : "cluster")}";
        return clean;
    }

    /// <summary>1 to 255, the same for the same cluster each time, and probably another for another one.</summary>
    public static long NumberOf(string name, string uid)
    {
        // FNV-1a, 32 bits.
        var hash = 2166136261;
        foreach (var b in Encoding.UTF8.GetBytes($"{name}/{uid}"))
            hash = (hash ^ b) * 16777619;
        return hash % 255 + 1;
    }

    private static IEnumerable<Picked> Ranges(ClusterFacts facts, Map given, long id)
    {
        const string list = "ipam.operator.clusterPoolIPv4PodCIDRList";
        var ranges = facts.Nodes.Select(ClusterFacts.PodRanges).ToList();
        if (ranges.Count > 0 && ranges.TrueForAll(of => of.Count > 0) && given.At(list) is null)
        {
            yield return new("ipam.mode", "kubernetes", "Kubernetes gives every node a range");
            if (given.At("ipv6.enabled") is null && ranges.TrueForAll(of => of.Any(range => range.Contains(':', StringComparison.Ordinal))))
                yield return new("ipv6.enabled", true, "every node has a range of IPv6");
            if (given.At("ipv4.enabled") is null && ranges.TrueForAll(of => of.All(range => range.Contains(':', StringComparison.Ordinal))))
                yield return new("ipv4.enabled", false, "no node has a range of IPv4");
            yield break;
        }
        yield return new("ipam.mode", "cluster-pool", given.At(list) is null ? "not every node has a range of its own" : "a pool was given");
        if (given.At(list) is null)
        {
            yield return new(list, new List<object?> { PoolOf(facts, id) }, "by the cluster's number, so that clusters do not overlap");
            yield return new("ipam.operator.clusterPoolIPv4MaskSize", (long)NodeMask, "256 nodes of 254 pods");
        }
    }

    /// <summary>10.ID.0.0/16 unless nodes or services are there.</summary>
    private static string PoolOf(ClusterFacts facts, long id)
    {
        var taken = facts.NodeAddresses.Append(facts.ServiceAddress ?? "").Select(text => IPAddress.TryParse(text, out var address) ? address : null)
            .OfType<IPAddress>().ToList();
        string[] candidates = [$"10.{id % 256}.0.0/16", $"10.{(id + 100) % 256}.0.0/16", $"172.{16 + id % 16}.0.0/16", $"100.{64 + id % 64}.0.0/16"];
        // The service range is told by one address of it; /12 is what kubeadm takes.
        return candidates.FirstOrDefault(candidate => !taken.Exists(IPNetwork.Parse(candidate).Contains)
            && !(facts.ServiceAddress is { } service && SameTwelve(service, candidate))) ?? candidates[^1];
    }

    private static bool SameTwelve(string address, string range)
    {
        const int mask = 0xf0;
        var (a, b) = (IPAddress.Parse(address).GetAddressBytes(), IPNetwork.Parse(range).BaseAddress.GetAddressBytes());
        return a.Length == b.Length && a[0] == b[0] && (a[1] & mask) == (b[1] & mask);
    }
}
