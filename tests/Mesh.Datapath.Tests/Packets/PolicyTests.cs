using System.Buffers.Binary;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Mesh.Policy;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>Verdicts by identity, at both places where they are asked, over both families.</summary>
[Collection("packets")]
public sealed class PolicyTests
{
    private const uint Set = 40;
    private const uint OtherSet = 41;

    /// <summary>Who comes by the tunnel in these tests, and who the other pod is.</summary>
    private const uint Peer = 0x10002;
    private const uint RemotePod = 0x20001;
    private const uint InRange = 0x30001;

    private readonly PacketWorld _world;

    public PolicyTests(PacketWorld world)
    {
        _world = world;
        _world.Reset();
    }

    public static TheoryData<int> Families => [4, 6];

    private PolicyTables Policy => _world.Policy;

    [Theory]
    [MemberData(nameof(Families))]
    public void A_new_pod_is_shut_off_until_its_policy_is_decided_but_for_its_node(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, PolicyLimits.Undecided, PolicyLimits.Undecided);

        _world.FromPod(Frame.Between(names.Pod, names.RemotePod)).Dropped(DropReason.PolicyUndecided);
        _world.FromTunnel(Frame.Between(names.RemotePod, names.Pod)).Dropped(DropReason.PolicyUndecided);
        _world.FromOtherPod(FromOther(names.Pod, names)).Dropped(DropReason.PolicyUndecided);
        Forwarded(_world.FromHost(Frame.Between(names.Host, names.Pod)));
        // And the answer of the pod to its node.
        Forwarded(_world.FromPod(Frame.Between(names.Host, names.Pod).Reply()));

        Policy.Word(PolicyTables.Pod);
        Forwarded(_world.FromPod(Frame.Between(names.Pod, names.RemotePod)));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void What_comes_by_the_tunnel_is_judged_by_the_identity_it_came_with(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: false);
        Policy.Only(Set, Peer, Frame.Tcp, 80);
        var sent = Frame.Between(names.RemotePod, names.Pod);

        Forwarded(_world.FromTunnel(sent));
        _world.FromTunnel(sent with { DestinationPort = 81 }).Dropped(DropReason.PolicyDenied);
        _world.FromTunnel(sent with { Protocol = Frame.Udp }).Dropped(DropReason.PolicyDenied);
        // The address says another identity: it is not asked.
        Policy.Row(Set, RemotePod, allow: true);
        _world.FromTunnel(sent with { DestinationPort = 82 }).Dropped(DropReason.PolicyDenied);
        // Egress is open.
        Forwarded(_world.FromPod(Frame.Between(names.Pod, names.Outside)));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_deny_rule_has_a_reason_of_its_own_and_a_counter(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: true, rule: 3);
        Policy.Row(Set, Peer, new PortVerdict(0, true, 3), new PortVerdict(Frame.Tcp << 16 | 80, false, 4), new PortVerdict(Frame.Tcp << 16 | 90, true, 3));
        var (allowed, denied) = (Policy.Counted(3), Policy.Counted(4));
        var sent = Frame.Between(names.RemotePod, names.Pod);

        _world.FromTunnel(sent).Dropped(DropReason.PolicyDeniedByDenylist);
        _world.FromTunnel(sent with { DestinationPort = 89 }).Dropped(DropReason.PolicyDeniedByDenylist);
        Forwarded(_world.FromTunnel(sent with { DestinationPort = 79 }));
        Forwarded(_world.FromTunnel(sent with { DestinationPort = 90 }));
        Assert.Equal((allowed + 2, denied + 2), (Policy.Counted(3), Policy.Counted(4)));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void What_a_pod_sends_is_judged_by_who_its_destination_is(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, egress: Set);
        Policy.Row(Set, 0, allow: false);
        (string Address, uint Identity)[] destinations =
        [
            (names.OtherPod, Peer), (names.RemotePod, RemotePod), (names.RemoteInRange, InRange), (names.Host, NumericIdentity.Host),
            (names.Outside, NumericIdentity.World),
        ];
        foreach (var (address, identity) in destinations)
        {
            _world.FromPod(Frame.Between(names.Pod, address)).Dropped(DropReason.PolicyDenied);
            Policy.Only(Set, identity, Frame.Tcp, 80);
            Forwarded(_world.FromPod(Frame.Between(names.Pod, address)));
            _world.FromPod(Frame.Between(names.Pod, address) with { DestinationPort = 443 }).Dropped(DropReason.PolicyDenied);
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Between_two_pods_of_a_node_both_are_asked(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, egress: Set);
        Policy.Row(Set, Peer, allow: true);
        Policy.Word(PolicyTables.OtherPod, ingress: OtherSet);
        Policy.Row(OtherSet, 0, allow: false);
        var sent = Frame.Between(names.Pod, names.OtherPod);

        _world.FromPod(sent).Dropped(DropReason.PolicyDenied);
        Policy.Row(OtherSet, 0x10001, allow: true);
        Forwarded(_world.FromPod(sent));
        Policy.Row(Set, Peer, allow: false);
        _world.FromPod(sent).Dropped(DropReason.PolicyDenied);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_service_is_judged_by_the_backend_that_was_chosen(int family)
    {
        var names = Names.Of(family);
        _world.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
        Policy.Word(PolicyTables.Pod, egress: Set);
        Policy.Row(Set, 0, allow: false);
        Policy.Only(Set, RemotePod, Frame.Tcp, 80);
        var sent = Frame.Between(names.Pod, names.Virtual);

        _world.FromPod(sent).Dropped(DropReason.PolicyDenied);
        Policy.Only(Set, RemotePod, Frame.Tcp, 8080);
        Forwarded(_world.FromPod(sent));
        Forwarded(_world.FromPod(sent with { TcpFlags = Frame.Ack }));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Answers_pass_whatever_the_rules_say_and_openings_do_not(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: false);
        foreach (var protocol in new[] { Frame.Tcp, Frame.Udp, Frame.Sctp })
        {
            var sent = Frame.Between(names.Pod, names.RemotePod) with { Protocol = protocol };
            _world.FromTunnel(sent.Reply()).Dropped(DropReason.PolicyDenied);
            Forwarded(_world.FromPod(sent));
            Forwarded(_world.FromTunnel(sent.Reply()));
            Forwarded(_world.FromTunnel(sent.Reply() with { TcpFlags = Frame.Ack }));
            _world.FromTunnel(sent.Reply() with { DestinationPort = 40001 }).Dropped(DropReason.PolicyDenied);
            if (protocol == Frame.Tcp)
                _world.FromTunnel(sent.Reply() with { TcpFlags = Frame.Syn }).Dropped(DropReason.PolicyDenied);
        }
        Assert.Equal(3, Policy.Flows);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_pod_that_may_send_nothing_answers_whom_it_lets_in(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, egress: Set);
        Policy.Row(Set, 0, allow: false);
        var asked = Frame.Between(names.RemotePod, names.Pod);

        _world.FromPod(asked.Reply()).Dropped(DropReason.PolicyDenied);
        Forwarded(_world.FromTunnel(asked));
        Forwarded(_world.FromPod(asked.Reply()));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_flow_that_was_learnt_before_the_rules_came_is_answered(int family)
    {
        var names = Names.Of(family);
        Policy.Row(Set, 0, allow: false);
        var sent = Frame.Between(names.Pod, names.RemotePod) with { TcpFlags = Frame.Ack };
        foreach (var learnt in new[] { false, true })
        {
            Policy.Word(PolicyTables.Pod, ingress: learnt ? PolicyLimits.Learning : PolicyLimits.Unenforced);
            Forwarded(_world.FromPod(sent));
            Forwarded(_world.FromTunnel(sent.Reply() with { DestinationPort = 1 }));
            Policy.Word(PolicyTables.Pod, ingress: Set);
            var answer = _world.FromTunnel(sent.Reply());
            if (learnt)
                Forwarded(answer);
            else
                answer.Dropped(DropReason.PolicyDenied);
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Without_policy_no_flow_is_remembered(int family)
    {
        var names = Names.Of(family);
        Forwarded(_world.FromPod(Frame.Between(names.Pod, names.RemotePod)));
        Forwarded(_world.FromTunnel(Frame.Between(names.RemotePod, names.Pod)));

        Assert.Equal(0, Policy.Flows);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_ping_is_allowed_by_its_type_and_answered_by_its_number(int family)
    {
        var names = Names.Of(family);
        var (protocol, request, reply) = family == 4 ? (Frame.Icmp, (byte)8, (byte)0) : (Frame.IcmpV6, (byte)128, (byte)129);
        Policy.Word(PolicyTables.Pod, ingress: Set, egress: OtherSet);
        Policy.Row(Set, 0, allow: false);
        Policy.Row(OtherSet, 0, allow: false);
        var out_ = Frame.Between(names.Pod, names.RemotePod) with { Protocol = protocol };
        var back = Frame.Between(names.RemotePod, names.Pod) with { Protocol = protocol };

        _world.FromPod(out_).Dropped(DropReason.PolicyDenied);
        Policy.Only(OtherSet, RemotePod, protocol, request);
        Forwarded(_world.FromPod(Icmp(out_, request, 77)));
        Forwarded(_world.FromTunnel(Icmp(back, reply, 77)));
        _world.FromTunnel(Icmp(back, reply, 78)).Dropped(DropReason.PolicyDenied);
        // An echo request with the same number is no answer.
        _world.FromTunnel(Icmp(back, request, 77)).Dropped(DropReason.PolicyDenied);
        _world.FromPod(Icmp(out_, 13, 77)).Dropped(DropReason.PolicyDenied);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void An_ICMP_error_passes_when_its_flow_does(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: false);
        var sent = Frame.Between(names.Pod, names.RemotePod);

        // Of somebody on the way.
        _world.FromTunnel(Error(names.RemoteInRange, sent)).Dropped(DropReason.PolicyDenied);
        Forwarded(_world.FromPod(sent));
        Forwarded(_world.FromTunnel(Error(names.RemoteInRange, sent)));
        _world.FromTunnel(Error(names.RemoteInRange, sent with { SourcePort = 40009 })).Dropped(DropReason.PolicyDenied);
        // About the pod's answers to one whom the rules let in, though no flow is recorded for it.
        var answer = Frame.Between(names.Pod, names.RemotePod) with { SourcePort = 8443, DestinationPort = 50000, TcpFlags = Frame.Ack };
        _world.FromTunnel(Error(names.RemoteInRange, answer)).Dropped(DropReason.PolicyDenied);
        Policy.Only(Set, RemotePod, Frame.Tcp, 8443);
        Forwarded(_world.FromTunnel(Error(names.RemoteInRange, answer)));
        // About a packet that the pod has not sent.
        _world.FromTunnel(Error(names.RemoteInRange, answer with { Source = IpAddr.Parse(names.OtherPod) })).Dropped(DropReason.PolicyDenied);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void Later_fragments_are_judged_by_the_ports_of_the_first(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set, egress: OtherSet);
        Policy.Row(Set, 0, allow: false);
        Policy.Row(OtherSet, 0, allow: false);
        Policy.Only(Set, Peer, Frame.Udp, 53);
        Policy.Only(OtherSet, RemotePod, Frame.Udp, 53);
        foreach (var (frame, run) in new (Frame, Func<Frame, Outcome>)[]
            { (Frame.Between(names.Pod, names.RemotePod), _world.FromPod), (Frame.Between(names.RemotePod, names.Pod), _world.FromTunnel) })
        {
            var first = frame with { Protocol = Frame.Udp, DestinationPort = 53, PayloadLength = 1008, Fragment = (0, true, 0x7007) };
            var later = first with { Fragment = (1016, false, 0x7007) };
            run(later).Dropped(DropReason.PolicyFragment);
            Forwarded(run(first));
            Forwarded(run(later));
            run(later with { Fragment = (1016, false, 0x7008) }).Dropped(DropReason.PolicyFragment);
            run(first with { DestinationPort = 54, Fragment = (0, true, 0x7009) }).Dropped(DropReason.PolicyDenied);
            run(later with { Fragment = (1016, false, 0x7009) }).Dropped(DropReason.PolicyDenied);
            Policy.ForgetFlows();
        }
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void A_verdict_for_everything_needs_no_ports(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: false);
        Policy.Row(Set, Peer, allow: true);
        var later = Frame.Between(names.RemotePod, names.Pod) with { Protocol = Frame.Udp, Fragment = (1016, false, 0x7070) };

        Forwarded(_world.FromTunnel(later));
        Forwarded(_world.FromTunnel(Frame.Between(names.RemotePod, names.Pod) with { Protocol = 99 }));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void In_audit_mode_what_is_denied_passes_and_is_counted(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set | PolicyLimits.Audit, egress: OtherSet | PolicyLimits.Audit);
        Policy.Row(Set, 0, allow: false);
        Policy.Row(OtherSet, 0, allow: false);
        Policy.Row(OtherSet, RemotePod, allow: true);
        var before = _world.Count(DropReason.PolicyAudited);

        Forwarded(_world.FromPod(Frame.Between(names.Pod, names.RemotePod)));
        Assert.Equal(before, _world.Count(DropReason.PolicyAudited));
        Forwarded(_world.FromPod(Frame.Between(names.Pod, names.Outside)));
        Assert.Equal(before + 1, _world.Count(DropReason.PolicyAudited));
        // Undecided is not audited: nobody has said yet what holds.
        Policy.Word(PolicyTables.Pod, PolicyLimits.Undecided, PolicyLimits.Undecided);
        _world.FromPod(Frame.Between(names.Pod, names.Outside)).Dropped(DropReason.PolicyUndecided);
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void What_the_nodes_stack_passes_on_has_not_the_nodes_rights(int family)
    {
        var names = Names.Of(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        Policy.Row(Set, 0, allow: false);

        Forwarded(_world.FromHost(Frame.Between(names.Host, names.Pod)));
        _world.FromHost(Frame.Between(names.Outside, names.Pod)).Dropped(DropReason.PolicyDenied);
        Policy.Row(Set, NumericIdentity.World, allow: true);
        Forwarded(_world.FromHost(Frame.Between(names.Outside, names.Pod)));
    }

    [Theory]
    [MemberData(nameof(Families))]
    public void The_verdict_is_that_of_the_range_that_the_port_lies_in(int family)
    {
        var names = Names.Of(family);
        var random = new Random(family);
        Policy.Word(PolicyTables.Pod, ingress: Set);
        foreach (var count in (int[])[2, 3, 7, 64, 1000, 4096])
        {
            var starts = Enumerable.Range(0, int.MaxValue).Select(_ => (uint)random.Next(1, 0x10000)).Distinct().Take(count - 1).Order().ToList();
            var verdicts = starts.Select(port => new PortVerdict(Frame.Tcp << 16 | port, random.Next(2) == 0, 0))
                .Prepend(new PortVerdict(0, false, 0)).ToArray();
            var row = new VerdictRow(new EquatableArray<PortVerdict>(verdicts));
            Policy.Row(Set, Peer, verdicts);
            foreach (var port in starts.SelectMany(port => (uint[])[port - 1, port, port + 1]).Append(1u).Append(0xffffu).OrderBy(_ => random.Next()).Take(60))
            {
                var expected = row.At(Frame.Tcp, (ushort)port).Allowed;
                var outcome = _world.FromTunnel(Frame.Between(names.RemotePod, names.Pod) with { DestinationPort = (ushort)port });
                Assert.True(expected == (outcome.Reason == DropReason.Forwarded), $"{count} ranges, port {port}: {outcome.Reason}");
            }
        }
    }

    private static void Forwarded(Outcome outcome)
    {
        Assert.Equal(DropReason.Forwarded, outcome.Reason);
        Assert.NotEqual(PacketWorld.Shot, outcome.Verdict);
    }

    private static Frame FromOther(string destination, Names names) => Frame.Between(names.OtherPod, destination) with { SourceMac = PacketWorld.OtherPodMac };

    private static byte[] Icmp(Frame frame, byte type, ushort number)
    {
        var bytes = frame.Build();
        var start = Frame.EthernetHeader + (frame.IsV6 ? 40 : 20);
        bytes[start] = type;
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(start + 4), number);
        return bytes;
    }

    /// <summary>"Destination unreachable" about a packet, said to its sender.</summary>
    private static byte[] Error(string sayer, Frame about)
    {
        var quoted = about.Build()[Frame.EthernetHeader..];
        var error = new Frame(IpAddr.Parse(sayer), about.Source) { Protocol = about.IsV6 ? Frame.IcmpV6 : Frame.Icmp, PayloadLength = quoted.Length };
        if (about.Source == IpAddr.Parse(Names.V4.OtherPod) || about.Source == IpAddr.Parse(Names.V6.OtherPod))
            error = error with { Destination = IpAddr.Parse(about.IsV6 ? Names.V6.Pod : Names.V4.Pod) };
        var bytes = error.Build();
        var start = Frame.EthernetHeader + (about.IsV6 ? 40 : 20);
        bytes[start] = about.IsV6 ? (byte)1 : (byte)3;
        quoted.CopyTo(bytes, start + 8);
        return bytes;
    }
}
