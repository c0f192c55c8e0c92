using System.Globalization;
using Mesh.Joining;
using Mesh.Joining.Checks;

namespace Mesh.Cli.Kube;

/// <summary>
/// Whom a cluster on Kubernetes is connected to already, so that a new peer is compared with all of them: names by the Secrets that agents and relay
/// read, IDs by what the relay or an agent has read from each. A peer that none of them has reached yet has a name and no known ID.
/// </summary>
internal static class KnownPeers
{
    /// <summary>All agents have read the same; a few are asked so that one that is starting does no harm.</summary>
    internal const int AgentsAsked = 3;

    private static readonly string[] Secrets = ["cilium-clustermesh", "cilium-kvstoremesh"];

    public static async Task<Membership> ReadAsync(KubeCluster cluster, AccessPoint access, CancellationToken cancel)
    {
        var ids = new SortedDictionary<string, uint>(StringComparer.Ordinal);
        foreach (var secret in Secrets)
        {
            foreach (var name in await KubeClusterMesh.ExpectedAsync(cluster, secret, access.ClusterName, cancel))
                ids[name] = 0;
        }
        if (ids.Count > 0)
            await LearnAsync(cluster, ids, cancel);
        return new Membership(Facts(access.ClusterName, uint.TryParse(access.ClusterId, CultureInfo.InvariantCulture, out var id) ? id : 0),
            [.. ids.Select(peer => Facts(peer.Key, peer.Value))]);
    }

    /// <summary>Why the two and their peers cannot be one mesh, one line each, with the mend.</summary>
    public static IEnumerable<string> Faults(Membership one, Membership other)
    {
        var taken = one.All.Concat(other.All).Select(member => member.Id).ToHashSet();
        var free = Enumerable.Range(1, taken.Count + 1).First(id => !taken.Contains((uint)id));
        return MeshChecks.NamesAndIds(one, other).Where(finding => finding.Severity == Severity.Fault).Select(finding => $"{finding.Text}: "
            + (finding.Check == Finding.Names.Id
                ? $"IDs must differ in the whole mesh; install one of them anew with --set cluster.id=N, such as {free}"
                : "names must differ in the whole mesh; install one of them anew with --set cluster.name=NAME, or, where it is one cluster that was "
                    + "installed anew, leave it first (mesh clustermesh disconnect NAME)"));
    }

    /// <summary>What could not be compared.</summary>
    public static IEnumerable<string> Doubts(Membership one, Membership other) => MeshChecks.NamesAndIds(one, other)
        .Where(finding => finding.Severity == Severity.Warning)
        .Select(finding => $"{finding.Text}: no agent that was asked has reached them; compare them by hand (mesh status --context)");

    private static async Task LearnAsync(KubeCluster cluster, SortedDictionary<string, uint> ids, CancellationToken cancel)
    {
        foreach (var pod in await KubeClusterMesh.PodsAsync(cluster, "k8s-app=clustermesh-apiserver", cancel))
        {
            if (ids.ContainsValue(0))
                Learn(ids, await KubeClusterMesh.RelayAsync(cluster, pod, cancel));
        }
        foreach (var pod in (await KubeClusterMesh.PodsAsync(cluster, "k8s-app=cilium", cancel)).Take(AgentsAsked))
        {
            if (ids.ContainsValue(0))
                Learn(ids, await KubeClusterMesh.AgentAsync(cluster, pod, cancel));
        }
    }

    private static void Learn(SortedDictionary<string, uint> ids, ClusterMesh.NodeAnswer answer)
    {
        foreach (var row in answer.Status?.ClusterMesh?.Clusters ?? [])
        {
            if (row.Config is { ClusterId: > 0 and <= uint.MaxValue } config && ids.TryGetValue(row.Name, out var known) && known == 0)
                ids[row.Name] = (uint)config.ClusterId;
        }
    }

    private static PeerFacts Facts(string name, uint id) => new(name, id, [], []);
}
