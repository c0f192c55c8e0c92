using System.Globalization;
using System.Text.RegularExpressions;
using Mesh.Bpf;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Packets;

/// <summary>
/// A packet for every reason of bpf/include/mesh/drop.h. What exactly drops, and what does not, is for the tests of each part; here the
/// list is held against what can be reached, so that no reason stands there that nothing leads to.
/// </summary>
public sealed partial class DropReasonTests : IDisposable
{
    private const uint Set = PolicyLimits.FirstSet;
    private const uint OtherSet = PolicyLimits.FirstSet + 1;
    private const ulong MapFull = 1;
    private const ulong Checksum = 2;
    private const ulong TunnelKey = 4;

    private readonly PacketWorld _node = new("tests/faults_pod_in.bpf.o");
    private readonly NorthWorld _uplink = new(underlayV6: false, "tests/faults_uplink_in.bpf.o");

    public void Dispose()
    {
        _node.Dispose();
        _uplink.Dispose();
    }

    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Every_reason_of_the_list_is_reached(int family)
    {
        var listed = Listed();
        Assert.Equal(listed.Keys.Order(), Enum.GetValues<DropReason>().Where(reason => reason != DropReason.Forwarded).Select(reason => (int)reason));

        Assert.All(listed.Keys, number =>
        {
            _node.Reset();
            _uplink.Reset();
            Assert.Equal((DropReason)number, Provoke((DropReason)number, family));
        });
    }

    /// <summary>What drops where the kernel refuses does not drop where it does not.</summary>
    [Theory]
    [InlineData(4)]
    [InlineData(6)]
    public void Where_the_kernel_refuses_nothing_the_same_packets_pass(int family)
    {
        foreach (var reason in (DropReason[])
            [DropReason.Encapsulation, DropReason.Translation, DropReason.Conntrack, DropReason.IcmpError, DropReason.NatNotStored])
        {
            _node.Reset();
            _uplink.Reset();
            Assert.Equal(DropReason.Forwarded, Provoke(reason, family, refuse: false));
        }
    }

    /// <summary>Number and name.</summary>
    private static SortedDictionary<int, string> Listed()
    {
        var header = File.ReadAllText(Path.Combine(Objects.Path("../.."), "bpf", "include", "mesh", "drop.h"));
        return new(Entry().Matches(header).ToDictionary(
            match => int.Parse(match.Groups[2].ValueSpan, CultureInfo.InvariantCulture), match => match.Groups[1].Value));
    }

    [GeneratedRegex(@"^\t(DROP_\w+|POLICY_AUDITED) = (\d+),", RegexOptions.Multiline)]
    private static partial Regex Entry();

    private DropReason Provoke(DropReason reason, int family, bool refuse = true)
    {
        var names = Names.Of(family);
        var outside = Outside.Of(family);
        var question = Frame.Between(names.Pod, names.Virtual);
        var remote = Frame.Between(names.Pod, names.RemotePod);
        var inner = Frame.Between(outside.RemotePod, outside.Pod) with { SourceMac = NorthWorld.GatewayMac, DestinationMac = NorthWorld.GatewayMac };
        var client = Frame.Between(outside.Client, outside.Virtual) with { SourceMac = NorthWorld.RouterMac, DestinationMac = NorthWorld.UplinkMac };
        switch (reason)
        {
            case DropReason.InvalidPacket:
                return _node.FromPod(remote.Build()[..60]).Reason;
            case DropReason.InvalidSource:
                return _node.FromPod(Frame.Between(names.OtherPod, names.RemotePod)).Reason;
            case DropReason.NoServiceBackend:
                _node.Tables.Set(names.Virtual, 80, Frame.Tcp);
                return _node.FromPod(question).Reason;
            case DropReason.NoTunnel:
                return _node.FromPod(Frame.Between(names.Pod, names.Stranded)).Reason;
            case DropReason.NodeDown:
                _node.Tables.Nodes[1].State = NodeState.Down;
                return _node.FromPod(remote).Reason;
            case DropReason.NoEndpoint:
                return _node.FromTunnel(Frame.Between(names.RemotePod, names.RemoteInRange)).Reason;
            case DropReason.NoTunnelKey:
                return _node.FromTunnelWithoutKey(Frame.Between(names.RemotePod, names.Pod)).Reason;
            case DropReason.Encapsulation:
                return Refusing(_node.Faults, refuse, TunnelKey, () => _node.FromPod(remote));
            case DropReason.Fragment:
                return LostFragment(names).Reason;
            case DropReason.Translation:
                Serve(names);
                return Refusing(_node.Faults, refuse, Checksum, () => _node.FromPod(question));
            case DropReason.Conntrack:
                Serve(names);
                return Refusing(_node.Faults, refuse, MapFull, () => _node.FromPod(question));
            case DropReason.Ttl:
                return _node.FromPod(Frame.Between(names.Pod, names.OtherPod) with { Ttl = 1 }).Reason;
            case DropReason.TooBig:
                return _node.FromPod(remote with { PayloadLength = (int)PacketWorld.PodMtu }).Reason;
            case DropReason.Hairpin:
                return _node.FromPod(Frame.Between(names.Pod, family == 4 ? "169.254.42.1" : LoopbackOf6)).Reason;
            case DropReason.FragmentOverlap:
                return _node.FromPod(remote with { DontFragment = false, Fragment = (8, false, 7) }).Reason;
            case DropReason.SctpPort:
                _node.Tables.Set(names.Virtual, 80, Frame.Sctp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
                return _node.FromPod(question with { Protocol = Frame.Sctp }).Reason;
            case DropReason.PortCollision:
                Serve(names);
                _node.Tables.Set(names.Virtual, 81, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));
                _node.FromPod(question);
                return _node.FromPod(question with { DestinationPort = 81 }).Reason;
            case DropReason.IcmpError:
                Serve(names);
                _node.FromPod(question);
                return Refusing(_node.Faults, refuse, Checksum, () => _node.FromPod(question.Reply().Error(names.Pod, names.Virtual)));
            case DropReason.UnknownSender:
                _uplink.ForgetSender();
                return Arrive(_uplink.FromNode(), inner.Build());
            case DropReason.ForeignIdentity:
                return Arrive(_uplink.FromNode(0x30001), inner.Build());
            case DropReason.ForeignSource:
                return Arrive(_uplink.FromNode(), (inner with { Source = inner.Destination }).Build());
            case DropReason.NotInSourceRange:
                _uplink.Serve(outside.Virtual, 80, Frame.Tcp, outside.RemotePod, 8080);
                _uplink.AllowOnly(outside.Virtual, 80, family == 4 ? "198.51.100.0/24" : "2001:db8:7::/64");
                return _uplink.FromOutside(Hook.Tc, client).Reason;
            case DropReason.NatNoPort:
                _uplink.Serve(outside.Virtual, 80, Frame.Tcp, outside.RemotePod, 8080);
                _uplink.TakeAllPorts(outside.RemotePod, 8080);
                return _uplink.FromOutside(Hook.Tc, client).Reason;
            case DropReason.NatNotStored:
                _uplink.Serve(outside.Virtual, 80, Frame.Tcp, outside.Pod, 8080);
                return Refusing(_uplink.Faults, refuse, MapFull, () => _uplink.FromOutside(Hook.Tc, client));
            case DropReason.NoRoute:
                _uplink.Serve(outside.Virtual, 80, Frame.Tcp, outside.Nowhere, 8080);
                return _uplink.FromOutside(Hook.Tc, client).Reason;
            case DropReason.DsrNotApplied:
                return Arrive(_uplink.FromNode(Vxlan.World), WrongOption(outside));
            case DropReason.TunnelHeader:
                return Arrive(_uplink.FromNode() with { Flags = 0 }, inner.Build());
            case DropReason.CongestionMark:
                return Arrive(_uplink.FromNode() with { Congestion = 3 }, inner.Build());
            case DropReason.PolicyDenied:
                _node.Policy.Word(PolicyTables.Pod, egress: Set);
                _node.Policy.Row(Set, 0, allow: false);
                return _node.FromPod(remote).Reason;
            case DropReason.PolicyDeniedByDenylist:
                _node.Policy.Word(PolicyTables.Pod, egress: Set);
                _node.Policy.Row(Set, 0, allow: false, rule: 3);
                return _node.FromPod(remote).Reason;
            case DropReason.PolicyUndecided:
                _node.Policy.Word(PolicyTables.Pod, PolicyLimits.Undecided, PolicyLimits.Undecided);
                return _node.FromPod(remote).Reason;
            case DropReason.PolicyFragment:
                _node.Policy.Word(PolicyTables.Pod, egress: Set);
                _node.Policy.Only(Set, 0x20001, Frame.Udp, 53);
                return _node.FromPod(remote with { Protocol = Frame.Udp, DontFragment = false, Fragment = (1016, false, 0x7007) }).Reason;
            case DropReason.PolicyAudited:
                _node.Policy.Word(PolicyTables.Pod, egress: OtherSet | PolicyLimits.Audit);
                _node.Policy.Row(OtherSet, 0, allow: false);
                var before = _node.Count(DropReason.PolicyAudited);
                _node.FromPod(remote);
                return _node.Count(DropReason.PolicyAudited) == before + 1 ? DropReason.PolicyAudited : DropReason.Forwarded;
            default:
                throw new InvalidOperationException($"no packet leads to {reason}: write one here, or take the reason off the list");
        }
    }

    private const string LoopbackOf6 = "100::6d65:7368";

    private void Serve(Names names) => _node.Tables.Set(names.Virtual, 80, Frame.Tcp, new Segment(2, 0, Backend.At(names.RemotePod, 8080)));

    private DropReason Arrive(Vxlan outer, byte[] frame) => _uplink.FromOutside(Hook.Tc, outer.Around(frame)).Reason;

    /// <summary>The first part is known, its flow is not any more.</summary>
    private Outcome LostFragment(Names names)
    {
        var first = Frame.Between(names.Pod, names.Virtual) with
        {
            Protocol = Frame.Udp,
            DestinationPort = 53,
            PayloadLength = 64,
            DontFragment = false,
            Fragment = (0, true, 777),
        };
        var segment = new Segment(2, 0, Backend.At(names.RemotePod, 5353));
        _node.Tables.Set(names.Virtual, 53, Frame.Udp, segment);
        _node.FromPod(first);
        _node.Reset();
        _node.Tables.Set(names.Virtual, 53, Frame.Udp, segment);
        return _node.FromPod(first with { Fragment = (72, false, 777) });
    }

    /// <summary>A virtual address whose option says another length than it has.</summary>
    private static byte[] WrongOption(Outside names)
    {
        var plain = Frame.Between(names.Client, names.Pod) with { DestinationPort = 8080 };
        var carrying = Vxlan.Carrying(plain, IpAddr.Parse(names.Virtual), 80);
        carrying[plain.IsV6 ? 57 : 35]--;
        if (plain.IsV6)
            return carrying;
        carrying.AsSpan(24, 2).Clear();
        System.Buffers.Binary.BinaryPrimitives.WriteUInt16BigEndian(carrying.AsSpan(24), Frame.InternetChecksum(carrying[14..42]));
        return carrying;
    }

    private static DropReason Refusing(MmapArray<ulong> faults, bool refuse, ulong kind, Func<Outcome> run)
    {
        using (faults)
        {
            faults[0] = refuse ? kind : 0;
            try
            {
                return run().Reason;
            }
            finally
            {
                faults[0] = 0;
            }
        }
    }
}
