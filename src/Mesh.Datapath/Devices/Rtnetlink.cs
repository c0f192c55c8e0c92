using System.Buffers.Binary;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Mesh.Netlink;

namespace Mesh.Datapath.Devices;

/// <summary>A network device.</summary>
/// <param name="Kind">"veth", "vxlan", …; null for physical ones.</param>
/// <param name="PeerIndex">For a veth: the other end.</param>
/// <param name="VxlanPort">For a vxlan: its UDP port.</param>
/// <param name="CollectMetadata">For a vxlan: the tunnel key comes with each packet.</param>
internal sealed record LinkInfo(
    int Index, string Name, string? Kind, MacAddress Mac, uint Mtu, bool IsUp, int PeerIndex, int VxlanPort, bool CollectMetadata);

/// <summary>An address of a device.</summary>
internal readonly record struct DeviceAddress(int InterfaceIndex, IpAddr Address, byte Length);

/// <summary>The first step towards an address.</summary>
/// <param name="Gateway">Null when the address itself is on the device's network.</param>
/// <param name="Source">That the kernel would take for packets that have none yet.</param>
internal readonly record struct RouteHop(int InterfaceIndex, IpAddr? Gateway, IpAddr? Source);

/// <summary>The few rtnetlink requests that the node's devices need, each idempotent where the kernel allows. Numbers are those of
/// linux/if_link.h, if_addr.h, rtnetlink.h and neighbour.h.</summary>
internal sealed class Rtnetlink : IDisposable
{
    /// <summary>rtm_protocol of our routes, so that we find and remove only those.</summary>
    internal const byte RouteProtocol = 77;

    private const ushort Creating = NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck | NetlinkSocket.FlagCreate;
    private const int EEXIST = 17;
    private const int ENODEV = 19;
    private const int ESRCH = 3;
    private const uint Up = 1;
    private const byte MainTable = 254;
    private const byte ScopeUniverse = 0;
    private const byte TypeUnicast = 1;
    private const uint OnLink = 4;

    private readonly NetlinkSocket _socket = new();

    internal IReadOnlyList<LinkInfo> Links()
    {
        var links = new List<LinkInfo>();
        var request = new NetlinkMessage(18, NetlinkSocket.FlagRequest | NetlinkSocket.FlagDump).U32(0).U32(0).U32(0).U32(0);
        Request(request, "list devices", (_, payload) => links.Add(ParseLink(payload)));
        return links;
    }

    /// <summary>Null when there is no such device.</summary>
    internal LinkInfo? Link(int index)
    {
        LinkInfo? link = null;
        var request = new NetlinkMessage(18, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck).U32(0).U32((uint)index).U32(0).U32(0);
        Request(request, $"device {index}", (_, payload) => link = ParseLink(payload), ENODEV);
        return link;
    }

    /// <summary>Null when there is no such device.</summary>
    internal LinkInfo? Link(string name)
    {
        LinkInfo? link = null;
        var request = new NetlinkMessage(18, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck)
            .U32(0).U32(0).U32(0).U32(0).Attribute(3, name);
        Request(request, $"device {name}", (_, payload) => link = ParseLink(payload), ENODEV);
        return link;
    }

    internal void AddVeth(string name, string peer, uint mtu) => Request(
        NewLink(name, mtu).Nested(18, info => info.Attribute(1, "veth").Nested(2, data => data.Nested(1, other =>
            other.U32(0).U32(0).U32(0).U32(0).Attribute(3, peer).AttributeU32(4, mtu)))), $"add veth pair {name} and {peer}");

    /// <summary>Collect-metadata mode: remote, VNI and source come from each packet's tunnel key. Both underlay families; over IPv6
    /// the UDP checksum may be zero, as our sender leaves it.</summary>
    internal void AddVxlan(string name, ushort port, uint mtu) => Request(
        NewLink(name, mtu).Nested(18, info => info.Attribute(1, "vxlan").Nested(2, data => data
            .AttributeU8(7, 0).AttributeBigEndianU16(15, port).AttributeU8(25, 1).AttributeU8(19, 1).AttributeU8(20, 1))),
        $"add vxlan device {name} on port {port}");

    internal void DeleteLink(int index) => Request(
        new NetlinkMessage(17, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck).U32(0).U32((uint)index).U32(0).U32(0),
        $"delete device {index}", null, ENODEV);

    internal void SetUp(LinkInfo link, uint mtu)
    {
        if (link.IsUp && link.Mtu == mtu)
            return;
        var request = new NetlinkMessage(16, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck)
            .U32(0).U32((uint)link.Index).U32(Up).U32(Up).AttributeU32(4, mtu);
        Request(request, $"bring up {link.Name} with MTU {mtu}");
    }

    internal IReadOnlyList<DeviceAddress> Addresses()
    {
        var addresses = new List<DeviceAddress>();
        var request = new NetlinkMessage(22, NetlinkSocket.FlagRequest | NetlinkSocket.FlagDump).U32(0).U32(0);
        Request(request, "list addresses", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[8..]);
            // IFA_LOCAL is our side; IPv6 has only IFA_ADDRESS.
            var bytes = attributes.Get(2) is { Length: > 0 } local ? local : attributes.Get(1);
            if (bytes.Length is 4 or 16)
                addresses.Add(new DeviceAddress(BinaryPrimitives.ReadInt32LittleEndian(payload[4..]), IpAddr.FromBytes(bytes), payload[1]));
        });
        return addresses;
    }

    /// <summary>As a single address (/32, /128), usable at once.</summary>
    internal void AddAddress(int index, IpAddr address)
    {
        const uint noDuplicateDetection = 2;
        var request = new NetlinkMessage(20, Creating | NetlinkSocket.FlagExclusive)
            .U8(RouteFamily(address)).U8((byte)address.Bits).U8(0).U8(ScopeUniverse).U32((uint)index)
            .Attribute(2, address).Attribute(1, address);
        if (address.IsV6)
            request.AttributeU32(8, noDuplicateDetection);
        Request(request, $"add address {address}", null, EEXIST);
    }

    internal void DeleteAddress(DeviceAddress address)
    {
        const int EADDRNOTAVAIL = 99;
        var request = new NetlinkMessage(21, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck)
            .U8(RouteFamily(address.Address)).U8(address.Length).U8(0).U8(0).U32((uint)address.InterfaceIndex)
            .Attribute(2, address.Address).Attribute(1, address.Address);
        Request(request, $"remove address {address.Address}", null, EADDRNOTAVAIL, ENODEV);
    }

    /// <summary>Replaces a route of ours. The next hop is taken as on-link, whatever the device's addresses are.</summary>
    internal void ReplaceRoute(IpPrefix destination, int index, IpAddr nextHop, IpAddr? preferredSource, uint mtu)
    {
        var request = Route(24, NetlinkSocket.FlagCreate | NetlinkSocket.FlagReplace, destination)
            .AttributeU32(4, (uint)index).Attribute(5, nextHop);
        if (preferredSource is { } source)
            request.Attribute(7, source);
        request.Nested(8, metrics => metrics.AttributeU32(2, mtu));
        Request(request, $"route {destination}");
    }

    internal void DeleteRoute(IpPrefix destination, int index) => Request(
        Route(25, 0, destination).AttributeU32(4, (uint)index), $"remove route {destination}", null, ESRCH, ENODEV);

    /// <summary>Destinations of our routes over a device.</summary>
    internal IReadOnlySet<IpPrefix> Routes(int index)
    {
        var routes = new HashSet<IpPrefix>();
        var request = new NetlinkMessage(26, NetlinkSocket.FlagRequest | NetlinkSocket.FlagDump).U32(0).U32(0).U32(0);
        Request(request, "list routes", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[12..]);
            if (payload[5] != RouteProtocol || attributes.U32(4) != (uint)index)
                return;
            var bytes = attributes.Get(1);
            var address = bytes.Length is 4 or 16 ? IpAddr.FromBytes(bytes) : payload[0] == 2 ? IpAddr.V4(0) : IpAddr.V6(0);
            routes.Add(new IpPrefix(address, payload[1]));
        });
        return routes;
    }

    internal void ReplaceNeighbour(int index, IpAddr address, MacAddress mac)
    {
        const ushort permanent = 0x80;
        var request = new NetlinkMessage(28, Creating | NetlinkSocket.FlagReplace)
            .U32(RouteFamily(address)).U32((uint)index).U16(permanent).U16(0).Attribute(1, address).Attribute(2, mac);
        Request(request, $"neighbour {address}");
    }

    /// <summary>Where packets to an address would leave now, without a source of their own; null when nowhere.</summary>
    internal RouteHop? RouteTo(IpAddr destination)
    {
        RouteHop? hop = null;
        const int unreachable = 101, noRoute = 113, forbidden = 13, invalid = 22;
        var request = new NetlinkMessage(26, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck)
            .U8(RouteFamily(destination)).U8((byte)destination.Bits).U8(0).U8(0).U8(0).U8(0).U8(0).U8(0).U32(0).Attribute(1, destination);
        Request(request, $"route to {destination}", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[12..]);
            if (payload[7] == TypeUnicast && attributes.U32(4) is { } index)
                hop = new RouteHop((int)index, AddressOf(attributes.Get(5)), AddressOf(attributes.Get(7)));
        }, unreachable, noRoute, forbidden, invalid, ESRCH);
        return hop;
    }

    /// <summary>Neighbours that packets may be sent to at once, by device and address.</summary>
    internal IReadOnlyDictionary<(int InterfaceIndex, IpAddr Address), MacAddress> Neighbours()
    {
        const ushort usable = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80; // reachable, stale, delay, probe, noarp, permanent
        var neighbours = new Dictionary<(int, IpAddr), MacAddress>();
        var request = new NetlinkMessage(30, NetlinkSocket.FlagRequest | NetlinkSocket.FlagDump).U32(0).U32(0).U32(0);
        Request(request, "list neighbours", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[12..]);
            if ((BinaryPrimitives.ReadUInt16LittleEndian(payload[8..]) & usable) != 0 && AddressOf(attributes.Get(1)) is { } address
                && attributes.Get(2) is { Length: 6 } mac)
                neighbours[(BinaryPrimitives.ReadInt32LittleEndian(payload[4..]), address)] = MacAddress.From(mac);
        });
        return neighbours;
    }

    /// <summary>Asks the kernel to find a neighbour, and to keep it found.</summary>
    internal void KeepNeighbour(int index, IpAddr address)
    {
        const byte use = 1;
        const ushort extendedFlags = 15;
        const uint managed = 1;
        const int EBUSY = 16;
        var request = new NetlinkMessage(28, Creating).U32(RouteFamily(address)).U32((uint)index).U16(0).U8(use).U8(0)
            .Attribute(1, address).AttributeU32(extendedFlags, managed);
        Request(request, $"neighbour {address}", null, EBUSY, ENODEV, EEXIST);
    }

    public void Dispose() => _socket.Dispose();

    private void Request(NetlinkMessage message, string what, NetlinkSocket.Receive? receive = null, params ReadOnlySpan<int> allowed)
    {
        try
        {
            _socket.Request(message, what, receive, allowed);
        }
        catch (NetlinkException refused)
        {
            throw new DatapathException(refused.Message, refused);
        }
    }

    private static IpAddr? AddressOf(ReadOnlySpan<byte> bytes) => bytes.Length is 4 or 16 ? IpAddr.FromBytes(bytes) : null;

    private static byte RouteFamily(IpAddr address) => address.IsV6 ? (byte)10 : (byte)2;

    private static NetlinkMessage NewLink(string name, uint mtu) =>
        new NetlinkMessage(16, Creating | NetlinkSocket.FlagExclusive)
            .U32(0).U32(0).U32(0).U32(0).Attribute(3, name).AttributeU32(4, mtu);

    private static NetlinkMessage Route(ushort type, int flags, IpPrefix destination) =>
        new NetlinkMessage(type, (ushort)(NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck | flags))
            .U8(RouteFamily(destination.Address)).U8(destination.Length).U8(0).U8(0)
            .U8(MainTable).U8(RouteProtocol).U8(ScopeUniverse).U8(TypeUnicast).U32(OnLink).Attribute(1, destination.Address);

    private static LinkInfo ParseLink(ReadOnlySpan<byte> payload)
    {
        var attributes = new NetlinkAttributes(payload[16..]);
        var info = attributes.Nested(18);
        var data = info.Nested(2);
        var kind = info.Text(1);
        var mac = attributes.Get(1) is { Length: 6 } bytes ? MacAddress.From(bytes) : default;
        return new LinkInfo(
            BinaryPrimitives.ReadInt32LittleEndian(payload[4..]),
            attributes.Text(3) ?? "",
            kind,
            mac,
            attributes.U32(4) ?? 0,
            (BinaryPrimitives.ReadUInt32LittleEndian(payload[8..]) & Up) != 0,
            kind == "veth" ? (int)(attributes.U32(5) ?? 0) : 0,
            kind == "vxlan" && data.Get(15) is { Length: 2 } port ? BinaryPrimitives.ReadUInt16BigEndian(port) : 0,
            kind == "vxlan" && data.Get(25) is { Length: > 0 } collect && collect[0] != 0);
    }
}
