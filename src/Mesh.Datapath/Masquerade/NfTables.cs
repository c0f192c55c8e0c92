using System.Text;
using Mesh.Model;
using Mesh.Netlink;

namespace Mesh.Datapath.Masquerade;

/// <summary>Messages of the kernel's nf_tables about one table of family inet (linux/netfilter/nf_tables.h): as much of them as our rules need.
/// Numbers are big endian here, unlike in the rest of netlink.</summary>
internal static class NfTables
{
    /// <summary>NETLINK_NETFILTER.</summary>
    internal const int Protocol = 12;

    private const int Subsystem = 10;
    private const byte FamilyInet = 1;
    private const byte FamilyAny = 0;

    internal static NetlinkMessage Begin() => Bracket(0x10);

    internal static NetlinkMessage End() => Bracket(0x11);

    internal static NetlinkMessage AddTable(string table, string comment)
    {
        // As nft writes comments: type 0, length, text with its closing zero.
        var text = Encoding.ASCII.GetBytes(comment + "\0");
        return Message(0, NetlinkSocket.FlagCreate).Attribute(1, table).Attribute(6, [0, (byte)text.Length, .. text]);
    }

    internal static NetlinkMessage GetTable(string table) => Message(1, NetlinkSocket.FlagAck).Attribute(1, table);

    /// <summary>Comment of a table in an answer of the kernel; null when it has none.</summary>
    internal static string? CommentOf(ReadOnlySpan<byte> payload) => new NetlinkAttributes(payload[4..]).Get(6) is [0, _, .. var text]
        ? Encoding.ASCII.GetString(text.TrimEnd((byte)0))
        : null;

    internal static NetlinkMessage DeleteTable(string table, bool acknowledged = false) =>
        Message(2, acknowledged ? NetlinkSocket.FlagAck : (ushort)0).Attribute(1, table);

    internal static NetlinkMessage AddChain(string table, string chain) => Message(3, NetlinkSocket.FlagCreate).Attribute(1, table).Attribute(3, chain);

    /// <summary>A chain that packets meet when they leave, where sources are translated.</summary>
    internal static NetlinkMessage AddPostrouting(string table, string chain)
    {
        const uint postrouting = 4, sourceNat = 100, accept = 1;
        return AddChain(table, chain).Attribute(7, "nat").AttributeBigEndianU32(5, accept)
            .Nested(4, hook => hook.AttributeBigEndianU32(1, postrouting).AttributeBigEndianU32(2, sourceNat));
    }

    internal static NetlinkMessage AddRule(string table, string chain, Func<NfExpressions, NfExpressions> content)
    {
        const ushort append = 0x800;
        return Message(6, NetlinkSocket.FlagAck | NetlinkSocket.FlagCreate | append).Attribute(1, table).Attribute(2, chain)
            .Nested(4, list => content(new NfExpressions(list)));
    }

    internal static NetlinkMessage ListRules(string table) => Message(7, NetlinkSocket.FlagDump).Attribute(1, table);

    private static NetlinkMessage Message(int type, ushort flags) =>
        new NetlinkMessage((ushort)(Subsystem << 8 | type), (ushort)(NetlinkSocket.FlagRequest | flags)).U8(FamilyInet).U8(0).U16(0);

    private static NetlinkMessage Bracket(ushort type) =>
        new NetlinkMessage(type, NetlinkSocket.FlagRequest).U8(FamilyAny).U8(0).U8(0).U8(Subsystem);
}

/// <summary>What a rule compares, from left to right, and what it does when all of it holds.</summary>
internal sealed class NfExpressions(NetlinkMessage list)
{
    private const uint Verdict = 0;
    private const uint First = 1;
    private const uint Second = 2;

    /// <summary>Packets of this family.</summary>
    internal NfExpressions Family(bool v6) => Meta(15).Equal([v6 ? (byte)10 : (byte)2]);

    /// <summary>Packets of an IP protocol.</summary>
    internal NfExpressions Transport(byte protocol) => Meta(16).Equal([protocol]);

    /// <summary>Packets that leave by a device.</summary>
    internal NfExpressions LeavingBy(string device)
    {
        Span<byte> name = stackalloc byte[16];
        name.Clear();
        Encoding.ASCII.GetBytes(device, name);
        return Meta(7).Equal(name);
    }

    internal NfExpressions From(IpPrefix range) => Address(range, range.Address.IsV6 ? 8u : 12u);

    internal NfExpressions To(IpPrefix range) => Address(range, range.Address.IsV6 ? 24u : 16u);

    internal NfExpressions Return() => Decide(-5, null);

    internal NfExpressions Goto(string chain) => Decide(-4, chain);

    /// <summary>The source becomes an address of the device by which the packet leaves.</summary>
    internal NfExpressions Masquerade() => Expression("masq", _ => { });

    /// <summary>As <see cref="Masquerade()"/>, and the source port becomes one of these; it stays if it is one already, and free.</summary>
    internal NfExpressions Masquerade((ushort First, ushort Last) ports)
    {
        const uint portsGiven = 2;
        return Load(First, ports.First).Load(Second, ports.Last).Expression("masq", masq => masq
            .AttributeBigEndianU32(1, portsGiven).AttributeBigEndianU32(2, First).AttributeBigEndianU32(3, Second));
    }

    private NfExpressions Address(IpPrefix range, uint offset)
    {
        const uint networkHeader = 1;
        var length = (uint)range.Address.Bits / 8;
        var mask = new byte[length];
        for (var bit = 0; bit < range.Length; bit++)
            mask[bit / 8] |= (byte)(0x80 >> bit % 8);
        return Expression("payload", load => load.AttributeBigEndianU32(1, First).AttributeBigEndianU32(2, networkHeader)
                .AttributeBigEndianU32(3, offset).AttributeBigEndianU32(4, length))
            .Expression("bitwise", bitwise => bitwise.AttributeBigEndianU32(1, First).AttributeBigEndianU32(2, First)
                .AttributeBigEndianU32(3, length).Nested(4, value => value.Attribute(1, mask)).Nested(5, value => value.Attribute(1, new byte[length])))
            .Equal(range.Address.ToBytes());
    }

    private NfExpressions Meta(uint key) => Expression("meta", meta => meta.AttributeBigEndianU32(1, First).AttributeBigEndianU32(2, key));

    private NfExpressions Equal(ReadOnlySpan<byte> value)
    {
        const uint equal = 0;
        var bytes = value.ToArray();
        return Expression("cmp", compare => compare.AttributeBigEndianU32(1, First).AttributeBigEndianU32(2, equal)
            .Nested(3, data => data.Attribute(1, bytes)));
    }

    private NfExpressions Load(uint register, ushort value) => Expression("immediate", immediate => immediate
        .AttributeBigEndianU32(1, register).Nested(2, data => data.AttributeBigEndianU16(1, value)));

    private NfExpressions Decide(int code, string? chain) => Expression("immediate", immediate => immediate
        .AttributeBigEndianU32(1, Verdict).Nested(2, data => data.Nested(2, verdict =>
        {
            verdict.AttributeBigEndianU32(1, (uint)code);
            if (chain is not null)
                verdict.Attribute(2, chain);
        })));

    private NfExpressions Expression(string name, Action<NetlinkMessage> content)
    {
        list.Nested(1, expression => expression.Attribute(1, name).Nested(2, content));
        return this;
    }
}
