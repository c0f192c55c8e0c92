using System.Buffers.Binary;
using Mesh.Model;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Netlink;

/// <summary>A network device as its namespace shows it.</summary>
/// <param name="Kind">"veth", …; null for physical ones.</param>
/// <param name="Alias">What its maker wrote beside its name; null for nothing.</param>
/// <param name="Mtu">In bytes.</param>
public sealed record LinkState(int Index, string Name, string? Kind, string? Alias, LinkAddress Address, uint Mtu, bool IsUp);

/// <summary>A route of the main table.</summary>
/// <param name="Destination">Length 0 for the default route.</param>
/// <param name="Gateway">Null for what is on the link itself.</param>
public sealed record LinkRoute(IpPrefix Destination, IpAddr? Gateway, int InterfaceIndex);

/// <summary>The rtnetlink requests that make a pod's device, in the network namespace of the thread that made this. Numbers are those of
/// linux/if_link.h, if_addr.h and rtnetlink.h. Every failure is a <see cref="NetlinkException"/> that says what was tried.</summary>
public sealed class LinkRequests : IDisposable
{
    private const ushort Asking = NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck;
    private const ushort Creating = Asking | NetlinkSocket.FlagCreate | NetlinkSocket.FlagExclusive;
    private const ushort Listing = NetlinkSocket.FlagRequest | NetlinkSocket.FlagDump;
    private const ushort NewLinkType = 16, DeleteLinkType = 17, GetLinkType = 18, NewAddressType = 20, GetAddressType = 22;
    private const ushort NewRouteType = 24, GetRouteType = 26;
    private const ushort LinkAddressAttribute = 1, NameAttribute = 3, MtuAttribute = 4, InfoAttribute = 18, AliasAttribute = 20, SpaceAttribute = 28;
    private const uint Up = 1;
    private const byte MainTable = 254, ScopeLink = 253, ScopeUniverse = 0, ProtocolBoot = 3, Unicast = 1;
    private const int ENODEV = 19;
    private const int EEXIST = 17;

    private readonly NetlinkSocket _socket = new();

    /// <summary>Null when there is no such device.</summary>
    public LinkState? Find(string name)
    {
        LinkState? link = null;
        _socket.Request(new NetlinkMessage(GetLinkType, Asking).U32(0).U32(0).U32(0).U32(0).Attribute(NameAttribute, name),
            $"device {name}", (_, payload) => link = Parse(payload), ENODEV);
        return link;
    }

    public IReadOnlyList<LinkState> List()
    {
        var links = new List<LinkState>();
        _socket.Request(new NetlinkMessage(GetLinkType, Listing).U32(0).U32(0).U32(0).U32(0), "list devices", (_, payload) => links.Add(Parse(payload)));
        return links;
    }

    /// <summary>Makes both ends at once, the peer in its own namespace under its final name: there is no moment at which it has another.</summary>
    /// <param name="mtu">In bytes, of both ends.</param>
    /// <returns>False when one of the two names is taken; nothing is made then.</returns>
    public bool AddVeth(string name, LinkAddress address, string peer, LinkAddress peerAddress, SafeFileHandle peerSpace, uint mtu)
    {
        var request = new NetlinkMessage(NewLinkType, Creating).U32(0).U32(0).U32(0).U32(0)
            .Attribute(NameAttribute, name).AttributeU32(MtuAttribute, mtu).Attribute(LinkAddressAttribute, address.ToBytes())
            .Nested(InfoAttribute, info => info.Attribute(1, "veth").Nested(2, data => data.Nested(1, other => other
                .U32(0).U32(0).U32(0).U32(0).Attribute(NameAttribute, peer).AttributeU32(MtuAttribute, mtu)
                .Attribute(LinkAddressAttribute, peerAddress.ToBytes()).AttributeU32(SpaceAttribute, (uint)peerSpace.DangerousGetHandle()))));
        return _socket.Request(request, $"add veth pair {name} and {peer}", null, EEXIST) == 0;
    }

    /// <param name="alias">Null to leave it as it is.</param>
    public void SetUp(int index, string? alias = null)
    {
        var request = new NetlinkMessage(NewLinkType, Asking).U32(0).U32((uint)index).U32(Up).U32(Up);
        if (alias is not null)
            request.Attribute(AliasAttribute, alias);
        _socket.Request(request, $"bring up device {index}");
    }

    /// <returns>False when there was no such device.</returns>
    public bool Delete(string name) => _socket.Request(
        new NetlinkMessage(DeleteLinkType, Asking).U32(0).U32(0).U32(0).U32(0).Attribute(NameAttribute, name), $"delete device {name}", null, ENODEV) == 0;

    /// <summary>As a single address (/32, /128), usable at once.</summary>
    public void AddAddress(int index, IpAddr address)
    {
        const uint noDuplicateDetection = 2;
        var request = new NetlinkMessage(NewAddressType, Creating)
            .U8(Family(address)).U8((byte)address.Bits).U8(0).U8(ScopeUniverse).U32((uint)index).Attribute(2, address).Attribute(1, address);
        if (address.IsV6)
            request.AttributeU32(8, noDuplicateDetection);
        _socket.Request(request, $"add address {address}");
    }

    /// <summary>Addresses of a device with their lengths; IPv6 link-local ones too.</summary>
    public IReadOnlyList<(IpAddr Address, byte Length)> Addresses(int index)
    {
        var addresses = new List<(IpAddr, byte)>();
        _socket.Request(new NetlinkMessage(GetAddressType, Listing).U32(0).U32(0), "list addresses", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[8..]);
            // IFA_LOCAL is our side; IPv6 has only IFA_ADDRESS.
            var bytes = attributes.Get(2) is { Length: > 0 } local ? local : attributes.Get(1);
            if (bytes.Length is 4 or 16 && BinaryPrimitives.ReadInt32LittleEndian(payload[4..]) == index)
                addresses.Add((IpAddr.FromBytes(bytes), payload[1]));
        });
        return addresses;
    }

    /// <param name="gateway">Null for what is on the link itself.</param>
    /// <param name="source">Address that packets without one are given.</param>
    public void AddRoute(IpPrefix destination, IpAddr? gateway, IpAddr? source, int index)
    {
        var onLink = gateway is null && !destination.Address.IsV6;
        var request = new NetlinkMessage(NewRouteType, Creating)
            .U8(Family(destination.Address)).U8(destination.Length).U8(0).U8(0)
            .U8(MainTable).U8(ProtocolBoot).U8(onLink ? ScopeLink : ScopeUniverse).U8(Unicast).U32(0).AttributeU32(4, (uint)index);
        if (destination.Length > 0)
            request.Attribute(1, destination.Address);
        if (gateway is { } via)
            request.Attribute(5, via);
        if (source is { } preferred)
            request.Attribute(7, preferred);
        _socket.Request(request, $"route {destination}{(gateway is null ? "" : $" via {gateway}")}");
    }

    public IReadOnlyList<LinkRoute> Routes()
    {
        var routes = new List<LinkRoute>();
        _socket.Request(new NetlinkMessage(GetRouteType, Listing).U32(0).U32(0).U32(0), "list routes", (_, payload) =>
        {
            var attributes = new NetlinkAttributes(payload[12..]);
            if (payload[4] != MainTable || payload[7] != Unicast || attributes.U32(4) is not { } index)
                return;
            var bytes = attributes.Get(1);
            var address = bytes.Length is 4 or 16 ? IpAddr.FromBytes(bytes) : payload[0] == 2 ? IpAddr.V4(0) : IpAddr.V6(0);
            var via = attributes.Get(5);
            routes.Add(new LinkRoute(new IpPrefix(address, payload[1]), via.Length is 4 or 16 ? IpAddr.FromBytes(via) : null, (int)index));
        });
        return routes;
    }

    public void Dispose() => _socket.Dispose();

    private static byte Family(IpAddr address) => address.IsV6 ? (byte)10 : (byte)2;

    private static LinkState Parse(ReadOnlySpan<byte> payload)
    {
        var attributes = new NetlinkAttributes(payload[16..]);
        return new LinkState(
            BinaryPrimitives.ReadInt32LittleEndian(payload[4..]),
            attributes.Text(NameAttribute) ?? "",
            attributes.Nested(InfoAttribute).Text(1),
            attributes.Text(AliasAttribute),
            LinkAddress.From(attributes.Get(LinkAddressAttribute)),
            attributes.U32(MtuAttribute) ?? 0,
            (BinaryPrimitives.ReadUInt32LittleEndian(payload[8..]) & Up) != 0);
    }
}
