using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Operator.Ipam;

/// <summary>
/// Gives every CiliumNode one range of each family (ipam: cluster-pool). All nodes are heard before the first range is given, so that a new
/// leader never gives one away twice; each is written for the version of the object that was read. A range is free again when its CiliumNode is gone.
/// </summary>
internal sealed class NodeRanges(KubeClient client, IReadOnlyList<RangePool> pools, OperatorLog log)
{
    private readonly Dictionary<string, CiliumNode> _nodes = [];
    private bool _synced;

    /// <summary>Follows the CiliumNodes until the leadership ends.</summary>
    public async Task RunAsync(Reflector<CiliumNode> nodes, CancellationToken cancellation)
    {
        await foreach (var batch in nodes.WatchAsync(cancellation))
        {
            foreach (var one in batch)
                Note(one);
            if (_synced)
                await GiveAsync(cancellation);
        }
    }

    private void Note(ReflectorEvent<CiliumNode> one)
    {
        switch (one.Type)
        {
            case ReflectorEventType.Upsert:
                _nodes[one.Name.Name] = one.Object!;
                foreach (var range in RangesOf(one.Object!))
                {
                    if (pools.Select(pool => pool.Take(range, one.Name.Name)).FirstOrDefault(owner => owner is not null) is { } owner)
                        log.Problem($"ciliumnode {one.Name}", $"its pod range {range} overlaps that of node {owner}: pods of both would have the same "
                            + "addresses; delete the CiliumNode of the one without pods, it is made anew with another range");
                }
                break;
            case ReflectorEventType.Delete:
                _nodes.Remove(one.Name.Name);
                log.Mended($"ciliumnode {one.Name}");
                foreach (var pool in pools)
                    pool.Release(one.Name.Name);
                break;
            case ReflectorEventType.Fault:
                log.Problem($"ciliumnode {one.Name}", one.Fault!);
                break;
            case ReflectorEventType.Synced:
                _synced = true;
                break;
        }
    }

    private async Task GiveAsync(CancellationToken cancellation)
    {
        static bool Lacks(CiliumNode node) => node.Spec.Ipam?.PodCIDRs is not { Count: > 0 } && node.Metadata.DeletionTimestamp is null;
        foreach (var (name, node) in _nodes.Where(pair => Lacks(pair.Value)).ToList())
        {
            var given = pools.Select(pool => pool.Give(name)).ToList();
            if (given.FindIndex(range => range is null) is >= 0 and var missing)
            {
                foreach (var pool in pools)
                    pool.Release(name);
                log.Problem($"ciliumnode {name}", $"no pod range is left in {pools[missing].Description}: {_nodes.Count} nodes; "
                    + "add a range to cluster-pool-ipv4-cidr or cluster-pool-ipv6-cidr, or remove nodes");
                continue;
            }
            var body = new JsonObject
            {
                // For this version alone: whoever changed the node meanwhile is heard first.
                ["metadata"] = new JsonObject { ["resourceVersion"] = node.Metadata.ResourceVersion },
                ["spec"] = new JsonObject { ["ipam"] = new JsonObject { ["podCIDRs"] = new JsonArray([.. given.Select(range => (JsonNode)$"{range}")]) } },
            };
            try
            {
                _nodes[name] = await client.PatchAsync(KubeResources.CiliumNodes, null, name, KubePatch.Merge(body), cancellation);
                log.Mended($"ciliumnode {name}");
                log.Line($"node {name} has {string.Join(" and ", given)}");
            }
            catch (KubeApiException e) when (e.Fault is KubeFault.Conflict or KubeFault.NotFound)
            {
                // Heard again as it is now, or as gone.
                foreach (var pool in pools)
                    pool.Release(name);
                _nodes.Remove(name);
            }
        }
    }

    private static IEnumerable<IpPrefix> RangesOf(CiliumNode node) =>
        (node.Spec.Ipam?.PodCIDRs ?? []).Where(text => IpPrefix.TryParse(text, out _)).Select(IpPrefix.Parse);
}
