using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Devices;

/// <summary>What the programs must know of the node's devices.</summary>
/// <param name="StackMac">Address of mesh_host: where packets for the stack are sent.</param>
/// <param name="GatewayMac">Address of mesh_net: the gateway the stack and the pods see.</param>
/// <param name="PodMtu">Largest inner packet in bytes.</param>
internal sealed record DeviceSet(int Tunnel, int Host, int HostStack, MacAddress StackMac, MacAddress GatewayMac, uint PodMtu);

/// <summary>
/// The node's own devices:
///
///   host stack ── mesh_host ═ veth ═ mesh_net ── pod_in (BPF) ── pods, tunnel
///                                              mesh_vxlan ── vxlan_in (BPF)
///
/// mesh_host carries the gateway addresses; routes to all pod ranges leave through it, by a next hop whose link address is pinned
/// to mesh_net, so that no ARP is ever sent there. Everything is idempotent and stays when the agent goes.
/// </summary>
internal sealed class NodeDevices
{
    internal const string TunnelName = "mesh_vxlan";
    internal const string HostName = "mesh_host";
    internal const string NetName = "mesh_net";

    /// <summary>Outer Ethernet, IP, UDP and VXLAN headers on an IPv4 underlay, without the outer Ethernet's own 14 bytes counted by no MTU:
    /// 20 + 8 + 8 + 14.</summary>
    internal const uint OverheadV4 = 50;

    /// <summary>40 + 8 + 8 + 14.</summary>
    internal const uint OverheadV6 = 70;

    // Link-local and on one device only, so they collide with nobody's addresses.
    internal static readonly IpAddr NextHop4 = IpAddr.Parse("169.254.77.1");
    internal static readonly IpAddr NextHop6 = IpAddr.Parse("fe80::77:1");

    private readonly Rtnetlink _netlink;

    internal NodeDevices(Rtnetlink netlink) => _netlink = netlink;

    /// <exception cref="DatapathException">The underlay address is on no device, or the kernel refused something.</exception>
    internal DeviceSet Ensure(IpAddr underlay, uint? underlayMtu, ushort tunnelPort, IReadOnlyList<IpAddr> gateways)
    {
        var mtu = underlayMtu ?? MtuOf(underlay);
        var overhead = underlay.IsV6 ? OverheadV6 : OverheadV4;
        const uint smallestIPv6Mtu = 1280;
        if (mtu < smallestIPv6Mtu + overhead)
            throw new DatapathException($"underlay MTU {mtu} is too small: pods need {smallestIPv6Mtu} and the tunnel {overhead}");
        var podMtu = mtu - overhead;
        Sysctl.PrepareNode();
        var (host, net) = EnsureVeth(podMtu);
        var tunnel = EnsureVxlan(tunnelPort, podMtu);
        EnsureAddresses(host.Index, gateways);
        _netlink.ReplaceNeighbour(host.Index, NextHop4, net.Mac);
        if (Sysctl.HasIPv6)
            _netlink.ReplaceNeighbour(host.Index, NextHop6, net.Mac);
        return new DeviceSet(tunnel.Index, net.Index, host.Index, host.Mac, net.Mac, podMtu);
    }

    private uint MtuOf(IpAddr underlay)
    {
        foreach (var address in _netlink.Addresses())
            if (address.Address == underlay && _netlink.Link(address.InterfaceIndex) is { } link)
                return link.Mtu;
        throw new DatapathException($"no device of this network namespace has the underlay address {underlay}");
    }

    private (LinkInfo Host, LinkInfo Net) EnsureVeth(uint mtu)
    {
        var host = _netlink.Link(HostName);
        var net = _netlink.Link(NetName);
        if (host is null || net is null || host.PeerIndex != net.Index)
        {
            if (host is not null)
                _netlink.DeleteLink(host.Index);
            if (net is not null)
                _netlink.DeleteLink(net.Index);
            _netlink.AddVeth(HostName, NetName, mtu);
        }
        Sysctl.PrepareDevice(HostName, isBpfSide: false);
        Sysctl.PrepareDevice(NetName, isBpfSide: true);
        return (BringUp(HostName, mtu), BringUp(NetName, mtu));
    }

    private LinkInfo EnsureVxlan(ushort port, uint mtu)
    {
        var tunnel = _netlink.Link(TunnelName);
        if (tunnel is not null && (tunnel.VxlanPort != port || !tunnel.CollectMetadata))
        {
            _netlink.DeleteLink(tunnel.Index);
            tunnel = null;
        }
        if (tunnel is null)
            _netlink.AddVxlan(TunnelName, port, mtu);
        Sysctl.PrepareDevice(TunnelName, isBpfSide: true);
        return BringUp(TunnelName, mtu);
    }

    private LinkInfo BringUp(string name, uint mtu)
    {
        var link = _netlink.Link(name) ?? throw new DatapathException($"device {name} vanished as soon as it was made");
        _netlink.SetUp(link, mtu);
        return link;
    }

    private void EnsureAddresses(int host, IReadOnlyList<IpAddr> gateways)
    {
        var present = _netlink.Addresses().Where(address => address.InterfaceIndex == host).ToList();
        foreach (var gateway in gateways)
            if (!present.Any(address => address.Address == gateway))
                _netlink.AddAddress(host, gateway);
        foreach (var leftover in present)
            if (!gateways.Contains(leftover.Address) && !IsLinkLocal(leftover.Address))
                _netlink.DeleteAddress(leftover);
    }

    private static bool IsLinkLocal(IpAddr address) => address.IsV6 && address.Value >> 118 == 0xfe80 >> 6;
}
