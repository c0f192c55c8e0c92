using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Api;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.Operator.Multicluster;

/// <summary>
/// Services of the whole mesh, as objects of this cluster: endpoints of other clusters for headless global services, and imports of exported ones. For
/// as long as we lead: peers are read as an agent reads them, local objects by reflectors, and each service that either touches is looked at anew from
/// all that is known. So nothing depends on the order of events, and a new leader begins with what stands.
/// </summary>
internal sealed class MeshServices(OperatorOptions options, KubeClient client, TimeProvider time, OperatorLog log)
{
    /// <summary>Services looked at at once.</summary>
    private const int Workers = 5;

    /// <summary>One change of a peer may hold so much; more is a peer's fault.</summary>
    private const int PeerMessageBytes = 64 << 20;

    private readonly DueServices _due = new(time);

    /// <summary>State of each peer; empty while another leads.</summary>
    public IReadOnlyList<RemoteClusterStatus> Peers => _clusters?.Statuses ?? [];

    private volatile RemoteClusters? _clusters;

    public async Task RunAsync(CancellationToken cancellation)
    {
        LocalObjects? local = null;
        var peers = new PeerView(name =>
        {
            if (name is { } one)
                _due.Touch(one);
            else if (local is not null)
                _due.Touch(local.Names);
        });
        var reflecting = new ReflectorOptions { Time = time, Log = log.Line, BackoffMax = TimeSpan.FromSeconds(5) };
        local = new LocalObjects(client, reflecting, options.Imports, options.NamespacesAreGlobal, _due.Touch, () => peers.Exported);
        var writer = new SliceWriter(client, log);
        var endpoints = new EndpointSync(options, local, peers, writer);
        var imports = options.Imports ? new ImportSync(options, client, local, peers, writer, time, log) : null;
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var tasks = new List<Task>([.. local.Follow(stop.Token), ReconcileAsync(local, endpoints, imports, stop.Token)]);
        if (options.ClusterMeshConfig is { } path)
            tasks.AddRange(FollowPeers(path, peers, stop.Token));
        try
        {
            await await Task.WhenAny(tasks);
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(tasks).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _clusters = null;
        }
    }

    private IEnumerable<Task> FollowPeers(string path, PeerView peers, CancellationToken cancellation)
    {
        var directory = new ConfigDirectory(path, options.ClusterName, time);
        var sharing = new EtcdSharing(Keys.Wider);
        var clusters = new RemoteClusters(
            new RemoteClusterOptions
            {
                LocalCluster = options.ClusterName,
                LocalClusterId = options.ClusterId,
                Numbering = options.Numbering,
                // Nodes, because a peer's backends are held against them where its ranges are pinned.
                Resources = options.Imports ? [RemoteResource.Nodes, RemoteResource.Services, RemoteResource.ServiceExports]
                    : [RemoteResource.Nodes, RemoteResource.Services],
            },
            directory, peer => sharing.Open(EtcdConfigFile.Parse(peer.Text) with { MaxMessageBytes = PeerMessageBytes }), new ToldPeers(peers, log), time,
            Random.Shared);
        peers.IsConfigured = name => clusters.Statuses.Any(status => status.Name == name);
        _clusters = clusters;
        return [RunPeersAsync(clusters, cancellation), ListPeersAsync(directory, peers, cancellation)];
    }

    /// <summary>Not over when it ends: it ends only when told.</summary>
    private static async Task RunPeersAsync(RemoteClusters clusters, CancellationToken cancellation)
    {
        await clusters.RunAsync(cancellation);
        cancellation.ThrowIfCancellationRequested();
    }

    private static async Task ListPeersAsync(ConfigDirectory directory, PeerView peers, CancellationToken cancellation)
    {
        peers.Listed(await directory.Listed.WaitAsync(cancellation));
        await Task.Delay(Timeout.InfiniteTimeSpan, cancellation);
    }

    private async Task ReconcileAsync(LocalObjects local, EndpointSync endpoints, ImportSync? imports, CancellationToken cancellation)
    {
        await local.ListedAsync(log, time, cancellation);
        _due.Touch(local.Names);
        while (true)
        {
            var names = await _due.TakeAsync(cancellation);
            await Parallel.ForEachAsync(names, new ParallelOptions { MaxDegreeOfParallelism = Workers, CancellationToken = cancellation },
                async (name, stop) => await ReconcileAsync(name, endpoints, imports, stop));
        }
    }

    /// <summary>For the metrics page, by Cilium's names.</summary>
    public string Metrics()
    {
        const string family = "cilium_operator_clustermesh_remote_cluster";
        var (page, peers) = (new StringBuilder(), Peers);
        page.Append(CultureInfo.InvariantCulture, $"# HELP {family}s Configured remote clusters.\n# TYPE {family}s gauge\n{family}s {peers.Count}\n");
        PerPeer("readiness_status", "1 when everything of the remote cluster has been read.", peer => peer.Ready ? 1 : 0);
        PerPeer("failures", "Reconnections to the remote cluster.", peer => peer.Failures);
        PerPeer("last_failure_ts", "Time of the last failure, seconds since 1970.", peer => peer.LastFailure?.ToUnixTimeSeconds() ?? 0);
        PerPeer("services", "Services the remote cluster shares.", peer => peer.Services);
        PerPeer("service_exports", "Services the remote cluster exports.", peer => peer.ServiceExports);
        return page.ToString();

        void PerPeer(string name, string help, Func<RemoteClusterStatus, long> value)
        {
            page.Append(CultureInfo.InvariantCulture, $"# HELP {family}_{name} {help}\n# TYPE {family}_{name} gauge\n");
            foreach (var peer in peers)
                page.Append(CultureInfo.InvariantCulture, $"{family}_{name}{{target_cluster=\"{peer.Name}\"}} {value(peer)}\n");
        }
    }

    private async Task ReconcileAsync(ServiceName name, EndpointSync endpoints, ImportSync? imports, CancellationToken cancellation)
    {
        var where = $"service {name}";
        try
        {
            await endpoints.ReconcileAsync(name, cancellation);
            if (imports is not null)
                await imports.ReconcileAsync(name, cancellation);
            _due.Done(name);
            log.Mended(where);
        }
        catch (KubeApiException e) when (e.Fault is KubeFault.Conflict or KubeFault.AlreadyExists)
        {
            // What we saw is outdated; what is there will be heard in a moment.
            _due.Failed(name, null);
        }
        catch (KubeApiException e)
        {
            log.Problem(where, e.Message);
            _due.Failed(name, e.RetryAfter);
        }
    }

    /// <summary>Passes everything on, and says in one line when a peer's state changes.</summary>
    private sealed class ToldPeers(PeerView view, OperatorLog log) : IRemoteClusterSink
    {
        public void Apply(RemoteChanges changes) => view.Apply(changes);

        public void Drain(string cluster, uint clusterId)
        {
            view.Drain(cluster, clusterId);
            log.Mended($"cluster {cluster}");
            log.Line($"cluster {cluster}: drained");
        }

        public void StatusChanged(RemoteClusterStatus status)
        {
            view.StatusChanged(status);
            if (status is { Ready: true, HeldText: null, ImportsProblem: null })
                log.Mended($"cluster {status.Name}");
            else
                log.Problem($"cluster {status.Name}", status.HeldText ?? status.ImportsProblem ?? status.Status);
        }
    }
}
