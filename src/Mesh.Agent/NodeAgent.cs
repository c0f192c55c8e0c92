using Mesh.Agent.Api;
using Mesh.Agent.Cni;
using Mesh.Agent.Decisions;
using Mesh.Agent.Endpoints;
using Mesh.Agent.HealthChecks;
using Mesh.Agent.Identities;
using Mesh.Agent.Ipam;
using Mesh.Agent.Masquerade;
using Mesh.Agent.Metrics;
using Mesh.Agent.Probes;
using Mesh.Agent.Publishing;
using Mesh.Agent.Start;
using Mesh.Bpf;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.Identities;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Policies;
using Mesh.ControlPlane.Restored;
using Mesh.ControlPlane.Sources;
using Mesh.Datapath;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.Policy.Engine;

namespace Mesh.Agent;

/// <summary>
/// The stages of the agent, in pipe order, and the order in which they start: first whoever only reads, so that the agent can say
/// what it waits for; then the objects, which tell the node's own addresses; then the kernel; then the peers.
/// </summary>
internal sealed class NodeAgent
{
    /// <summary>What a peer may make us take into memory at once.</summary>
    private const int PeerMessageBytes = 64 * 1024 * 1024;

    private static readonly TimeSpan PolicyLearning = TimeSpan.FromSeconds(2);

    private const string StageEnded = "a stage ended that should run for ever";

    private readonly AgentOptions _options;
    private readonly Action<string> _log;
    private readonly AgentView _view;
    private readonly LocalSource _local;
    private readonly IdentityFile _identityFile;

    public NodeAgent(AgentOptions options, IObjectSource objects, RestoredState restored, Func<PeerConfig, IKVStore> open,
        Func<string, int> interfaceIndex, TimeProvider time, Action<string> log)
    {
        _options = options;
        _log = log;
        var state = new DesiredState();

        // The writers, each the only one of its table.
        var ipcache = new IPCacheWriter(state.IPCache);
        var nodes = new NodesWriter(state.Nodes, ipcache, options.Cluster, options.NodeName);
        var identities = new IdentitiesWriter(state.Identities, options.Cluster);
        _identityFile = new IdentityFile(options.StateDirectory, options.Cluster.Name);
        identities.Restore(_identityFile.Read(log));
        var endpoints = new EndpointsWriter(state.Endpoints, ipcache, options.Cluster, nodes.IsLocalAddress);
        var loadBalancing = new LoadBalancingWriter(
            state.Frontends, options.Cluster, restored.Backends, options.NodeName, options.NodePorts, time);

        // The sources.
        var policies = new PolicyWriter(state, ipcache, options.Cluster, new PolicyEngineOptions
        {
            Cluster = options.Cluster.Name,
            DefaultLocalCluster = options.PolicyDefaultLocalCluster,
            Audit = options.PolicyAuditMode,
            Learning = PolicyLearning,
            FirstSet = restored.NextPolicySet,
            KnownRanges = restored.PolicyRanges,
        }, restored.PolicyEndpoints, time, log);
        _local = new LocalSource(objects, state, nodes, identities, endpoints, loadBalancing, policies);
        var remote = new RemoteClusterSource(state, options.Cluster, restored, nodes, identities, ipcache, loadBalancing);
        var self = new NodeName(options.Cluster.Name, options.NodeName);
        var addresses = new PodAddresses(() => state.Nodes.TryGet(self, out var node) ? node : null, time);
        var registry = new EndpointRegistry(state, endpoints, new EndpointFiles(options.StateDirectory), addresses, interfaceIndex, time);
        state.Frontends.SealInitializers();
        state.IPCache.SealInitializers();

        // The peers.
        var directory = options.ClusterMeshConfig is { } path ? new ConfigDirectory(path, options.Cluster.Name, time) : null;
        var peers = directory is null ? null : new RemoteClusters(
            new RemoteClusterOptions
            {
                LocalCluster = options.Cluster.Name,
                LocalClusterId = options.Cluster.Id,
                Numbering = options.Numbering,
                OwnGround = () => nodes.OwnGround,
                CacheTtl = options.ClusterMeshCacheTtl,
            },
            directory, open, new LoggingSink(remote, log), time, Random.Shared);

        _view = new AgentView
        {
            Options = options,
            State = state,
            Objects = objects,
            Nodes = nodes,
            LoadBalancing = loadBalancing,
            RemoteSource = remote,
            Endpoints = registry,
            Addresses = addresses,
            Cni = new CniStage(new NetworkConfiguration(options.Cni, options.SocketPath, log), DeleteNotes.Beside(options.SocketPath),
                registry, addresses, time, log),
            Masquerade = new MasqueradeStage(options, state.Nodes, time, log),
            HealthChecks = new HealthCheckStage(state.Frontends, () => _view!.Datapath is not null, log),
            Policies = policies,
            Publishing = objects is KubernetesSource server ? new ClusterPublisher(options, server, state, time, Random.Shared, log) : null,
            Peers = peers,
            PeerConfig = directory,
        };
    }

    public AgentView View => _view;

    /// <summary>For tests, which run the stages before the kernel by themselves.</summary>
    internal LocalSource Local => _local;

    /// <summary>Runs the agent of the real world until it is told to stop, or fails.</summary>
    /// <returns>Exit code.</returns>
    public static async Task<int> RunAsync(AgentOptions options, Action<string> log, CancellationToken stop)
    {
        try
        {
            await using var objects = options.Source.Open(LocalSource.Kinds, "mesh-agent", TimeProvider.System, log);
            var restored = RestoredFromPins.Read(options.BpfRoot, options.Cluster);
            // Peers behind one relay share a connection and its watches.
            var sharing = new EtcdSharing(Keys.Wider);
            IKVStore Open(PeerConfig peer) => sharing.Open(EtcdConfigFile.Parse(peer.Text) with { MaxMessageBytes = PeerMessageBytes });
            var agent = new NodeAgent(options, objects, restored, Open, Interfaces.IndexOf, TimeProvider.System, log);
            await agent.ServeAsync(stop);
            return 0;
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            log("stopped; the kernel goes on forwarding with what it has");
            return 0;
        }
        catch (Exception e) when (e is DatapathException or BpfException or InvalidDataException or IOException or UnauthorizedAccessException
            or KubeConfigurationException)
        {
            await Console.Error.WriteLineAsync($"mesh-agent: {e.Message}");
            return 1;
        }
    }

    private async Task ServeAsync(CancellationToken cancellation)
    {
        RuntimeConfigurationFile.Write(_options);
        await using var api = await AgentApiServer.StartAsync(_view);
        await using var metrics = await MetricsServer.StartAsync(_view, _options.PrometheusAddress);
        _log($"agent of {_options.Cluster.Name}/{_options.NodeName} answers on {_options.SocketPath}");
        await RunStagesAsync(cancellation);
    }

    private async Task RunStagesAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var running = new List<Task> { _local.RunAsync(stop.Token) };
        try
        {
            if (_view.Publishing is { } publishing)
                running.Add(publishing.RunAsync(stop.Token));
            var node = await FirstOf(running, _view.Publishing?.NodeComplete ?? _view.Nodes.LocalNode);
            await FirstOf(running, _local.Synced);
            _view.Endpoints.Restore();
            // What holds for the pods taken up, before the kernel asks.
            _view.Policies.Turn();
            using var datapath = Datapath.Datapath.Start(DatapathOptionsOf(node), _view.State);
            _view.Datapath = datapath;
            _log($"kernel programmed: node {node.Name}, pod MTU {datapath.PodMtu}, {_view.State.Endpoints.Count} endpoints taken up");
            running.Add(datapath.RunAsync(stop.Token));
            using var masquerade = _view.Masquerade;
            masquerade.Look();
            running.Add(masquerade.RunAsync(stop.Token));
            running.Add(_view.Cni.RunAsync(stop.Token));
            running.Add(_view.Policies.RunAsync(stop.Token));
            running.Add(_identityFile.FollowAsync(_view.State.Identities, TimeProvider.System, _log, stop.Token));
            running.Add(RunPeersAsync(stop.Token));
            _view.Liveness = new LivenessStage(_view.State, datapath, node, _view.LoadBalancing.SetUnreachable, TimeProvider.System, _log);
            running.Add(_view.Liveness.RunAsync(stop.Token));
            _view.Ejections = new EjectionStage(datapath.Backends, datapath.Sockets, EjectionStage.AnswersAsync, _view.Liveness.Suspect,
                TimeProvider.System, _log);
            running.Add(_view.Ejections.RunAsync(stop.Token));
            running.Add(_view.LoadBalancing.RunAsync(stop.Token));
            running.Add(new DecisionFiles(_view.LoadBalancing, _options.StateDirectory, TimeProvider.System, _log).RunAsync(stop.Token));
            running.Add(_view.HealthChecks.RunAsync(stop.Token));
            running.Add(BurstMemory.ReturnAsync(_view.State.IPCache, TimeProvider.System, stop.Token));
            await await Task.WhenAny(running);
            if (!cancellation.IsCancellationRequested)
                throw new InvalidOperationException(StageEnded);
        }
        finally
        {
            await stop.CancelAsync();
            // Each ends by the cancellation; the fault that brought us here, if there is one, is already on its way up.
            await Task.WhenAll(running).ContinueWith(_ => { }, TaskScheduler.Default);
            _view.Datapath = null;
        }
        cancellation.ThrowIfCancellationRequested();
    }

    /// <summary>Waits for one task while others run: their end, which nobody expects, ends the wait.</summary>
    private static async Task<T> FirstOf<T>(List<Task> running, Task<T> awaited)
    {
        await FirstOf(running, (Task)awaited);
        return await awaited;
    }

    private static async Task FirstOf(List<Task> running, Task awaited)
    {
        var first = await Task.WhenAny([awaited, .. running]);
        await first;
        if (first != awaited)
            throw new InvalidOperationException(StageEnded);
    }

    internal async Task RunPeersAsync(CancellationToken cancellation)
    {
        if (_view.Peers is null)
        {
            _view.RemoteSource.PeersListed([]);
            await Task.Delay(Timeout.Infinite, cancellation);
            return;
        }
        var following = _view.Peers.RunAsync(cancellation);
        await FirstOf([following], _view.PeerConfig!.Listed);
        var names = await _view.PeerConfig.Listed;
        _log($"peers: {(names.Count == 0 ? "none" : string.Join(", ", names))}");
        _view.RemoteSource.PeersListed(names);
        await following;
    }

    private DatapathOptions DatapathOptionsOf(Node node) => new()
    {
        Procfs = _options.Procfs,
        BpfRoot = _options.BpfRoot,
        CgroupPath = _options.CgroupRoot,
        ClusterId = _options.Cluster.Id,
        IdentityNumbering = _options.Numbering,
        NodeName = _options.NodeName,
        UnderlayAddress = (node.UnderlayAddress(v6: false) ?? node.UnderlayAddress(v6: true))!.Value,
        GatewayAddresses = [.. node.Addresses.Items.Where(address => address.Type == "CiliumInternalIP").Select(address => address.Address)
            .DistinctBy(address => address.IsV6)],
        TunnelPort = _options.TunnelPort,
        Uplink = _options.Uplink with
        {
            NodeAddresses = [.. new[] { node.UnderlayAddress(v6: false), node.UnderlayAddress(v6: true) }.OfType<IpAddr>()],
        },
        EnforcePolicy = true,
        Masquerade = _options.Masquerade,
        NodePorts = _options.NodePorts,
        IPCacheMapMax = _options.IPCacheMapMax,
    };
}
