using Mesh.Agent.Api;
using Mesh.AgentApi;
using Mesh.ClusterMesh.Config;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Restored;
using Mesh.Kubernetes;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.Agent.Tests;

/// <summary>
/// The agent of osaka-1 in cluster osaka/2 without its kernel: real manifests, a real configuration directory, its API on a real unix
/// socket, and one peer, tokyo, whose store is in memory. The network interfaces are those in <see cref="Interfaces"/>.
/// </summary>
internal sealed class RunningAgent : IAsyncDisposable
{
    private readonly string _directory;
    private readonly CancellationTokenSource _stop = new();
    private readonly ManifestDirectory _objects;
    private readonly AgentApiServer _api;
    private readonly Task[] _running;

    private RunningAgent(string directory, ManifestDirectory objects, NodeAgent agent, AgentApiServer api)
    {
        _directory = directory;
        _objects = objects;
        _api = api;
        Agent = agent;
        Client = new AgentClient(SocketPath, "osaka/osaka-1", TimeSpan.FromSeconds(10));
        _running = [agent.Local.RunAsync(_stop.Token), agent.RunPeersAsync(_stop.Token)];
    }

    public static Dictionary<string, int> Interfaces { get; } = new() { ["lxc1"] = 11, ["lxc2"] = 12, ["lxc3"] = 13 };

    public NodeAgent Agent { get; }

    public AgentClient Client { get; }

    public string SocketPath => Path.Combine(_directory, "agent.sock");

    /// <param name="directory">That of an agent before, to restart it; it is removed by <see cref="Remove"/>.</param>
    public static async Task<RunningAgent> StartAsync(string directory, string manifests = "", IKVStore? tokyo = null, Func<string, int>? interfaces = null,
        Func<PeerConfig, IKVStore>? open = null)
    {
        foreach (var folder in new[] { "manifests", "peers", "state" })
            Directory.CreateDirectory(Path.Combine(directory, folder));
        await File.WriteAllTextAsync(Path.Combine(directory, "manifests", "all.yaml"), manifests);
        if (tokyo is not null)
            await File.WriteAllTextAsync(Path.Combine(directory, "peers", "tokyo"), "endpoints:\n- http://127.0.0.1:1\n");
        var options = new AgentOptions
        {
            Cluster = new ClusterIdentity("osaka", 2),
            Numbering = IdentityNumbering.Max255,
            NodeName = "osaka-1",
            Source = SourceAddress.OfManifests(Path.Combine(directory, "manifests")),
            ClusterMeshConfig = Path.Combine(directory, "peers"),
            BpfRoot = Path.Combine(directory, "bpf"),
            SocketPath = Path.Combine(directory, "agent.sock"),
            StateDirectory = Path.Combine(directory, "state"),
        };
        var objects = new ManifestDirectory(options.Source.Manifests!);
        var agent = new NodeAgent(options, objects, RestoredState.Empty, open ?? (_ => tokyo!),
            interfaces ?? (name => Interfaces.GetValueOrDefault(name)), TimeProvider.System, _ => { });
        var running = new RunningAgent(directory, objects, agent, await AgentApiServer.StartAsync(agent.View));
        await agent.Local.Synced.WaitAsync(TimeSpan.FromSeconds(20));
        agent.View.Endpoints.Restore();
        return running;
    }

    public static string NewDirectory() => Directory.CreateTempSubdirectory("mesh-agent-").FullName;

    /// <summary>Asks until the answer is as wanted; fails with the last answer, or what is shown, after ten seconds or as long as is said.</summary>
    public static async Task<T> Eventually<T>(Func<Task<T>> ask, Func<T, bool> wanted, Func<string>? shown = null, TimeSpan? patience = null)
    {
        using var deadline = new CancellationTokenSource(patience ?? TimeSpan.FromSeconds(10));
        using var look = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (true)
        {
            var answer = await ask();
            if (wanted(answer))
                return answer;
            if (deadline.IsCancellationRequested)
                throw new TimeoutException(shown?.Invoke() ?? $"still {answer}");
            await look.WaitForNextTickAsync(CancellationToken.None);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        foreach (var task in _running)
            try
            {
                await task;
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                // The way to stop.
            }
        Client.Dispose();
        await _api.DisposeAsync();
        await _objects.DisposeAsync();
        _stop.Dispose();
    }

    public static void Remove(string directory) => Directory.Delete(directory, recursive: true);
}
