using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Writing;

/// <summary>
/// All that writes, for as long as this replica is the one that does: cluster-config and heartbeat, then a SyncStore per resource.
/// Config first, then data, then canaries: a peer that reads at any moment finds what it needs to judge the rest. Ending it leaves
/// every key: the leases keep them until we, or the next writer, take them over.
/// </summary>
internal sealed class Term : IAsyncDisposable
{
    /// <summary>A heartbeat follows when a part of a resource as large as one of so many was withdrawn.</summary>
    private const int BeatsPerWhole = 4;

    /// <summary>What goes with no longer pauses than this is one step: readers count what was withdrawn within ten seconds.</summary>
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(15);

    private readonly LeasePool _leases;
    private readonly Announcements _announcements;
    private readonly Dictionary<RemoteResource, SyncStore> _stores;

    private Term(LeasePool leases, Announcements announcements, Dictionary<RemoteResource, SyncStore> stores) =>
        (_leases, _announcements, _stores) = (leases, announcements, stores);

    public IReadOnlyDictionary<RemoteResource, SyncStoreStatus> Status => _stores.ToDictionary(pair => pair.Key, pair => pair.Value.Status);

    /// <summary>Returns when peers can read the config and the stores have begun; nothing is in them yet.</summary>
    public static async Task<Term> BeginAsync(
        IKVStore store, ApiServerOptions options, IEnumerable<RemoteResource> resources, TimeProvider time, Action<string> log,
        CancellationToken cancellation)
    {
        var leases = new LeasePool(store, options.LeaseTtl);
        try
        {
            var announcements = await Announcements.StartAsync(store, leases, options, time, log, cancellation);
            return new Term(leases, announcements, resources.ToDictionary(resource => resource,
                resource => SyncStore.Start(store, OptionsFor(options.Self.Name, resource, leases, announcements, time), time)));
        }
        catch
        {
            await leases.DisposeAsync();
            throw;
        }
    }

    /// <param name="changes">Key → value; null is a deletion.</param>
    /// <param name="complete">All that is wanted has been told.</param>
    public void Hand(RemoteResource resource, IEnumerable<KeyValuePair<string, byte[]?>> changes, bool complete)
    {
        var store = _stores[resource];
        foreach (var (key, value) in changes)
        {
            if (value is null)
                store.Remove(key);
            else
                store.Set(key, value);
        }
        if (complete)
            store.MarkSynced();
    }

    public Task WaitForSyncedAsync(CancellationToken cancellation) =>
        Task.WhenAll(_stores.Values.Select(store => store.WaitForSyncedAsync(cancellation)));

    public async ValueTask DisposeAsync()
    {
        foreach (var store in _stores.Values)
            await store.DisposeAsync();
        await _announcements.DisposeAsync();
        await _leases.DisposeAsync();
    }

    private static SyncStoreOptions OptionsFor(
        string cluster, RemoteResource resource, LeasePool leases, Announcements announcements, TimeProvider time)
    {
        var gate = new Lock();
        var (withdrawn, last) = (0L, time.GetTimestamp());
        return new SyncStoreOptions
        {
            Prefix = Layout.State(cluster).Prefix(resource),
            CanaryKey = Keys.Canary(cluster, resource),
            Leases = leases,
            Withdrew = (deleted, left) =>
            {
                lock (gate)
                {
                    var now = time.GetTimestamp();
                    withdrawn = (time.GetElapsedTime(last, now) > LongestPause ? 0 : withdrawn) + deleted;
                    last = now;
                    // Before a reader can have lost half of it, and then behind everything that goes: a reader that holds it waits for that.
                    // Of services it is the backends that count, and one key may have most of them.
                    if (withdrawn * BeatsPerWhole < left && resource != RemoteResource.Services)
                        return;
                }
                announcements.BeatSoon();
            },
        };
    }
}
