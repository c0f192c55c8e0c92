using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>Exports, a resource that only some read and only some publish.</summary>
public sealed class ExportReadingTests : RemoteClusterStory
{
    private static readonly RemoteClusterOptions Wanting = Following.Options with
    {
        Resources = [RemoteResource.Nodes, RemoteResource.Services, RemoteResource.ServiceExports],
    };

    private static readonly ClusterConfig Knowing = ClusterConfig.SafeProfile(7, 255, serviceExports: true);

    [Fact]
    public async Task Exports_are_read_by_who_asks_once_their_canary_is_there()
    {
        await _falcon.EverythingAsync();
        await _falcon.ConfigAsync(Knowing);
        await _falcon.ExportAsync("cart");
        await using (Follow())
        {
            await _sink.UntilReadyAsync("falcon");
            Assert.Empty(_sink.Read(sink => sink.Exports));
        }
        await using var following = Follow(options: Wanting);
        await _sink.UntilAsync(sink => sink.Statuses["falcon"] is { ServicesSynced: true, ServiceExportsSynced: false }, "all but the exports");
        Assert.Equal((false, "waiting for the complete list of service-exports"), (following.Cluster.Status.Ready, following.Cluster.Status.Health!.Cause));
        await _falcon.CanaryAsync(RemoteResource.ServiceExports);
        await _sink.UntilReadyAsync("falcon");
        Assert.Equal(1, following.Cluster.Status.ServiceExports);
        Assert.Single(_sink.Read(sink => sink.Exports));

        await _falcon.PutAsync(Keys.ServiceExport("falcon", new ServiceName("shop", "bad")), "{}"u8.ToArray());
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Quarantined == 1, "the bad one is set aside");
        await _falcon.DeleteAsync(Keys.ServiceExport("falcon", new ServiceName("shop", "cart")));
        await _sink.UntilAsync(sink => sink.Exports.Count == 0, "its end");
    }

    [Fact]
    public async Task A_peer_without_the_feature_is_ready_without_them_and_one_that_gives_it_up_has_none()
    {
        await _falcon.EverythingAsync();
        await _falcon.ConfigAsync(Knowing);
        await _falcon.ExportAsync("cart");
        await _falcon.CanaryAsync(RemoteResource.ServiceExports);
        await using var following = Follow(options: Wanting);
        await _sink.UntilReadyAsync("falcon");
        Assert.Single(_sink.Read(sink => sink.Exports));
        // Its keys may stand until their lease ends: they are not its word any more.
        await _falcon.ConfigAsync();
        await _sink.UntilAsync(sink => sink.Exports.Count == 0, "nothing is exported");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"] is { Ready: true, ServiceExportsSynced: null, ServiceExports: 0 }, "ready again");
        await _falcon.ConfigAsync(Knowing);
        await _sink.UntilAsync(sink => sink.Exports.Count == 1, "it is back");
    }

    [Fact]
    public async Task Exports_that_vanish_all_at_once_with_the_canary_are_held()
    {
        await _falcon.EverythingAsync();
        await _falcon.ConfigAsync(Knowing);
        foreach (var name in new[] { "a", "b", "c" })
            await _falcon.ExportAsync(name);
        await _falcon.CanaryAsync(RemoteResource.ServiceExports);
        await using var following = Follow(options: Wanting);
        await _sink.UntilReadyAsync("falcon");
        await _falcon.DeleteAsync(Keys.Canary("falcon", RemoteResource.ServiceExports));
        foreach (var name in new[] { "a", "b", "c" })
            await _falcon.DeleteAsync(Keys.ServiceExport("falcon", new ServiceName("shop", name)));
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].Held == 3, "all are held");
        Assert.Equal(3, _sink.Read(sink => sink.Exports.Count));
        await _falcon.ExportAsync("b");
        await _falcon.CanaryAsync(RemoteResource.ServiceExports);
        await _falcon.HeartbeatAsync();
        await _sink.UntilAsync(sink => sink.Exports.Count == 1, "what its owner wrote anew is left");
    }
}
