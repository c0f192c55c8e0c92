using Mesh.Datapath.Devices;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Uplinks;

/// <summary>
/// The node's devices to the world: finds them, tells the programs about them, and attaches what runs there. tc is always attached,
/// because XDP leaves to it what it does not do itself; XDP only where it is wanted, the driver has it and frames that it sends arrive. What is attached stays
/// when we stop, and goes when it is no longer asked for.
/// </summary>
internal sealed class Uplink
{
    private const string IngressPrefix = "uplink_in_";
    private const string EgressPrefix = "uplink_out_";
    private const string XdpPrefix = "xdp_";

    /// <summary>Ports below this belong to services of the system.</summary>
    private const int LowestPort = 1024;

    private readonly UplinkOptions _options;
    private readonly IReadOnlyList<LinkInfo> _devices;
    private readonly LinkInfo? _underlay;

    /// <exception cref="DatapathException">A device that was asked for is not there.</exception>
    internal Uplink(UplinkOptions options, Rtnetlink netlink, IpAddr underlay)
    {
        _options = options;
        var index = netlink.Addresses().Where(address => address.Address == underlay).Select(address => address.InterfaceIndex).FirstOrDefault();
        _underlay = index > 0 && netlink.Link(index) is { } link && IsEthernet(link) ? link : null;
        _devices = options.Devices.Count == 0
            ? _underlay is null ? [] : [_underlay]
            : [.. options.Devices.Select(name => netlink.Link(name)
                ?? throw new DatapathException($"no device {name}: name one that clients come in by, or none for the one with {underlay}"))];
    }

    /// <summary>Adds what the programs must know of the uplink.</summary>
    internal NodeConfig Describe(NodeConfig config, DatapathOptions options)
    {
        var (low, high) = Sysctl.LocalPorts();
        var below = low - LowestPort > 65535 - high;
        IpAddr[] own = [options.UnderlayAddress, .. _options.NodeAddresses];
        config.TunnelPort = options.TunnelPort;
        config.Flags |= (_options.BuiltHeaders ? NodeConfigFlags.BuiltHeaders : NodeConfigFlags.None)
            | (_devices.Any(IsVeth) ? NodeConfigFlags.SendByRedirect : NodeConfigFlags.None);
        config.UplinkInterface = (uint)(_underlay?.Index ?? 0);
        config.UplinkMac = _underlay?.Mac ?? default;
        config.Underlay = MeshAddress.From(options.UnderlayAddress);
        config.Gateway4 = Of4(options.GatewayAddresses);
        config.Gateway6 = Of6(options.GatewayAddresses);
        config.Direct4 = Of4(own);
        config.Direct6 = Of6(own);
        config.NatPortMin = (ushort)(below ? LowestPort : high + 1);
        config.NatPortMax = (ushort)(below ? low - 1 : 65535);
        config.SourcePortMin = (ushort)low;
        config.SourcePortMax = (ushort)high;
        return config;
    }

    /// <summary>Attaches, and takes away what an earlier start attached and nobody asks for any more.</summary>
    internal IReadOnlyList<UplinkStatus> Attach(Attachments attachments, DatapathObjects objects)
    {
        var wanted = new HashSet<string>();
        var status = new List<UplinkStatus>();
        foreach (var device in _devices)
        {
            attachments.ToInterface(Keep(IngressPrefix + device.Name), objects.UplinkIn, device.Index);
            attachments.ToEgress(Keep(EgressPrefix + device.Name), objects.UplinkOut, device.Index);
        }
        foreach (var device in _devices)
        {
            var wants = _options.Acceleration != Acceleration.Disabled;
            var problem = wants ? WhyNot(device) ?? attachments.TryToXdp(XdpPrefix + device.Name, objects.XdpLb, device.Index) : null;
            var accelerated = wants && problem is null;
            if (accelerated)
                Keep(XdpPrefix + device.Name);
            status.Add(new UplinkStatus(device.Name, attachments.Kind + (accelerated ? "+xdp" : ""), problem));
        }
        foreach (var leftover in attachments.Names.Where(name => IsOurs(name) && !wanted.Contains(name)).ToList())
            attachments.Remove(leftover);
        return status;

        string Keep(string name)
        {
            wanted.Add(name);
            return name;
        }
    }

    /// <summary>Why frames that XDP sends out of the device would be lost; null when nothing speaks against it. A veth hands them over only
    /// to an end that polls a queue, which an end has that does GRO or runs XDP itself.</summary>
    private static string? WhyNot(LinkInfo device)
    {
        if (!IsVeth(device) || XdpFeatureQuery.Of(device.Index) is not { } features || (features & XdpFeatures.Transmit) != 0)
            return null;
        return "the other end of this veth takes no frames from XDP: turn GRO on there (ethtool -K DEVICE gro on)";
    }

    private static bool IsVeth(LinkInfo device) => device.Kind == "veth";

    private static bool IsOurs(string link) => link.StartsWith(IngressPrefix, StringComparison.Ordinal)
        || link.StartsWith(EgressPrefix, StringComparison.Ordinal) || link.StartsWith(XdpPrefix, StringComparison.Ordinal);

    private static bool IsEthernet(LinkInfo link) => link.Mac.Value != 0;

    private static BigEndianUInt32 Of4(IEnumerable<IpAddr> addresses) =>
        BigEndianUInt32.FromHost((uint)addresses.Where(address => !address.IsV6).Select(address => address.Value).FirstOrDefault());

    private static MeshAddress Of6(IEnumerable<IpAddr> addresses) =>
        addresses.Where(address => address.IsV6).Select(MeshAddress.From).FirstOrDefault();
}
