using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.Datapath;
using Mesh.TestKit;

namespace Mesh.Agent.Tests;

/// <summary>
/// A node in a network namespace of its own with its own bpffs: the real mesh-agent process of osaka-1, and beside it the real etcd of
/// its peer tokyo. Everything is gone with the test, and the processes even if the test is killed.
/// </summary>
internal sealed class KernelNode : IAsyncDisposable
{
    private const string Etcd = "http://127.0.0.1:2379";
    private const string EtcdPeer = "http://127.0.0.1:2380";

    private readonly string _name = $"agent-{Environment.ProcessId:x}-{Guid.NewGuid().ToString("N")[..4]}";
    private readonly string _directory = RunningAgent.NewDirectory();
    private Process? _agent;
    private Process? _etcd;

    private KernelNode() => Client = new AgentClient(Path.Combine(_directory, "agent.sock"), "osaka/osaka-1", TimeSpan.FromSeconds(10));

    public AgentClient Client { get; }

    private string BpfRoot => Path.Combine(_directory, "bpf");

    private string PeerFile => Path.Combine(_directory, "peers", "tokyo");

    public static async Task<KernelNode> CreateAsync(string manifests)
    {
        var node = new KernelNode();
        foreach (var folder in new[] { "manifests", "peers", "state", "bpf" })
            Directory.CreateDirectory(Path.Combine(node._directory, folder));
        await File.WriteAllTextAsync(Path.Combine(node._directory, "manifests", "all.yaml"), manifests);
        await File.WriteAllTextAsync(node.PeerFile, $"endpoints:\n- {Etcd}\n");
        await RunAsync("ip", "netns", "add", node._name);
        await RunAsync("ip", "-n", node._name, "link", "set", "lo", "up");
        await RunAsync("ip", "-n", node._name, "link", "add", "under0", "type", "veth", "peer", "name", "under1");
        await RunAsync("ip", "-n", node._name, "addr", "add", "172.30.0.21/24", "dev", "under0");
        await RunAsync("ip", "-n", node._name, "link", "set", "under0", "up");
        await RunAsync("ip", "-n", node._name, "link", "set", "under1", "up");
        await RunAsync("mount", "-t", "bpf", "bpf", node.BpfRoot);
        return node;
    }

    /// <param name="dump">Keys and values on alternating lines.</param>
    public async Task StartTokyoAsync(string[] dump)
    {
        _etcd = Start("etcd", "--data-dir", Path.Combine(_directory, "etcd"), "--log-level", "error", "--unsafe-no-fsync",
            "--listen-client-urls", Etcd, "--advertise-client-urls", Etcd, "--listen-peer-urls", EtcdPeer,
            "--initial-advertise-peer-urls", EtcdPeer, "--initial-cluster", "default=" + EtcdPeer);
        await RunningAgent.Eventually(() => TryInsideAsync("etcdctl", "--endpoints", Etcd, "endpoint", "health"), ok => ok);
        foreach (var pair in dump.Chunk(2))
            if (!await TryInsideAsync("etcdctl", "--endpoints", Etcd, "put", "--", pair[0], pair[1]))
                throw new InvalidOperationException($"etcd did not take {pair[0]}");
    }

    public void StartAgent() => _agent = Start(Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
        "--cluster-name", "osaka", "--cluster-id", "2", "--node-name", "osaka-1", "--source", $"manifests:{_directory}/manifests",
        "--clustermesh-config", Path.Combine(_directory, "peers"), "--bpf-root", BpfRoot,
        "--socket-path", Path.Combine(_directory, "agent.sock"), "--state-dir", Path.Combine(_directory, "state"));

    public Task KillAgentAsync() => KillAsync(_agent);

    public Task KillTokyoAsync() => KillAsync(_etcd);

    public void RemovePeer() => File.Delete(PeerFile);

    /// <summary>Frontends, addresses and clusters as the kernel has them at this moment, one a line.</summary>
    public string Kernel()
    {
        using var maps = PinnedMaps.Open(BpfRoot);
        return string.Join('\n', maps.Frontends()
            .Select(frontend => $"{frontend.Address} => " + string.Join(' ', frontend.Segments.SelectMany(segment => segment.Backends)
                .Select(backend => $"{backend.Address.HostPort}@{backend.ClusterId}").Order(StringComparer.Ordinal)))
            .Concat(maps.IPCache().Select(entry => $"{entry.Prefix} {entry.Identity} {entry.TunnelEndpoint}".TrimEnd()))
            .Append($"clusters up: {string.Join(' ', maps.ClustersUp())}"));
    }

    /// <summary>Waits until the agent has programmed all it knows. Calls <paramref name="meanwhile"/> all along.</summary>
    public Task<StatusResponse> SettledAsync(Predicate<StatusResponse> also, Action? meanwhile = null) => RunningAgent.Eventually(async () =>
    {
        meanwhile?.Invoke();
        try
        {
            return await Client.GetStatusAsync();
        }
        catch (AgentException)
        {
            return new StatusResponse();
        }
    }, status => status.Cilium?.State == StatusState.Ok && status.Mesh!.Tables!.All(table => table.Pending == 0) && also(status), TimeSpan.FromSeconds(120));

    public async ValueTask DisposeAsync()
    {
        await KillAsync(_agent);
        await KillAsync(_etcd);
        Client.Dispose();
        await TryAsync("umount", BpfRoot);
        await TryAsync("ip", "netns", "del", _name);
        RunningAgent.Remove(_directory);
    }

    private static async Task KillAsync(Process? process)
    {
        if (process is null or { HasExited: true })
            return;
        process.Kill();
        await process.WaitForExitAsync();
    }

    private Process Start(params string[] command) =>
        ChildThread.Start(Info("setpriv", ["--pdeathsig", "KILL", "nsenter", $"--net=/run/netns/{_name}", .. command], quiet: true));

    private Task<bool> TryInsideAsync(params string[] command) => TryAsync("nsenter", [$"--net=/run/netns/{_name}", .. command]);

    private static async Task RunAsync(string program, params string[] arguments)
    {
        if (!await TryAsync(program, arguments))
            throw new InvalidOperationException($"{program} {string.Join(' ', arguments)} failed");
    }

    private static async Task<bool> TryAsync(string program, params string[] arguments)
    {
        using var process = Process.Start(Info(program, arguments, quiet: true))!;
        _ = await process.StandardError.ReadToEndAsync();
        await process.WaitForExitAsync();
        return process.ExitCode == 0;
    }

    private static ProcessStartInfo Info(string program, IEnumerable<string> arguments, bool quiet)
    {
        var info = new ProcessStartInfo(program, arguments) { RedirectStandardError = quiet, RedirectStandardOutput = quiet };
        info.Environment["ETCDCTL_API"] = "3";
        return info;
    }
}
