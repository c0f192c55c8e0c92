using System.Globalization;
using System.Text;
using Mesh.KVStore;

namespace Mesh.TestKit;

/// <summary>A cluster as its API server leaves it in an etcd: heartbeat, cluster-config, nodes, canaries. Written by hand, so that a
/// test can leave out or spoil any part.</summary>
public static class PublishedCluster
{
    public static async Task WriteAsync(
        EtcdKVStore store, string name, uint id = 7, int nodes = 1, bool canaries = true, TimeSpan clock = default, CancellationToken cancellation = default)
    {
        await store.WriteAsync(
        [
            Put("cilium/.heartbeat", Beat(clock)),
            Put($"cilium/cluster-config/{name}", $$"""{"id":{{id}},"capabilities":{"syncedCanaries":true,"maxConnectedClusters":255} }"""),
            .. Enumerable.Range(1, nodes).Select(i => Put($"cilium/state/nodes/v1/{name}/{name}-{i}", $$"""
                {"Name":"{{name}}-{{i}}","Cluster":"{{name}}",
                 "IPAddresses":[{"Type":"InternalIP","IP":"172.30.7.{{i}}"},{"Type":"CiliumInternalIP","IP":"10.7.{{i}}.1"}],
                 "IPv4AllocCIDR":{"IP":"10.7.{{i}}.0","Mask":"////AA=="},"ClusterID":{{id}},"NodeIdentity":6}
                """)),
        ], cancellation);
        if (canaries)
            await WriteCanariesAsync(store, name, cancellation);
    }

    public static Task WriteCanariesAsync(EtcdKVStore store, string name, CancellationToken cancellation = default) =>
        store.WriteAsync([.. new[] { "nodes", "services", "ip", "identities" }
            .Select(resource => Put($"cilium/synced/{name}/cilium/state/{resource}/v1", Beat(default)))], cancellation);

    public static Task BeatAsync(EtcdKVStore store, TimeSpan clock = default, CancellationToken cancellation = default) =>
        store.WriteAsync([Put("cilium/.heartbeat", Beat(clock))], cancellation);

    private static string Beat(TimeSpan clock) =>
        (TimeProvider.System.GetUtcNow() + clock).ToString("yyyy-MM-dd'T'HH:mm:ss.fffffff'Z'", CultureInfo.InvariantCulture);

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));
}
