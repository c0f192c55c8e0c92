using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Mesh.Datapath.Devices;
using Mesh.Model;
using Mesh.Netlink;

namespace Mesh.Datapath.Masquerade;

/// <summary>
/// Packets of this node's pods that leave the mesh get the node's address, since the world knows no way to pods. The kernel's own
/// connection tracking does it, for every protocol, for fragments and for ICMP errors; ours is one table, `nft list table inet mesh`:
///
///   postrouting ── from a pod range of this node ──→ pods4 / pods6: not into the mesh (mesh_host), not to groups,
///                                                    not to what knows the way to pods; all else is masqueraded
///
/// Packets between pods, into the tunnel, and answers to clients of services never come this way: BPF programs send them themselves.
/// Written in one transaction, so no packet meets half of it; a table that says it is what we want is left alone. It stays when the
/// agent goes. Bound to the network namespace of the thread that makes it.
/// </summary>
public sealed class MasqueradeTable : IDisposable
{
    internal const string Name = "mesh";

    private const byte Tcp = 6;
    private const byte Udp = 17;
    private const int NotPermitted = 1;
    private const int NoSuchThing = 2;
    private const int NotSupported = 95;

    /// <summary>Groups. Not 169.254.0.0/16: what answers there, a cloud's metadata first of all, answers nodes alone; Cilium masquerades it too.</summary>
    private static readonly IpPrefix[] Near4 = [IpPrefix.Parse("224.0.0.0/4")];

    /// <summary>The node's own link, which pods are not on, and groups.</summary>
    private static readonly IpPrefix[] Near6 = [IpPrefix.Parse("fe80::/10"), IpPrefix.Parse("ff00::/8")];

    private readonly MasqueradeOptions _options;
    private readonly (ushort First, ushort Last) _nodePorts;
    private readonly NetlinkSocket _socket;
    private readonly string _name;

    /// <param name="nodePorts">Ports at which the node answers for services: answers to pods never come to these.</param>
    /// <exception cref="DatapathException">The kernel gives no socket.</exception>
    public MasqueradeTable(MasqueradeOptions options, (ushort First, ushort Last) nodePorts)
        : this(options, nodePorts, Name)
    {
    }

    private MasqueradeTable(MasqueradeOptions options, (ushort First, ushort Last) nodePorts, string name)
    {
        _name = name;
        _options = options;
        _nodePorts = nodePorts;
        _socket = Open();
    }

    /// <summary>Makes the table what it should be: written where it differs, gone when nothing is to be masqueraded.</summary>
    /// <param name="podRanges">Of this node.</param>
    /// <returns>True when something was written or removed.</returns>
    /// <exception cref="DatapathException">The kernel refused; says what it lacks.</exception>
    public bool Apply(IEnumerable<IpPrefix> podRanges)
    {
        var ranges = podRanges.Where(range => _options.IsOn(range.Address.IsV6) && (!range.Address.IsV6 || Sysctl.HasIPv6)).Distinct().Order().ToList();
        if (ranges.Count == 0)
            return Remove(_socket);
        var content = Content(ranges);
        var comment = $"mesh-agent {Digest(content)}";
        if (Comment() == comment && Rules() == content.Rules)
            return false;
        List<NetlinkMessage> batch =
        [
            NfTables.Begin(), NfTables.AddTable(_name, comment), NfTables.DeleteTable(_name), NfTables.AddTable(_name, comment), .. content.Messages,
            NfTables.End(),
        ];
        var error = _socket.TryBatch(batch, out var words);
        return error == 0 ? true : throw Refused($"masquerade {string.Join(", ", ranges)}", error, words);
    }

    /// <summary>Takes the table away, if it is there.</summary>
    /// <returns>True when it was there.</returns>
    /// <exception cref="DatapathException">The kernel refused.</exception>
    public static bool Remove()
    {
        using var socket = Open();
        return Remove(socket);
    }

    /// <summary>Rules of both families in a table of another name that is gone when the transaction ends: the kernel judges them, loads what it
    /// needs for them, and shows them to no packet.</summary>
    /// <exception cref="DatapathException">The kernel refused; says what it lacks.</exception>
    internal static void Try()
    {
        const string name = Name + "-preflight";
        using var table = new MasqueradeTable(new MasqueradeOptions { IPv4 = true, IPv6 = true }, default, name);
        var content = table.Content([.. new[] { Near4[0], Near6[0] }.Where(range => !range.Address.IsV6 || Sysctl.HasIPv6)]);
        List<NetlinkMessage> batch =
        [
            NfTables.Begin(), NfTables.AddTable(name, Name), .. content.Messages, NfTables.DeleteTable(name, acknowledged: true), NfTables.End(),
        ];
        var error = table._socket.TryBatch(batch, out var words);
        if (error != 0)
            throw Refused("masquerade", error, words);
    }

    public void Dispose() => _socket.Dispose();

    /// <summary>Ports that the stack hands out, less those of services; the larger part where these lie between.</summary>
    internal static (ushort First, ushort Last) Ports((int Low, int High) local, (ushort First, ushort Last) services)
    {
        if (services.Last < local.Low || services.First > local.High)
            return ((ushort)local.Low, (ushort)local.High);
        var below = services.First - local.Low;
        var above = local.High - services.Last;
        return below <= 0 && above <= 0 ? ((ushort)local.Low, (ushort)local.High)
            : below > above ? ((ushort)local.Low, (ushort)(services.First - 1)) : ((ushort)(services.Last + 1), (ushort)local.High);
    }

    private (List<NetlinkMessage> Messages, int Rules) Content(List<IpPrefix> ranges)
    {
        var messages = new List<NetlinkMessage>();
        var ports = Ports(Sysctl.LocalPorts(), _nodePorts);
        var rules = 0;
        foreach (var v6 in ranges.Select(range => range.Address.IsV6).Distinct())
        {
            var chain = Chain(v6);
            messages.Add(NfTables.AddChain(_name, chain));
            Rule(chain, rule => rule.LeavingBy(NodeDevices.HostName).Return());
            foreach (var near in v6 ? Near6 : Near4)
                Rule(chain, rule => rule.To(near).Return());
            if (_options.NativeRouting(v6) is { } native)
                Rule(chain, rule => rule.To(native).Return());
            Rule(chain, rule => rule.Transport(Tcp).Masquerade(ports));
            Rule(chain, rule => rule.Transport(Udp).Masquerade(ports));
            Rule(chain, rule => rule.Masquerade());
        }
        const string leaving = "postrouting";
        messages.Add(NfTables.AddPostrouting(_name, leaving));
        foreach (var range in ranges)
            Rule(leaving, rule => rule.Family(range.Address.IsV6).From(range).Goto(Chain(range.Address.IsV6)));
        return (messages, rules);

        void Rule(string chain, Func<NfExpressions, NfExpressions> content)
        {
            rules++;
            messages.Add(NfTables.AddRule(_name, chain, content));
        }
    }

    private static string Chain(bool v6) => v6 ? "pods6" : "pods4";

    private static string Digest((List<NetlinkMessage> Messages, int Rules) content)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        foreach (var message in content.Messages)
            hash.AppendData(message.Finish(0));
        return Convert.ToHexStringLower(hash.GetHashAndReset().AsSpan(0, 8));
    }

    private string? Comment()
    {
        string? comment = null;
        _ = _socket.TryRequest(NfTables.GetTable(_name), out _, (_, payload) => comment = NfTables.CommentOf(payload));
        return comment;
    }

    private int Rules()
    {
        var count = 0;
        _ = _socket.TryRequest(NfTables.ListRules(_name), out _, (_, _) => count++);
        return count;
    }

    private static bool Remove(NetlinkSocket socket)
    {
        var error = socket.TryBatch([NfTables.Begin(), NfTables.DeleteTable(Name, acknowledged: true), NfTables.End()], out var words);
        return error is 0 or NoSuchThing or NotSupported ? error == 0 : throw Refused($"remove the table inet {Name}", error, words);
    }

    private static DatapathException Refused(string what, int error, string words)
    {
        var mend = error switch
        {
            NoSuchThing or NotSupported => ": the kernel lacks a part of nf_tables: load nf_tables, nft_chain_nat and nft_masq "
                + "(CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ), or switch masquerading off",
            NotPermitted => $": the agent needs CAP_NET_ADMIN, and no other program may own the table inet {Name}",
            _ => "",
        };
        var detail = words.Length == 0 ? "" : $" [{words}]";
        return new DatapathException($"cannot {what}{detail}: {Marshal.GetPInvokeErrorMessage(error)} ({error}){mend}");
    }

    private static NetlinkSocket Open()
    {
        try
        {
            return new NetlinkSocket(NfTables.Protocol);
        }
        catch (NetlinkException e)
        {
            throw new DatapathException($"masquerading: {e.Message}: the kernel needs netfilter (CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES)", e);
        }
    }
}
