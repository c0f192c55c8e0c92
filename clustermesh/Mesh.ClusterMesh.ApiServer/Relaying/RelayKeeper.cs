using Mesh.AgentApi;
using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Relay;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Relaying;

/// <summary>A relay with its cache and its page, from start to stop. Whoever opens a door on <see cref="Cache"/> closes it before
/// this is disposed of.</summary>
internal sealed class RelayKeeper : IAsyncDisposable
{
    private readonly CancellationTokenSource _stop = new();
    private readonly ClusterRelay _relay;
    private readonly TimeProvider _time;
    private readonly long _born;
    private TimeSpan? _bootstrap;
    private IAsyncDisposable? _page;

    private RelayKeeper(RelaySettings settings, MirrorView cache, TimeProvider time, Action<string> log)
    {
        Cache = cache;
        _time = time;
        _born = time.GetTimestamp();
        _relay = new ClusterRelay(settings.Options, new ConfigDirectory(settings.PeerDirectory, settings.ClusterName, time),
            peer => new EtcdKVStore(EtcdConfigFile.Parse(peer.Text), time), cache, time, Random.Shared, log);
    }

    /// <summary>What the relay writes and a door serves.</summary>
    public MirrorView Cache { get; }

    /// <summary>Ends when disposed of; earlier only by a defect, which it then carries.</summary>
    public Task Completion { get; private set; } = Task.CompletedTask;

    /// <summary>How long it took until all that could be reached was mirrored; null before.</summary>
    public TimeSpan? Bootstrap => _bootstrap ??= _relay.IsReady ? _time.GetElapsedTime(_born) : null;

    public IReadOnlyList<RelayedClusterStatus> Statuses => _relay.Statuses;

    /// <summary>What an operator should know, one line each.</summary>
    public IEnumerable<string> Problems
    {
        get
        {
            if (_relay.Problem is { } problem)
                yield return $"relay: {problem}";
            foreach (var status in _relay.Statuses)
            {
                if (!status.Ready)
                    yield return $"relay: {status.Name}: {status.Status}";
                foreach (var broken in RelayBody.Problems(status))
                    yield return $"relay: {status.Name}: {broken}";
                if (status.LastRefusal is { } refusal)
                    yield return $"relay: {status.Name}: {status.Refused} records refused, last {refusal}";
            }
        }
    }

    /// <exception cref="IOException">The state directory or the API's address cannot be used; the message names it.</exception>
    public static async Task<RelayKeeper> StartAsync(RelaySettings settings, TimeProvider time, Action<string> log, CancellationToken cancellation)
    {
        if (settings.StateDir is { } directory)
            Directory.CreateDirectory(directory);
        var cache = MirrorView.Open(new MirrorOptions { StateDir = settings.StateDir }, time, log);
        var keeper = new RelayKeeper(settings, cache, time, log);
        keeper.Completion = keeper._relay.RunAsync(keeper._stop.Token);
        try
        {
            keeper._page = settings.Api is null ? null : await keeper.ServeAsync(settings.Api, cancellation);
            return keeper;
        }
        catch
        {
            await keeper.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_page is not null)
            await _page.DisposeAsync();
        await _stop.CancelAsync();
        await Completion.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Cache.DisposeAsync();
        _stop.Dispose();
    }

    private async Task<IAsyncDisposable> ServeAsync(ApiAddress address, CancellationToken cancellation)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.Services.AddRoutingCore();
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            address.ListenOn(kestrel);
        });
        var page = builder.Build();
        page.MapGet("/v1/cluster", async context =>
        {
            context.Response.ContentType = "application/json";
            IReadOnlyList<RemoteCluster> clusters = [.. Statuses.Select(RelayBody.Of)];
            await System.Text.Json.JsonSerializer.SerializeAsync(
                context.Response.Body, clusters, AgentApiJson.Wire.IReadOnlyListRemoteCluster, context.RequestAborted);
        });
        try
        {
            await page.StartAsync(cancellation);
        }
        catch (IOException e)
        {
            await page.DisposeAsync();
            throw new IOException($"{address.Text} (the relay's API): {e.Message}", e);
        }
        return page;
    }
}
