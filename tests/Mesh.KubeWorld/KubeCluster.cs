using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using Mesh.KubeApi;
using Mesh.KubeWorld.Controllers;
using Mesh.KubeWorld.Nodes;
using Mesh.TestKit;

namespace Mesh.KubeWorld;

/// <summary>
/// One Kubernetes cluster: the API server and DNS in a control plane's namespace, controllers, and nodes. Everything that runs in it is what
/// its objects ask for; nothing of Mesh is here before somebody installs it.
/// </summary>
public sealed class KubeCluster : IAsyncDisposable
{
    private static readonly TimeSpan Turn = TimeSpan.FromMilliseconds(50);

    private readonly CancellationTokenSource _stop = new();
    private readonly Dictionary<string, Kubelet> _kubelets;
    private readonly ConcurrentQueue<string> _problems = [];
    private readonly List<Task> _tasks = [];
    private readonly KubeObjects _objects;
    private readonly IReadOnlyList<Socket> _dns;
    private readonly Socket _listener;

    private KubeCluster(KubeClusterPlan plan, KubeApiServer api, Socket listener, IReadOnlyList<Socket> dns)
    {
        Name = plan.Name;
        Api = api;
        _objects = new KubeObjects(api);
        _listener = listener;
        _dns = dns;
        var facts = new ClusterFacts(api, plan.Address, _problems.Enqueue);
        _kubelets = plan.Nodes.ToDictionary(node => node.Name, node => new Kubelet(node, _objects, facts, plan.ProviderId(node.Name)));
        api.Pods = new PodRuntime(name => _kubelets.GetValueOrDefault(name));
    }

    public string Name { get; }

    public KubeApiServer Api { get; }

    /// <summary>Contexts of all clusters of the world are in it, by the clusters' names.</summary>
    public required string Kubeconfig { get; init; }

    /// <summary>What went wrong in controllers and kubelets themselves; a test that looks here finds nothing.</summary>
    public IReadOnlyCollection<string> Problems => _problems;

    public IReadOnlyCollection<string> Nodes => _kubelets.Keys;

    /// <summary>Where the host path of a node is on this machine.</summary>
    public string HostPath(string node, string path) => _kubelets[node].Node.HostPath(path);

    /// <summary>The node's network namespace.</summary>
    public NetworkNamespace NetworkOf(string node) => _kubelets[node].Node.Network;

    /// <summary>A process in the node's namespaces, its mounts above all; for `nsenter`.</summary>
    public int HolderOf(string node) => _kubelets[node].Node.Holder;

    /// <summary>What a container of a running pod has said; empty for nothing.</summary>
    public string LogOf(string space, string pod, string container) =>
        _kubelets.Values.Select(kubelet => kubelet.Find(space, pod)).OfType<PodRun>().FirstOrDefault()?.LogOf(container) is { } file && File.Exists(file)
            ? File.ReadAllText(file) : "";

    /// <summary>Waits for a condition on the objects; it is asked after every change.</summary>
    /// <exception cref="TimeoutException">It did not come; with every pod's state, the warnings, and what went wrong here.</exception>
    public async Task UntilAsync(Func<KubeApiServer, bool> condition, TimeSpan patience)
    {
        using var end = new CancellationTokenSource(patience);
        try
        {
            await Api.WhenAsync(condition, end.Token);
        }
        catch (OperationCanceledException)
        {
            throw new TimeoutException(State());
        }
    }

    /// <summary>Pods, warnings and problems, for a test's failure.</summary>
    public string State()
    {
        var pods = Api.List("pods").Select(pod => $"{pod.Space()}/{pod.Name()} on {pod["spec"]?["nodeName"]}: {pod["status"]?.ToJsonString()}");
        var logs = _kubelets.Values.SelectMany(kubelet => kubelet.Logs()).Select(log => $"== {log.Pod}\n{log.Text}");
        var events = Api.List("events").Select(one => $"{one["involvedObject"]?["name"]}: {one["reason"]}: {one["message"]}");
        return string.Join('\n', [.. pods, .. events, .. _problems, .. logs]);
    }

    internal static async Task<KubeCluster> StartAsync(KubeClusterPlan plan, string kubeconfig, CancellationToken stop)
    {
        // Sockets of the control plane's namespace, served from here.
        var listener = plan.ControlPlane.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Parse(plan.Address), KubeClusterPlan.ApiPort));
            socket.Listen(512);
            return socket;
        });
        var dns = plan.Nodes.Select(node => node.Network.Run(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(IPAddress.Parse(node.Address), 53));
            return socket;
        })).ToList();
        var api = await KubeApiServer.StartAsync(new KubeApiOptions
        {
            Port = 0,
            ListenHandles = [(ulong)listener.SafeHandle.DangerousGetHandle()],
            CertificateNames = [plan.Address],
            ServiceCidr = plan.ServiceRange,
        }, stop);
        var cluster = new KubeCluster(plan, api, listener, dns) { Kubeconfig = kubeconfig };
        api.WriteKubeconfig(kubeconfig, plan.Name);
        foreach (var kubelet in cluster._kubelets.Values)
            await kubelet.RegisterAsync(stop);
        foreach (var socket in dns)
            cluster._tasks.Add(Task.Run(() => new Dns(api, socket).RunAsync(cluster._stop.Token), CancellationToken.None));
        cluster._tasks.Add(Task.Run(() => cluster.ControlAsync(cluster._stop.Token), CancellationToken.None));
        return cluster;
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await Task.WhenAll(_tasks);
        await Task.WhenAll(_kubelets.Values.Select(kubelet => kubelet.DisposeAsync().AsTask()));
        await Api.DisposeAsync();
        _objects.Dispose();
        foreach (var socket in _dns)
            socket.Dispose();
        _listener.Dispose();
        _stop.Dispose();
    }

    /// <summary>All controllers, in turn, after every change.</summary>
    private async Task ControlAsync(CancellationToken stop)
    {
        var workloads = new Workloads(_objects);
        var scheduling = new Scheduling(_objects);
        var slices = new Slices(_objects);
        using var tick = new PeriodicTimer(Turn);
        long seen = -1;
        var idle = 0;
        try
        {
            while (true)
            {
                // Host paths change without an object: a CNI configuration, above all.
                if (Api.Revision == seen && ++idle % 10 != 0)
                {
                    await tick.WaitForNextTickAsync(stop);
                    continue;
                }
                seen = Api.Revision;
                try
                {
                    await workloads.ReconcileAsync(stop);
                    await scheduling.ReconcileAsync(stop);
                    await slices.ReconcileAsync(stop);
                    foreach (var kubelet in _kubelets.Values)
                        await kubelet.ReconcileAsync(stop);
                }
                catch (Exception e) when (e is InvalidOperationException or HttpRequestException or NullReferenceException or KeyNotFoundException)
                {
                    _problems.Enqueue($"{Name}: {e}");
                }
                await tick.WaitForNextTickAsync(stop);
            }
        }
        catch (OperationCanceledException)
        {
            // The cluster ends.
        }
    }
}

/// <summary>What a cluster is made of before it starts.</summary>
internal sealed record KubeClusterPlan(
    string Name, string Address, string ServiceRange, NetworkNamespace ControlPlane, IReadOnlyList<Node> Nodes, Func<string, string> ProviderId)
{
    public const int ApiPort = 6443;
}
