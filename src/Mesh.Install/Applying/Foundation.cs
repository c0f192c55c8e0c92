using System.Text;
using System.Text.Json.Nodes;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>
/// What identities are made of and peers know a cluster by: its name, its ID, and how many clusters IDs are counted for. They stay as long as anything
/// is built on them: an identity of another ID would be believed by nobody, and pass for a pod of whoever else has that ID.
/// </summary>
internal sealed class Foundation(KubeClient client, InstallTarget target)
{
    /// <summary>Values, and the lines of cilium-config that they become, which extraConfig can write too.</summary>
    private static readonly (string Value, string Line)[] Stones =
    [
        ("cluster.name", "cluster-name"), ("cluster.id", "cluster-id"), ("clustermesh.maxConnectedClusters", "max-connected-clusters"),
    ];

    /// <param name="installed">All values of what is deployed.</param>
    /// <param name="wanted">All values of what is to be.</param>
    /// <exception cref="InstallException">One of them would change under peers or pods; says who holds it, and the mend.</exception>
    public async Task ThrowIfMovedAsync(Map installed, Map wanted, CancellationToken cancellation)
    {
        var moved = Stones.Select(stone => (stone.Value, Before: Of(installed, stone), After: Of(wanted, stone)))
            .Where(stone => stone.Before != stone.After).ToList();
        if (moved.Count == 0)
            return;
        var peers = await PeersAsync(cancellation);
        var pods = await CountAsync(KubeResources.CiliumEndpoints.Raw, cancellation);
        var identities = await CountAsync(KubeResources.CiliumIdentities.Raw, cancellation);
        if (peers.Count == 0 && pods == 0 && identities == 0)
            return;
        var holders = new List<string>();
        if (peers.Count > 0)
            holders.Add($"it is connected to {string.Join(", ", peers)}");
        if (pods + identities > 0)
            holders.Add($"{pods} pods run, with {identities} identities made of it");
        var mends = new List<string>();
        if (peers.Count > 0)
        {
            mends.Add($"leave the peers (mesh clustermesh disconnect {string.Join(", ", peers)} here, disconnect {Of(installed, Stones[0])} there)");
        }
        if (pods + identities > 0)
        {
            mends.Add($"mesh uninstall, mesh install {string.Join(' ', moved.Select(stone => $"--set {stone.Value}={stone.After}"))}, "
                + "and start the pods anew");
        }
        throw new InstallException($"{string.Join(" and ", moved.Select(stone => $"{stone.Value} is {stone.Before} and cannot become {stone.After}"))} "
            + $"in a running cluster: {string.Join("; ", holders)}. Nothing was changed. To have it changed: {string.Join("; then ", mends)}");
    }

    private static string Of(Map values, (string Value, string Line) stone) =>
        values.At("extraConfig") is Map extra && extra.TryGetValue(stone.Line, out var line) ? Tree.Print(line) : Tree.Print(values.At(stone.Value));

    /// <summary>Names of the clusters that agents and relay are told to read, whoever wrote it.</summary>
    private async Task<IReadOnlyCollection<string>> PeersAsync(CancellationToken cancellation)
    {
        var peers = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var name in Uninstaller.PeerSecrets)
        {
            var secret = await client.FindAsync(KubeResources.Secrets.Raw, target.Namespace, name, cancellation);
            peers.UnionWith((secret?["data"] as JsonObject ?? []).Where(entry => IsPeer((string?)entry.Value)).Select(entry => entry.Key));
        }
        return peers;
    }

    private static bool IsPeer(string? base64) => base64 is not null
        && Encoding.UTF8.GetString(Convert.FromBase64String(base64)).Contains("endpoints:", StringComparison.Ordinal);

    private async Task<int> CountAsync(KubeResource<JsonObject> resource, CancellationToken cancellation)
    {
        try
        {
            return (await client.ListAsync(resource, null, cancellation)).Count;
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            // Not defined: then there are none.
            return 0;
        }
    }
}
