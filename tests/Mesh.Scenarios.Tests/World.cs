using System.Diagnostics;
using System.Globalization;
using System.Text;
using Mesh.AgentApi;
using Mesh.Datapath;
using Mesh.KVStore;
using Mesh.TestKit;

namespace Mesh.Scenarios.Tests;

/// <summary>
/// What one scenario runs on: an etcd and an API server per cluster, and one agent. Everything is below one directory and in the
/// network namespace that tests/run.sh started this program in; disposing it leaves nothing.
/// </summary>
internal sealed class World : IAsyncDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-scenario-").FullName;
    private readonly Dictionary<string, Cluster> _clusters = [];
    private Process? _agent;
    private string[] _agentArguments = [];

    private sealed record Cluster(string Name, EtcdServer Etcd, EtcdKVStore Store, string Manifests, Process? ApiServer);

    public World()
    {
        RequireNamespaceOfOurOwn();
        Directory.CreateDirectory(BpfRoot);
        Directory.CreateDirectory(PeersDirectory);
        Programs.Run("mount", "-t", "bpf", "bpf", BpfRoot);
    }

    /// <summary>The agent makes devices and routes where it runs: never in the machine's own namespace.</summary>
    private static void RequireNamespaceOfOurOwn()
    {
        if (!File.ReadAllText("/proc/self/net/dev").Contains("underlay:", StringComparison.Ordinal))
            throw new InvalidOperationException("scenarios run in a network namespace of their own: use tests/run.sh Mesh.Scenarios.Tests");
    }

    private string BpfRoot => Path.Combine(_directory, "bpf");

    private string PeersDirectory => Path.Combine(_directory, "clustermesh");

    private string Socket => Path.Combine(_directory, "agent.sock");

    public async Task AddClusterAsync(string name, string id)
    {
        var etcd = await EtcdServer.StartAsync();
        var manifests = Directory.CreateDirectory(Path.Combine(_directory, name, "manifests")).FullName;
        var apiServer = Programs.Start("clustermesh-apiserver", Path.Combine(_directory, $"{name}.log"), "clustermesh",
            "--cluster-name", name, "--cluster-id", id, "--source", $"manifests:{manifests}",
            "--kvstore-opt", $"etcd.address={etcd.Endpoint}", "--health-port", EtcdServer.FreePort().ToString(CultureInfo.InvariantCulture));
        _clusters.Add(name, new Cluster(name, etcd, etcd.NewStore(), manifests, apiServer));
    }

    /// <summary>A cluster of somebody else's make: an etcd that only `put` writes to.</summary>
    public async Task AddForeignAsync(string name)
    {
        var etcd = await EtcdServer.StartAsync();
        _clusters.Add(name, new Cluster(name, etcd, etcd.NewStore(), "", null));
    }

    public void Apply(string cluster, string file, string text)
    {
        // By rename, as a careful editor does: the reflector never sees half a file.
        var whole = Path.Combine(_directory, "next.tmp");
        File.WriteAllText(whole, text);
        File.Move(whole, Path.Combine(_clusters[cluster].Manifests, file), overwrite: true);
    }

    public void Withdraw(string cluster, string file) => File.Delete(Path.Combine(_clusters[cluster].Manifests, file));

    public Task PutAsync(string cluster, string key, string text, CancellationToken cancellation) =>
        _clusters[cluster].Store.WriteAsync([new WriteOperation(key, Encoding.UTF8.GetBytes(text))], cancellation);

    public Task RemoveAsync(string cluster, string key, CancellationToken cancellation) =>
        _clusters[cluster].Store.WriteAsync([new WriteOperation(key, null)], cancellation);

    public void AddAgent(string cluster, string node, string id)
    {
        _agentArguments =
        [
            "--cluster-name", cluster, "--cluster-id", id, "--node-name", node, "--source", $"manifests:{_clusters[cluster].Manifests}",
            "--clustermesh-config", PeersDirectory, "--bpf-root", BpfRoot, "--socket-path", Socket,
            "--state-dir", Directory.CreateDirectory(Path.Combine(_directory, "state")).FullName,
        ];
        StartAgent();
    }

    public void StartAgent() => _agent = Programs.Start("mesh-agent", Path.Combine(_directory, "agent.log"), _agentArguments);

    public async Task KillAgentAsync()
    {
        await Programs.KillAsync(_agent!);
        _agent = null;
    }

    public Task KillEtcdAsync(string cluster) => _clusters[cluster].Etcd.KillAsync();

    public Task StartEtcdAsync(string cluster) => _clusters[cluster].Etcd.RestartAsync();

    public void Connect(string peer) => File.WriteAllText(Path.Combine(PeersDirectory, peer), $"endpoints:\n- {_clusters[peer].Etcd.Endpoint}\n");

    /// <summary>What is believed of a peer; before <see cref="Connect"/>, or while it is connected.</summary>
    public void Pin(string peer, string text)
    {
        var whole = Path.Combine(_directory, "imports.tmp");
        File.WriteAllText(whole, text);
        File.Move(whole, Path.Combine(PeersDirectory, $"{peer}.imports.json"), overwrite: true);
    }

    public void Disconnect(string peer) => File.Delete(Path.Combine(PeersDirectory, peer));

    /// <summary>"key value" lines; times, which nobody can foretell, as TIME.</summary>
    public async Task<string> EtcdAsync(string cluster, CancellationToken cancellation)
    {
        var (items, _) = await _clusters[cluster].Store.ListAsync("cilium/", cancellation);
        return Lines(items.Select(item =>
        {
            var value = Encoding.UTF8.GetString(item.Value.Span);
            return $"{item.Key} {(item.Key.StartsWith("cilium/synced/", StringComparison.Ordinal) || item.Key == "cilium/.heartbeat" ? "TIME" : value)}";
        }));
    }

    /// <summary>"VIP:PORT/PROTOCOL NAMESPACE/NAME → BACKENDS", preferred backends marked with a star.</summary>
    public async Task<string> FrontendsAsync(CancellationToken cancellation)
    {
        using var client = new AgentClient(Socket);
        return Lines((await client.GetServicesAsync(cancellation)).Select(service =>
        {
            var spec = service.Status!.Realized!;
            var backends = (spec.BackendAddresses ?? []).Select(backend => $"{Host(backend.Ip, backend.Port)}{(backend.Preferred ? "*" : "")}");
            return $"{Host(spec.FrontendAddress.Ip, spec.FrontendAddress.Port)}/{spec.FrontendAddress.Protocol} {spec.Flags!.Namespace}/{spec.Flags.Name} → "
                + string.Join(' ', backends.Order(StringComparer.Ordinal));
        }));
    }

    /// <summary>"VIP:PORT/PROTOCOL tier T cluster C: BACKENDS" per segment; "… nobody" for a service without backends.</summary>
    public string LoadBalancing()
    {
        using var maps = PinnedMaps.Open(BpfRoot);
        return Lines(maps.Frontends().SelectMany(frontend => frontend.Segments.Count == 0
            ? [$"{frontend.Address} nobody"]
            : frontend.Segments.Select(segment =>
                $"{frontend.Address} tier {segment.Tier} cluster {segment.ClusterId}{(segment.ClusterUp ? "" : " (down)")}: "
                + string.Join(' ', segment.Backends.Select(backend => backend.Address.HostPort).Order(StringComparer.Ordinal)))));
    }

    /// <summary>"PREFIX identity I via TUNNEL", without " via …" where no tunnel is needed.</summary>
    public string IPCache()
    {
        using var maps = PinnedMaps.Open(BpfRoot);
        return Lines(maps.IPCache().Select(entry => $"{entry.Prefix} identity {entry.Identity}{(entry.TunnelEndpoint is { } via ? $" via {via}" : "")}"));
    }

    /// <summary>"PEER REASON KEY" per refused record that still stands in its peer's etcd.</summary>
    public async Task<string> QuarantineAsync(CancellationToken cancellation)
    {
        using var client = new AgentClient(Socket);
        return Lines((await client.GetQuarantineAsync(cancellation))
            .SelectMany(peer => (peer.Records ?? []).Select(record => $"{peer.Name} {record.Reason} {record.Key}")));
    }

    public async Task<string> PeerAsync(string name, CancellationToken cancellation)
    {
        using var client = new AgentClient(Socket);
        var bytes = await client.GetBytesAsync("/v1/healthz", cancellation);
        var status = await client.GetStatusAsync(cancellation);
        var peer = status.ClusterMesh?.Clusters?.FirstOrDefault(cluster => cluster.Name == name);
        return peer is null ? "absent" : $"{(peer.Ready ? "ready" : "not-ready")} {peer.Status} {Encoding.UTF8.GetString(bytes)}";
    }

    /// <summary>The tails of all logs, for the message of a failed scenario.</summary>
    public string Logs() => string.Join('\n', Directory.EnumerateFiles(_directory, "*.log")
        .SelectMany(file => File.ReadLines(file).TakeLast(25).Prepend($"--- {Path.GetFileName(file)}")));

    public async ValueTask DisposeAsync()
    {
        if (_agent is not null)
            await KillAgentAsync();
        foreach (var cluster in _clusters.Values)
        {
            if (cluster.ApiServer is not null)
                await Programs.KillAsync(cluster.ApiServer);
            await cluster.Store.DisposeAsync();
            await cluster.Etcd.DisposeAsync();
        }
        Programs.Run("umount", BpfRoot);
        Directory.Delete(_directory, recursive: true);
        foreach (var device in (string[])["mesh_vxlan", "mesh_host"])
            if (Directory.Exists($"/proc/sys/net/ipv4/conf/{device}"))
                Programs.Run("ip", "link", "del", device);
    }

    private static string Host(string ip, ushort port) => ip.Contains(':') ? $"[{ip}]:{port}" : $"{ip}:{port}";

    private static string Lines(IEnumerable<string> lines) => string.Join('\n', lines.Order(StringComparer.Ordinal));
}
