using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Relay;

namespace Mesh.ClusterMesh.ApiServer.Relaying;

/// <summary>The relay's part of the Prometheus page: Cilium's names for KVStoreMesh, then what is ours.</summary>
internal static class RelayMetrics
{
    private const string Theirs = "cilium_kvstoremesh_";
    private const string Ours = "mesh_relay_";

    private static readonly (RelayedResource Resource, string Scope)[] Scopes =
    [
        (RelayedResource.Nodes, "nodes/v1"), (RelayedResource.Services, "services/v1"),
        (RelayedResource.IpEntries, "ip/v1"), (RelayedResource.Identities, "identities/v1"),
        (RelayedResource.ServiceExports, "serviceexports/v1"), (RelayedResource.EndpointSlices, "endpointslices/v1"),
    ];

    /// <param name="bootstrap">Null until ready.</param>
    public static string Page(string cluster, IReadOnlyList<RelayedClusterStatus> peers, MirrorStatus cache, TimeSpan? bootstrap)
    {
        var page = new StringBuilder();
        var source = $"source_cluster=\"{cluster}\"";
        Header(page, Theirs + "bootstrap_seconds", "gauge", "Duration in seconds to complete bootstrap");
        Sample(page, Theirs + "bootstrap_seconds", source, bootstrap?.TotalSeconds ?? 0);
        Header(page, Theirs + "remote_clusters", "gauge", "The total number of remote clusters meshed with the local cluster");
        Sample(page, Theirs + "remote_clusters", source, peers.Count);
        PerPeer("remote_cluster_readiness_status", Theirs, "gauge", "The readiness status of the remote cluster", peer => peer.Ready ? 1 : 0);
        PerPeer("remote_cluster_failures", Theirs, "gauge", "The total number of failures related to the remote cluster", peer => peer.Failures);
        PerPeer("remote_cluster_last_failure_ts", Theirs, "gauge", "The timestamp of the last failure of the remote cluster",
            peer => peer.LastFailure?.ToUnixTimeSeconds() ?? 0);
        Header(page, Theirs + "kvstore_initial_sync_completed", "gauge",
            "Whether the initial synchronization from/to the kvstore has completed");
        foreach (var peer in peers)
        {
            foreach (var (resource, scope) in Scopes)
                Sample(page, Theirs + "kvstore_initial_sync_completed",
                    $"action=\"read\",scope=\"{scope}\",source_cluster=\"{peer.Name}\"", peer.Synced.Contains(resource) ? 1 : 0);
        }
        Header(page, Ours + "keys", "gauge", "Mirrored keys");
        foreach (var peer in peers)
        {
            foreach (var (resource, scope) in Scopes)
                Sample(page, Ours + "keys", $"scope=\"{scope}\",{source},target_cluster=\"{peer.Name}\"", peer.Counts.GetValueOrDefault(resource));
        }
        PerPeer("bytes", Ours, "gauge", "Bytes of mirrored keys and values", peer => peer.Bytes);
        PerPeer("events_total", Ours, "counter", "Changes that came after the first list", peer => peer.Events);
        PerPeer("refused_total", Ours, "counter", "Records not taken over because of a quota", peer => peer.Refused);
        PerPeer("withheld_total", Ours, "counter", "Deletions withheld because the canary went with them", peer => peer.Withheld);
        Header(page, Ours + "certificate_not_after", "gauge",
            "End of a certificate towards a remote cluster, seconds since 1970: ours, its server's, its server's authority");
        foreach (var peer in peers)
        {
            foreach (var (certificate, end) in ((string, DateTimeOffset?)[])
                [("client", peer.Tls?.ClientNotAfter), ("server", peer.Tls?.ServerNotAfter), ("authority", peer.Tls?.AuthorityNotAfter)])
            {
                var labels = $"certificate=\"{certificate}\",{source},target_cluster=\"{peer.Name}\"";
                if (end is { } time)
                    Sample(page, Ours + "certificate_not_after", labels, time.ToUnixTimeSeconds());
            }
        }
        PerPeer("certificate_problem", Ours, "gauge", "1 while a certificate file cannot be used and the last good one is",
            peer => peer.Tls?.Problem is null ? 0 : 1);
        One("cache_revision", "Newest revision of the cache", cache.Revision);
        One("cache_keys", "Keys in the cache", cache.Keys);
        One("cache_bytes", "Bytes of their keys and values", cache.Bytes);
        One("cache_commits", "Times that revisions were made, some of them several at once", cache.Commits);
        One("journal_bytes", "Bytes of the cache's journal", cache.JournalBytes);
        return page.ToString();

        void PerPeer(string name, string family, string type, string help, Func<RelayedClusterStatus, double> value)
        {
            Header(page, family + name, type, help);
            foreach (var peer in peers)
                Sample(page, family + name, $"{source},target_cluster=\"{peer.Name}\"", value(peer));
        }

        void One(string name, string help, double value)
        {
            Header(page, Ours + name, "gauge", help);
            Sample(page, Ours + name, source, value);
        }
    }

    private static void Header(StringBuilder page, string name, string type, string help) =>
        page.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");

    private static void Sample(StringBuilder page, string name, string labels, double value) =>
        page.Append(CultureInfo.InvariantCulture, $"{name}{{{labels}}} {value}\n");
}
