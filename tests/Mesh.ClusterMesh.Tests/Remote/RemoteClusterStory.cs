using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>A cluster falcon in a store in memory, and followers of it.</summary>
public abstract class RemoteClusterStory : IAsyncDisposable
{
    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private protected readonly InMemoryKVStore _store = new();
    private protected readonly RecordingSink _sink = new();
    private protected readonly ClusterIdReservations _reservations = new();
    private protected readonly Producer _falcon;

    protected RemoteClusterStory() => _falcon = new Producer(_store, "falcon", 7);

    public ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        return _store.DisposeAsync();
    }

    private protected Following Follow(
        string cluster = "falcon", IKVStore? store = null, RemoteClusterOptions? options = null, TimeProvider? time = null) =>
        new(cluster, () => new Borrowed(store ?? _store), _sink, _reservations, options, time);

    private protected async Task<Following> FollowReadyAsync()
    {
        await _falcon.EverythingAsync();
        var following = Follow();
        await _sink.UntilReadyAsync("falcon");
        return following;
    }
}
