using System.Buffers.Binary;
using Mesh.Netlink;

namespace Mesh.Datapath.Devices;

/// <summary>
/// What a device can do with XDP, as its driver tells it (the kernel's "netdev" family of generic netlink, linux/netdev.h). Of a veth it
/// depends on the other end: only one with a queue of its own takes frames that XDP sends.
/// </summary>
[Flags]
internal enum XdpFeatures : ulong
{
    None = 0,

    /// <summary>Programs run, and pass, drop or send back frames.</summary>
    Basic = 1,

    /// <summary>Takes frames that are redirected to it.</summary>
    Transmit = 4,
}

/// <summary>Asks for them. Bound to the network namespace of the thread that calls.</summary>
internal static class XdpFeatureQuery
{
    private const int Generic = 16;
    private const ushort Control = 0x10;
    private const byte GetFamily = 3;
    private const ushort FamilyId = 1;
    private const ushort FamilyName = 2;
    private const byte GetDevice = 1;
    private const ushort DeviceIndex = 1;
    private const ushort DeviceFeatures = 3;

    /// <summary>Null where the kernel does not tell (before Linux 6.3).</summary>
    internal static XdpFeatures? Of(int interfaceIndex)
    {
        using var socket = new NetlinkSocket(Generic);
        ushort family = 0;
        XdpFeatures? features = null;
        var asked = socket.TryRequest(Message(Control, GetFamily, version: 2).Attribute(FamilyName, "netdev"), out _, (_, payload) =>
        {
            if (new NetlinkAttributes(payload[4..]).Get(FamilyId) is { Length: >= 2 } id)
                family = BinaryPrimitives.ReadUInt16LittleEndian(id);
        });
        if (asked != 0 || family == 0)
            return null;
        socket.TryRequest(Message(family, GetDevice, version: 1).AttributeU32(DeviceIndex, (uint)interfaceIndex), out _, (_, payload) =>
        {
            if (new NetlinkAttributes(payload[4..]).Get(DeviceFeatures) is { Length: >= 8 } bits)
                features = (XdpFeatures)BinaryPrimitives.ReadUInt64LittleEndian(bits);
        });
        return features;
    }

    private static NetlinkMessage Message(ushort type, byte command, byte version) =>
        new NetlinkMessage(type, NetlinkSocket.FlagRequest | NetlinkSocket.FlagAck).U8(command).U8(version).U16(0);
}
