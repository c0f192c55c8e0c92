using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Writing;

/// <summary>
/// What a cluster says of itself before and beside its data: cluster-config, which peers read first of all, the mark for consumers of
/// 1.14 to 1.16, and the heartbeat. The first two are kept like data: put right at once when somebody edits or deletes them.
/// </summary>
internal sealed class Announcements : IAsyncDisposable
{
    private readonly IKVStore _store;
    private readonly LeasePool _leases;
    private readonly TimeSpan _interval;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly SyncStore _config;
    private readonly SyncStore _mark;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _beating;

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
        _config.Set(config, ConfigOf(options.Self));
        _mark = SyncStore.Start(store, new SyncStoreOptions { Prefix = Keys.HasClusterConfig }, time);
        _mark.Set(Keys.HasClusterConfig, "true"u8.ToArray());
        _beating = Task.Run(BeatAsync);
    }

    /// <summary>Returns when peers can read the config: only then may data follow.</summary>
    public static async Task<Announcements> StartAsync(
        IKVStore store, LeasePool leases, ApiServerOptions options, TimeProvider time, Action<string> log, CancellationToken cancellation)
    {
        var announcements = new Announcements(store, leases, options, time, log);
        try
        {
            while (!await IsThereAsync(store, options.Self, cancellation))
                await Task.Delay(TimeSpan.FromMilliseconds(20), time, cancellation);
            return announcements;
        }
        catch
        {
            await announcements.DisposeAsync();
            throw;
        }
    }

    /// <summary>Stops writing; what is written stays.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _beating;
        await _config.DisposeAsync();
        await _mark.DisposeAsync();
        _stop.Dispose();
    }

    private static byte[] ConfigOf(ClusterSelf self) =>
        ClusterConfigCodec.Encode(ClusterConfig.SafeProfile(self.Id, self.Numbering.MaxConnectedClusters));

    private static async Task<bool> IsThereAsync(IKVStore store, ClusterSelf self, CancellationToken cancellation)
    {
        try
        {
            var present = await store.GetAsync(Keys.ClusterConfig(self.Name), cancellation);
            return present is { } config && config.Value.Span.SequenceEqual(ConfigOf(self));
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
            await Task.Delay(pause, _time, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }
}
