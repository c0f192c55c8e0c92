using Mesh.ClusterMesh.Remote;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.Restored;
using Mesh.ControlPlane.Sources;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>An agent comes back and finds a kernel full of entries: nothing goes before its source has spoken.</summary>
public class RestartTests
{
    private const string Before = "10.96.0.10:80/TCP default/rebel-base:http => 10.1.0.11:8080@1 10.1.0.12:8080@1 10.2.0.5:8080@2";

    private static readonly L3n4Addr Frontend = new(IpAddr.Parse("10.96.0.10"), 80, L4Protocol.TCP);

    private static RestoredState Kernel => new()
    {
        Backends =
        [
            new RestoredBackend(Frontend, new L3n4Addr(IpAddr.Parse("10.1.0.11"), 8080, L4Protocol.TCP), 1, BackendState.Active),
            new RestoredBackend(Frontend, new L3n4Addr(IpAddr.Parse("10.1.0.12"), 8080, L4Protocol.TCP), 1, BackendState.Active),
            new RestoredBackend(Frontend, new L3n4Addr(IpAddr.Parse("10.2.0.99"), 8080, L4Protocol.TCP), 2, BackendState.Active),
        ],
        Addresses =
        [
            new RestoredAddress(IpPrefix.Parse("10.1.0.11"), 65537, IpAddr.Parse("192.0.2.11"), 1),
            new RestoredAddress(IpPrefix.Parse("10.1.0.0/24"), 2, IpAddr.Parse("192.0.2.11"), 1),
            new RestoredAddress(IpPrefix.Parse("10.2.0.99"), 131073, IpAddr.Parse("172.30.0.22"), 2),
        ],
    };

    private static World Restarted(params string[] peers)
    {
        var world = new World(Kernel);
        world.Apply(Given.Service("rebel-base", "10.96.0.10"), Given.Slice("rebel-base", "a", "http:8080/TCP", "10.2.0.5"));
        world.Remote.PeersListed(peers);
        return world;
    }

    /// <summary>Verdicts ask for labels, and the kernel keeps none.</summary>
    [Fact]
    public void Identities_of_another_cluster_stand_in_until_it_has_been_heard()
    {
        var world = new World();
        world.Identities.Restore([Row(65537, "tokyo"), Row(65538, "tokyo"), Row(196609, "kyoto")]);
        Assert.Equal("65537 65538 196609", Known());

        // Nobody of that name is configured any more.
        world.Remote.PeersListed(["tokyo"]);
        Assert.Equal("65537 65538", Known());
        world.Identities.ApplyRemote("tokyo", [new(65537, "k8s:app=web;"), new(65540, "k8s:app=new;")]);
        Assert.Equal("65537 65538 65540", Known());
        world.Identities.Heard("tokyo");
        Assert.Equal("65537 65540", Known());

        string Known() => string.Join(' ', world.State.Identities.Snapshot().Select(pair => pair.Key).Order());

        static RemoteClusters.IdentityRow Row(uint id, string cluster) => new(id, new EquatableArray<string>(["k8s:app=web"]), cluster);
    }

    /// <summary>A slice that cannot be read is no service without backends: the kernel keeps its services until it can.</summary>
    [Fact]
    public async Task Services_wait_for_a_slice_that_cannot_be_read_and_the_rest_goes_on()
    {
        var world = new World();
        using var stop = new CancellationTokenSource();
        var running = world.Local.RunAsync(stop.Token);
        world.Source.Say(Given.Service("rebel-base", "10.96.0.10"));
        world.Source.SaySynced(ObjectKind.EndpointSlice);
        await world.Local.Synced;
        Assert.Equal("", world.Frontends);
        Assert.Contains(LocalSource.Name, world.State.Frontends.PendingInitializers);
        Assert.DoesNotContain(LocalSource.Name, world.State.Nodes.PendingInitializers);

        world.Source.Say(Given.Slice("rebel-base", "a", "http:8080/TCP", "10.2.0.5"));
        world.Source.SaySynced();
        while (world.State.Frontends.PendingInitializers.Contains(LocalSource.Name) && !running.IsCompleted)
            await Task.Yield();
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.2.0.5:8080@2", world.Frontends);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
    }

    [Fact]
    public void A_peer_out_of_reach_at_start_keeps_its_backends_and_addresses()
    {
        var world = Restarted("tokyo");
        world.Learn("tokyo", 0);
        Assert.Equal(Before, world.Frontends);
        Assert.Equal("10.1.0.0/24 2 via 192.0.2.11 (Restored)\n10.1.0.11/32 65537 via 192.0.2.11 (Restored)", world.Addresses);
        Assert.Equal([1u], world.Remote.Unconfirmed);
    }

    [Fact]
    public void A_peer_that_answers_without_a_backend_loses_that_backend_once_it_has_said_everything()
    {
        var world = Restarted("tokyo");
        world.Learn("tokyo", 1);
        Assert.Equal(Before, world.Frontends);

        world.Hear("tokyo", 1, Given.Record("tokyo", 1, "rebel-base", "10.1.0.12 http:8080/TCP"));
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.1.0.12:8080@1 10.2.0.5:8080@2", world.Frontends);

        world.HearSynced("tokyo", 1, RemoteResource.Services, RemoteResource.IpEntries);
        Assert.Contains("10.1.0.11/32", world.Addresses);
        world.HearSynced("tokyo", 1, RemoteResource.Nodes);
        Assert.Equal("", world.Addresses);
        Assert.Empty(world.Remote.Unconfirmed);
    }

    [Fact]
    public void A_peer_that_no_longer_offers_the_service_loses_all_of_it_at_synced()
    {
        var world = Restarted("tokyo");
        world.Learn("tokyo", 1);
        world.HearSynced("tokyo", 1, RemoteResource.Services);
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.2.0.5:8080@2", world.Frontends);
    }

    [Fact]
    public void A_peer_removed_while_the_agent_was_away_goes_as_soon_as_the_peers_are_known()
    {
        var world = Restarted();
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.2.0.5:8080@2", world.Frontends);
        Assert.Equal("", world.Addresses);
    }

    [Fact]
    public void While_any_peer_has_not_told_its_ID_an_unknown_cluster_stays()
    {
        var world = Restarted("kyoto", "tokyo");
        world.Learn("kyoto", 3);
        world.HearSynced("kyoto", 3, RemoteResource.Services, RemoteResource.Nodes, RemoteResource.IpEntries);
        Assert.Equal(Before, world.Frontends);

        world.Remote.Drain("tokyo", 0);
        Assert.Equal("10.96.0.10:80/TCP default/rebel-base:http => 10.2.0.5:8080@2", world.Frontends);
    }

    [Fact]
    public void Before_the_peers_are_known_nothing_goes()
    {
        var world = new World(Kernel);
        world.Apply(Given.Service("rebel-base", "10.96.0.10"), Given.Slice("rebel-base", "a", "http:8080/TCP", "10.2.0.5"));
        Assert.Equal(Before, world.Frontends);
    }

    [Fact]
    public void What_a_peer_says_of_an_address_replaces_what_was_left_of_it()
    {
        var world = Restarted("tokyo");
        world.HearAddress("tokyo", 1, "10.1.0.11", Given.Address("10.1.0.11", 65538, "192.0.2.12", "rebel-base-1"));
        Assert.Contains("10.1.0.11/32 65538 via 192.0.2.12 default/rebel-base-1 (ClusterMesh tokyo)", world.Addresses);
        world.HearAddress("tokyo", 1, "10.1.0.11", null);
        Assert.DoesNotContain("10.1.0.11/32", world.Addresses);
    }

    [Fact]
    public async Task Local_objects_are_applied_as_one_batch_when_all_have_been_read()
    {
        var cancellation = TestContext.Current.CancellationToken;
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var world = new World(Kernel);
        var running = world.Local.RunAsync(stop.Token);
        world.Source.Say(Given.Service("rebel-base", "10.96.0.10"));
        world.Source.Say(Given.Slice("rebel-base", "a", "http:8080/TCP", "10.2.0.5"));
        await Task.Yield();
        Assert.False(world.Local.Synced.IsCompleted);
        Assert.Equal("", world.Frontends);
        Assert.False(world.State.Frontends.Initialized.IsCompleted);

        world.Source.SaySynced();
        await world.Local.Synced.WaitAsync(TimeSpan.FromSeconds(10), cancellation);
        Assert.Equal(Before, world.Frontends);
        Assert.Equal(1, world.State.Frontends.Revision);
        Assert.True(world.State.Frontends.Initialized.IsCompleted);

        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
    }

    [Fact]
    public void Nodes_are_pruned_only_when_every_peer_has_listed_its_own()
    {
        var world = Restarted("kyoto", "tokyo");
        world.State.Nodes.InitializerDone(Sources.LocalSource.Name);
        world.HearSynced("kyoto", 3, RemoteResource.Nodes);
        Assert.False(world.State.Nodes.Initialized.IsCompleted);
        Assert.Equal(["peer tokyo"], world.State.Nodes.PendingInitializers);

        world.HearSynced("tokyo", 1, RemoteResource.Nodes);
        Assert.True(world.State.Nodes.Initialized.IsCompleted);
    }

    [Fact]
    public void A_peer_that_is_removed_is_no_longer_waited_for()
    {
        var world = Restarted("tokyo");
        world.State.Nodes.InitializerDone(Sources.LocalSource.Name);
        Assert.False(world.State.RemoteClusters.Initialized.IsCompleted);
        world.Remote.Drain("tokyo", 0);
        Assert.True(world.State.Nodes.Initialized.IsCompleted);
        Assert.True(world.State.RemoteClusters.Initialized.IsCompleted);
    }
}
