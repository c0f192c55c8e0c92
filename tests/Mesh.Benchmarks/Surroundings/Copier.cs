using System.Diagnostics;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// The middle of a chain of two etcds, as meshes before ours have it: follows one cluster in its own etcd and writes what it sees, under
/// the keys of a cache, into a second etcd, each batch of events as one transaction as soon as it has come. This program started as
/// `copier`, on the same client library as everything else here; it has no rate limit, which others have.
/// </summary>
internal sealed class Copier : IAsyncDisposable
{
    private const string Mode = "copier";
    private readonly Process _process;

    private Copier(Process process) => _process = process;

    public TimeSpan Cpu => ProcessFacts.Cpu(_process.Id);

    public static bool IsMeant(string[] arguments) => arguments is [Mode, ..];

    /// <param name="directory">For its files.</param>
    public static Copier Start(string directory, string cluster, EtcdOptions source, EtcdOptions target)
    {
        var (from, to) = (Path.Combine(directory, "source.yaml"), Path.Combine(directory, "target.yaml"));
        File.WriteAllText(from, ClientFile.Of(source));
        File.WriteAllText(to, ClientFile.Of(target));
        return new Copier(Command.StartSelf(Path.Combine(directory, "copier.log"), Mode, from, to, cluster));
    }

    /// <summary>What this program does as a copier. Ends by a signal.</summary>
    public static async Task<int> RunAsync(string[] arguments)
    {
        await using var source = new EtcdKVStore(EtcdConfigFile.Parse(await File.ReadAllTextAsync(arguments[1])));
        await using var target = new EtcdKVStore(EtcdConfigFile.Parse(await File.ReadAllTextAsync(arguments[2])));
        var cluster = arguments[3];
        var config = await source.GetAsync(Keys.ClusterConfig(cluster), CancellationToken.None);
        if (config is not { } present || !ClusterConfigCodec.TryDecode(present.Value.Span, out var read, out _))
            throw new InvalidOperationException($"{cluster} has no cluster-config");
        read = read with { Capabilities = read.Capabilities! with { Cached = true } };
        await target.WriteAsync([.. MockCluster.Heartbeat(), new(Keys.ClusterConfig(cluster), ClusterConfigCodec.Encode(read))], CancellationToken.None);
        await await Task.WhenAny(RemoteResources.OfEveryCluster.Select(resource => CopyAsync(source, target, cluster, resource)));
        return 0;
    }

    public async ValueTask DisposeAsync() => await Command.StopAsync(_process);

    private static async Task CopyAsync(EtcdKVStore source, EtcdKVStore target, string cluster, RemoteResource resource)
    {
        var (from, to) = (Layout.State(cluster), Layout.Cache(cluster));
        await foreach (var batch in source.ListWatchAsync(from.Prefix(resource), CancellationToken.None))
        {
            if (batch.Kind == WatchBatchKind.ListEnd)
                await target.WriteAsync([new(to.Canary(resource), WireTime.Now(TimeProvider.System))], CancellationToken.None);
            else if (batch.Events.Count > 0)
                await target.WriteAsync([.. batch.Events.Select(item => new WriteOperation(from.Rewrite(item.Key, to)!,
                    batch.Kind == WatchBatchKind.Put ? item.Value : null))], CancellationToken.None);
        }
    }
}
