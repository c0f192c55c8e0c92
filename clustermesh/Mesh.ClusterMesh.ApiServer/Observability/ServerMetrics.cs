using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Observability;

/// <summary>The Prometheus page, under the names that dashboards for Cilium's own API server use. Written from the states themselves
/// at each scrape; only durations are gathered in between.</summary>
internal sealed class ServerMetrics(string cluster, TimeProvider time)
{
    private const string Prefix = "cilium_clustermesh_apiserver_";

    /// <summary>Upper bounds of the buckets, in seconds.</summary>
    private static readonly double[] Buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

    private readonly Lock _gate = new();
    private readonly long _born = time.GetTimestamp();
    private readonly SortedDictionary<string, Histogram> _operations = new(StringComparer.Ordinal);
    private double _bootstrapSeconds;

    public void BootstrapCompleted() => _bootstrapSeconds = time.GetElapsedTime(_born).TotalSeconds;

    public void Observe(string action, string kind, string outcome, string scope, TimeSpan duration)
    {
        var labels = $"action=\"{action}\",kind=\"{kind}\",outcome=\"{outcome}\",scope=\"{scope}\"";
        lock (_gate)
        {
            if (!_operations.TryGetValue(labels, out var histogram))
                _operations[labels] = histogram = new Histogram();
            histogram.Add(duration.TotalSeconds);
        }
    }

    /// <param name="etcdRestarts">Null when etcd is not ours.</param>
    public string Page(IReadOnlyDictionary<RemoteResource, SyncStoreStatus> stores, int problems, int? etcdRestarts, bool writes)
    {
        var page = new StringBuilder();
        Header(page, "bootstrap_seconds", "gauge", "Duration in seconds to complete bootstrap");
        Sample(page, "bootstrap_seconds", $"source_cluster=\"{cluster}\"", _bootstrapSeconds);
        PerStore(page, stores, "kvstore_initial_sync_completed", "gauge",
            "Whether the initial synchronization from/to the kvstore has completed", "action=\"write\",", status => status.Synced ? 1 : 0);
        Operations(page);
        PerStore(page, stores, "kvstore_sync_errors_total", "counter",
            "Number of times synchronization to the kvstore failed", "", status => status.Errors);
        PerStore(page, stores, "kvstore_sync_queue_size", "gauge",
            "Number of elements queued for synchronization in the kvstore", "", status => status.Queue);
        PerStore(page, stores, "kvstore_keys", "gauge", "Number of keys published in the kvstore", "", status => status.Desired);
        PerStore(page, stores, "kvstore_sync_repaired_total", "counter",
            "Number of keys that somebody else changed and that were put right", "", status => status.Repaired);
        Header(page, "problems", "gauge", "Number of manifests and objects that could not be taken over; /problems lists them");
        Sample(page, "problems", $"source_cluster=\"{cluster}\"", problems);
        Header(page, "writer", "gauge", "Whether this replica is the one that writes");
        Sample(page, "writer", $"source_cluster=\"{cluster}\"", writes ? 1 : 0);
        if (etcdRestarts is { } restarts)
        {
            Header(page, "etcd_restarts_total", "counter", "Number of times the embedded etcd had to be started again");
            Sample(page, "etcd_restarts_total", $"source_cluster=\"{cluster}\"", restarts);
        }
        Header(page, "version", "gauge", "Version of the program");
        var version = typeof(ServerMetrics).Assembly.GetName().Version?.ToString(3);
        Sample(page, "version", $"arch=\"{Arch}\",revision=\"\",version=\"{version}\"", 1);
        return page.ToString();
    }

    /// <summary>The label "scope" as Cilium has it: the resource's prefix without cilium/state/.</summary>
    private static string Scope(RemoteResource resource) => resource switch
    {
        RemoteResource.Nodes => "nodes/v1",
        RemoteResource.Services => "services/v1",
        RemoteResource.Identities => "identities/v1",
        RemoteResource.ServiceExports => "serviceexports/v1",
        _ => "ip/v1",
    };

    private static string Arch => System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture.ToString().ToLowerInvariant();

    private void PerStore(
        StringBuilder page, IReadOnlyDictionary<RemoteResource, SyncStoreStatus> stores, string name, string type, string help,
        string action, Func<SyncStoreStatus, double> value)
    {
        Header(page, name, type, help);
        foreach (var (resource, status) in stores.OrderBy(pair => Scope(pair.Key), StringComparer.Ordinal))
            Sample(page, name, $"{action}scope=\"{Scope(resource)}\",source_cluster=\"{cluster}\"", value(status));
    }

    private void Operations(StringBuilder page)
    {
        Header(page, "kvstore_operations_duration_seconds", "histogram", "Duration in seconds of kvstore operations");
        lock (_gate)
        {
            foreach (var (labels, histogram) in _operations)
                histogram.Write(page, labels);
        }
    }

    private static void Header(StringBuilder page, string name, string type, string help) =>
        page.Append(CultureInfo.InvariantCulture, $"# HELP {Prefix}{name} {help}\n# TYPE {Prefix}{name} {type}\n");

    private static void Sample(StringBuilder page, string name, string labels, double value) =>
        page.Append(CultureInfo.InvariantCulture, $"{Prefix}{name}{{{labels}}} {value}\n");

    private sealed class Histogram
    {
        private readonly long[] _counts = new long[Buckets.Length];
        private long _count;
        private double _sum;

        public void Add(double seconds)
        {
            _count++;
            _sum += seconds;
            for (var i = 0; i < Buckets.Length; i++)
            {
                if (seconds <= Buckets[i])
                    _counts[i]++;
            }
        }

        public void Write(StringBuilder page, string labels)
        {
            const string Name = "kvstore_operations_duration_seconds";
            for (var i = 0; i < Buckets.Length; i++)
                Sample(page, $"{Name}_bucket", string.Create(CultureInfo.InvariantCulture, $"{labels},le=\"{Buckets[i]}\""), _counts[i]);
            Sample(page, $"{Name}_bucket", $"{labels},le=\"+Inf\"", _count);
            Sample(page, $"{Name}_sum", labels, _sum);
            Sample(page, $"{Name}_count", labels, _count);
        }
    }
}
