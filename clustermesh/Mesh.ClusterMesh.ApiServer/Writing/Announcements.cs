using System.Threading.Channels;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Writing;

/// <summary>
/// What a cluster says of itself before and beside its data: cluster-config, which peers read first of all, the mark for consumers of
/// 1.14 to 1.16, and the heartbeat. The first two are kept like data: put right at once when somebody edits or deletes them. A heartbeat
/// that is lost, be it alone or with the whole etcd, is followed by the next one at once, whose time is that of its writing; and one follows
/// whatever withdraws a large part of a resource, as proof that its owner did it.
/// </summary>
internal sealed class Announcements : IAsyncDisposable
{
    private static readonly TimeSpan AgainAfter = TimeSpan.FromMilliseconds(100);

    private readonly IKVStore _store;
    private readonly LeasePool _leases;
    private readonly TimeSpan _interval;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly SyncStore _config;
    private readonly SyncStore _mark;
    private readonly CancellationTokenSource _stop = new();

    /// <summary>Reasons to beat before it is time.</summary>
    private readonly Channel<bool> _lost = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly Task _beating;
    private readonly Task _guarding;

    private Announcements(IKVStore store, LeasePool leases, ApiServerOptions options, TimeProvider time, Action<string> log)
    {
        _store = store;
        _leases = leases;
        _interval = options.HeartbeatInterval;
        _time = time;
        _log = log;
        // The prefix is the very key, and never marked as synced: other clusters' configs may lie beside it and are not ours to remove.
        var config = Keys.ClusterConfig(options.Self.Name);
        _config = SyncStore.Start(store, new SyncStoreOptions { Prefix = config, Leases = leases }, time);
        _config.Set(config, ConfigOf(options));
        _mark = SyncStore.Start(store, new SyncStoreOptions { Prefix = Keys.HasClusterConfig }, time);
        _mark.Set(Keys.HasClusterConfig, "true"u8.ToArray());
        _beating = Task.Run(BeatAsync);
        _guarding = Task.Run(GuardAsync);
    }

    /// <summary>Returns when peers can read the config: only then may data follow.</summary>
    public static async Task<Announcements> StartAsync(
        IKVStore store, LeasePool leases, ApiServerOptions options, TimeProvider time, Action<string> log, CancellationToken cancellation)
    {
        var announcements = new Announcements(store, leases, options, time, log);
        try
        {
            while (!await IsThereAsync(store, options, cancellation))
                await Task.Delay(TimeSpan.FromMilliseconds(20), time, cancellation);
            return announcements;
        }
        catch
        {
            await announcements.DisposeAsync();
            throw;
        }
    }

    /// <summary>Beats in a moment, whatever the interval: readers wait for a sign of life before they believe that so much was withdrawn.</summary>
    public void BeatSoon() => _lost.Writer.TryWrite(true);

    /// <summary>Stops writing; what is written stays.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _beating;
        await _guarding;
        await _config.DisposeAsync();
        await _mark.DisposeAsync();
        _stop.Dispose();
    }

    private static byte[] ConfigOf(ApiServerOptions options) => ClusterConfigCodec.Encode(ClusterConfig.SafeProfile(
        options.Self.Id, options.Self.Numbering.MaxConnectedClusters, options.ServiceExports));

    private static async Task<bool> IsThereAsync(IKVStore store, ApiServerOptions options, CancellationToken cancellation)
    {
        try
        {
            var present = await store.GetAsync(Keys.ClusterConfig(options.Self.Name), cancellation);
            return present is { } config && config.Value.Span.SequenceEqual(ConfigOf(options));
        }
        catch (KVStoreException)
        {
            // The SyncStore reports the same; we only wait.
            return false;
        }
    }

    private async Task BeatAsync()
    {
        KVLease? lease = null;
        var failing = false;
        while (!_stop.IsCancellationRequested)
        {
            var pause = _interval;
            try
            {
                lease ??= await _leases.AcquireAsync(_stop.Token);
                await _store.WriteAsync([new WriteOperation(Keys.Heartbeat, WireTime.Now(_time), lease)], _stop.Token);
                if (failing)
                    _log("heartbeat: written again");
                failing = false;
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (KVStoreException e)
            {
                if (!failing)
                    _log($"heartbeat: not written, peers reconnect after two minutes without: {e.Message}");
                failing = true;
                pause = TimeSpan.FromSeconds(1);
            }
            await WaitAsync(pause);
        }
    }

    private async Task WaitAsync(TimeSpan pause)
    {
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        var lost = _lost.Reader.ReadAsync(enough.Token).AsTask();
        await Task.WhenAny(Task.Delay(pause, _time, enough.Token), lost);
        await enough.CancelAsync();
        await ((Task)lost).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        // Whoever deletes it all the time does not make us write all the time.
        if (lost.IsCompletedSuccessfully)
            await Task.Delay(AgainAfter, _time, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>Notices that our heartbeat is gone.</summary>
    private async Task GuardAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                var there = false;
                await foreach (var batch in _store.ListWatchAsync(Keys.Heartbeat, _stop.Token))
                {
                    if (batch.Kind == WatchBatchKind.ListStart)
                        there = false;
                    else if (batch.Kind != WatchBatchKind.ListEnd && batch.Events.Any(item => item.Key == Keys.Heartbeat))
                        there = batch.Kind == WatchBatchKind.Put;
                    if (!there && batch.Kind is (WatchBatchKind.ListEnd or WatchBatchKind.Delete))
                        _lost.Writer.TryWrite(true);
                }
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (KVStoreException)
            {
                // The next beat fails for the same reason and says it.
                await Task.Delay(TimeSpan.FromSeconds(1), _time, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }
}
