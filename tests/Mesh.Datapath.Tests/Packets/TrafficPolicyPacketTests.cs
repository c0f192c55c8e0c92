using Mesh.Bpf;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Row = Mesh.ControlPlane.LoadBalancing.Backend;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>externalTrafficPolicy of a global service, from its row by the plan of its segments to the packets of clients outside.</summary>
[Collection("north")]
public sealed class TrafficPolicyPacketTests(NorthWorlds worlds)
{
    private const int Clients = 24;

    /// <summary>Hook, family of the packets.</summary>
    public static TheoryData<Hook, int> Everywhere => new(
        from hook in (Hook[])[Hook.Xdp, Hook.Tc] from family in (int[])[4, 6] select (hook, family));

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void Under_local_a_node_with_a_backend_of_its_own_sends_nobody_to_another_cluster(Hook hook, int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        Serve(world, Both(names) with { ExternalLocal = true });
        Assert.Equal(Enumerable.Repeat(Local(hook), Clients), Ask(world, hook, names).Select(outcome => outcome.Verdict));

        Assert.All(Ask(world, hook, names), outcome => Assert.Equal(Plain(names).Build().Length, outcome.Packet.Length));

        // The control: without the policy all of them go there, into the tunnel.
        Serve(world, Both(names));
        Assert.All(Ask(world, hook, names), outcome => Assert.True(outcome.Packet.Length > Plain(names).Build().Length));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void Under_local_a_node_without_a_backend_of_its_own_drops(Hook hook, int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        var elsewhere = Both(names) with { Backends = new([Backend(names.RemotePod, 2)]) };
        Serve(world, elsewhere with { ExternalLocal = true });
        Assert.All(Ask(world, hook, names), outcome => outcome.DroppedAt(hook, DropReason.NoServiceBackend));
        Assert.Equal(0, world.Flows);

        Serve(world, elsewhere);
        Assert.All(Ask(world, hook, names), outcome => Assert.Equal(DropReason.Forwarded, outcome.Reason));
    }

    [Theory]
    [MemberData(nameof(Everywhere))]
    public void A_backend_here_that_drains_is_better_than_none_and_than_another_clusters(Hook hook, int family)
    {
        var world = worlds.Over(4);
        var names = Outside.Of(family);
        var row = Both(names);
        Serve(world, row with
        {
            ExternalLocal = true,
            Backends = new(row.Backends.Select(one => one.IsHere ? one with { State = BackendState.Draining } : one)),
        });
        Assert.Equal(Enumerable.Repeat(Local(hook), Clients), Ask(world, hook, names).Select(outcome => outcome.Verdict));
        Assert.All(Ask(world, hook, names), outcome => Assert.Equal(Plain(names).Build().Length, outcome.Packet.Length));
    }

    /// <summary>A backend here and one in another cluster, the latter preferred: the policy overrules that.</summary>
    private static Frontend Both(Outside names) => new(new L3n4Addr(IpAddr.Parse(names.Virtual), 80, L4Protocol.TCP),
        new ServiceName("default", "web"), "", ServiceType.LoadBalancer, ServiceAffinity.Remote,
        new([Backend(names.Pod, 1) with { IsHere = true, Tier = 1 }, Backend(names.RemotePod, 2)]));

    private static Row Backend(string address, uint cluster) =>
        new(new L3n4Addr(IpAddr.Parse(address), 8080, L4Protocol.TCP), cluster, "", "", "", BackendState.Active, 0);

    private static void Serve(NorthWorld world, Frontend row)
    {
        var plan = SegmentPlan.For(row);
        world.Tables.Clear();
        world.ForgetFlows();
        var address = row.Address;
        var id = world.Tables.Set(address.Address.ToString(), address.Port, Frame.Tcp, [.. plan.Segments.Select(segment =>
            new Segment(segment.ClusterId, segment.Tier, [.. segment.Backends.Select(one =>
                new Backend(one.ToL3n4Addr()!.Value.Address, one.Port.Host) { State = one.State })]))]);
        world.Info(id) = plan.Info;
    }

    /// <summary>Packets that begin flows, of many clients.</summary>
    private static List<Outcome> Ask(NorthWorld world, Hook hook, Outside names)
    {
        world.ForgetFlows();
        return [.. Enumerable.Range(0, Clients).Select(i => world.FromOutside(hook, Plain(names) with { SourcePort = (ushort)(20000 + i) }))];
    }

    private static Frame Plain(Outside names) => Frame.Between(names.Client, names.Virtual) with
    {
        SourceMac = NorthWorld.RouterMac,
        DestinationMac = NorthWorld.UplinkMac,
    };

    /// <summary>At XDP a packet for a pod of this node is translated and goes on to tc.</summary>
    private static int Local(Hook hook) => hook == Hook.Xdp ? XdpAction.Pass : PacketWorld.Redirect;
}
