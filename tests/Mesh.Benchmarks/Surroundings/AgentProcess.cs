using System.Diagnostics;
using System.Globalization;
using Mesh.Bpf;
using Mesh.Datapath;
using Mesh.Datapath.IPCache;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>The real mesh-agent of cluster tokyo as a child, with one peer, and a view of the maps it fills.</summary>
internal sealed class AgentProcess : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly Node _node;
    private readonly Process _process;
    private IPCacheMaps? _maps;

    private AgentProcess(Node node, Process process)
    {
        _node = node;
        _process = process;
    }

    /// <summary>Only after <see cref="UntilAsync"/> has seen the maps.</summary>
    public IPCacheMaps Maps => _maps ??= IPCacheMaps.OpenPinned(new PinDirectory(_node.BpfRoot).Maps, readOnly: true);

    /// <summary>Where further manifests of tokyo may be put before the start.</summary>
    public static string Manifests(Node node) => Directory.CreateDirectory(Path.Combine(node.Directory, "manifests")).FullName;

    public static AgentProcess Start(Node node, PeerCluster peer) =>
        Start(node, [new(PeerCluster.Name, peer.HowToConnect)], IdentityNumbering.Max255);

    /// <param name="peers">Names, and each one's etcd client file.</param>
    /// <param name="ipcacheMax">Addresses of each family that the kernel's maps hold.</param>
    public static AgentProcess Start(Node node, IReadOnlyCollection<KeyValuePair<string, string>> peers, IdentityNumbering numbering,
        uint ipcacheMax = DatapathOptions.IPCacheMapMaxDefault)
    {
        File.WriteAllText(Path.Combine(Manifests(node), "node.yaml"), $$"""
            apiVersion: cilium.io/v2
            kind: CiliumNode
            metadata: {name: tokyo-1}
            spec:
              addresses: [{type: InternalIP, ip: {{Node.Underlay}}}, {type: CiliumInternalIP, ip: {{Node.Gateway4}}}]
              ipam: {podCIDRs: ["10.1.0.0/24"]}

            """);
        var config = Directory.CreateDirectory(Path.Combine(node.Directory, "clustermesh")).FullName;
        foreach (var former in Directory.EnumerateFiles(config))
            File.Delete(former);
        foreach (var (name, file) in peers)
            File.WriteAllText(Path.Combine(config, name), file);
        return new AgentProcess(node, Command.Start("mesh-agent", Log(node),
            "--cluster-name", "tokyo", "--cluster-id", "1", "--node-name", "tokyo-1", "--source", $"manifests:{Manifests(node)}",
            "--max-connected-clusters", numbering.MaxConnectedClusters.ToString(CultureInfo.InvariantCulture),
            "--bpf-ipcache-map-max", ipcacheMax.ToString(CultureInfo.InvariantCulture),
            "--clustermesh-config", config, "--bpf-root", node.BpfRoot, "--socket-path", Path.Combine(node.Directory, "agent.sock"),
            "--state-dir", Directory.CreateDirectory(Path.Combine(node.Directory, "state")).FullName));
    }

    /// <summary>Without peers, and with its objects from an API server, whose administrator it is.</summary>
    public static AgentProcess StartOnKubernetes(Node node, string kubeconfig) => new(node, Command.Start("mesh-agent", Log(node),
        "--cluster-name", "tokyo", "--cluster-id", "1", "--node-name", "tokyo-1", "--source", $"kubernetes:{kubeconfig}",
        "--clustermesh-config", Directory.CreateDirectory(Path.Combine(node.Directory, "clustermesh")).FullName,
        "--bpf-root", node.BpfRoot, "--socket-path", Path.Combine(node.Directory, "agent.sock"),
        "--state-dir", Directory.CreateDirectory(Path.Combine(node.Directory, "state")).FullName));

    /// <summary>Identity in the kernel's ipcache; 0 when the address is not there. One system call.</summary>
    public uint IdentityOf(IpAddr address) => address.IsV6
        ? Maps.Hosts6.TryGet(IPCache6Key.From(address), out var value6) ? value6.Identity : 0
        : Maps.Hosts4.TryGet(IPCache4Key.From(address), out var value4) ? value4.Identity : 0;

    /// <summary>Waits until the peer's records have been listed and are in the kernel.</summary>
    public Task ReadyAsync(CancellationToken cancellation)
    {
        var marker = IpAddr.Parse(PeerCluster.Marker);
        return UntilAsync(() => IdentityOf(marker) != 0, "the peer's records in the kernel's ipcache", cancellation);
    }

    /// <summary>Looks every millisecond, or as said. Maps that are not there yet are no fault.</summary>
    public async Task UntilAsync(
        Func<bool> holds, string what, CancellationToken cancellation, TimeSpan? patience = null, int everyMilliseconds = 1)
    {
        for (var clock = Stopwatch.StartNew(); !Holds(holds); await Task.Delay(everyMilliseconds, cancellation))
        {
            if (_process.HasExited)
                throw new InvalidOperationException($"mesh-agent ended with exit code {_process.ExitCode}:\n{LogTail()}");
            if (clock.Elapsed > (patience ?? Patience))
                throw new TimeoutException($"waited {clock.Elapsed.TotalSeconds:0} s for {what}:\n{LogTail()}");
        }
    }

    /// <summary>VmRSS, VmHWM, RssAnon or RssFile of the process, in bytes.</summary>
    public long Memory(string field) => ProcessFacts.Memory(_process.Id, field);

    public TimeSpan Cpu => ProcessFacts.Cpu(_process.Id);

    public string LogTail() => string.Join('\n', File.ReadLines(Log(_node)).TakeLast(20));

    public async ValueTask DisposeAsync()
    {
        _maps?.Dispose();
        await Command.StopAsync(_process);
    }

    private static bool Holds(Func<bool> holds)
    {
        try
        {
            return holds();
        }
        catch (Exception notYet) when (notYet is BpfException or Mesh.Datapath.DatapathException)
        {
            return false;
        }
    }

    private static string Log(Node node) => Path.Combine(node.Directory, "agent.log");
}
