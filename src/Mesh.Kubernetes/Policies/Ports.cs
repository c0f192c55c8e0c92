using System.Globalization;
using System.Text.Json;

namespace Mesh.Kubernetes.Policies;

/// <summary>Ports and ICMP types of rules.</summary>
internal static class Ports
{
    private static readonly byte[] Transports = [6, 17, 132];

    /// <param name="byDefault">Protocol where none is named.</param>
    public static IEnumerable<PortSpec> Read(Fields port, string byDefault)
    {
        var protocols = Protocols(port, byDefault);
        var first = 0;
        var last = (int)ushort.MaxValue;
        if (port.Get("port") is { } value && Fields.NumberOf(value) is not 0)
        {
            if (Fields.NumberOf(value) is not { } number)
            {
                var name = value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();
                if (!IsName(name))
                    throw new PolicyFaultException($"{port.At("port")} '{Fields.Shown(name)}' must be 1 to 65535, or the name of a container's port: "
                        + "at most 15 letters, digits and '-', one of them a letter");
                if (port.Get("endPort") is { } behind && Fields.NumberOf(behind) is not 0)
                    throw new PolicyFaultException($"{port.At("endPort")} needs a number to begin with, not the name '{Fields.Shown(name)}'");
                return protocols.Select(protocol => new PortSpec(protocol, 0, 0, name));
            }
            first = last = Checked(port.At("port"), number, 1);
            if (port.Get("endPort") is { } end)
                last = Fields.NumberOf(end) is not { } to ? throw new PolicyFaultException($"{port.At("endPort")} must be a number")
                    : to == 0 ? first : Checked(port.At("endPort"), to, first);
        }
        else if (port.Get("endPort") is { } lonely && Fields.NumberOf(lonely) is not 0)
        {
            throw new PolicyFaultException($"{port.At("endPort")} needs a port to begin with");
        }
        return protocols.Select(protocol => new PortSpec(protocol, (ushort)first, (ushort)last));
    }

    /// <summary>icmps[].fields[].</summary>
    public static PortSpec ReadIcmp(Fields field)
    {
        field.Only("family", "type");
        var v6 = field.Text("family") switch
        {
            null or "IPv4" => false,
            "IPv6" => true,
            { } other => throw new PolicyFaultException($"{field.At("family")} '{Fields.Shown(other)}' must be IPv4 or IPv6"),
        };
        if (field.Get("type") is not { } value)
            throw new PolicyFaultException($"{field.At("type")} is missing: give it a number or a name such as EchoRequest");
        var type = Fields.NumberOf(value)
            ?? (value.ValueKind == JsonValueKind.String && IcmpTypes.Number(value.GetString()!, v6) is { } known ? known : -1);
        if (type is < 0 or > byte.MaxValue)
            throw new PolicyFaultException($"{field.At("type")} '{Fields.Shown(value.ToString())}' must be 0 to 255, or a name such as EchoRequest");
        return new PortSpec(v6 ? PortSpec.IcmpV6 : PortSpec.Icmp, (ushort)type, (ushort)type);
    }

    /// <summary>As Kubernetes has names of ports (RFC 6335), in capitals too.</summary>
    private static bool IsName(string name) => name.Length is > 0 and <= 15 && name.Any(char.IsAsciiLetter)
        && name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter == '-');

    private static byte[] Protocols(Fields port, string byDefault) => (port.Text("protocol") ?? byDefault).ToUpperInvariant() switch
    {
        "" or "ANY" => Transports,
        "TCP" => [6],
        "UDP" => [17],
        "SCTP" => [132],
        "ICMP" => [PortSpec.Icmp],
        "ICMPV6" => [PortSpec.IcmpV6],
        _ => throw new PolicyFaultException($"{port.At("protocol")} '{Fields.Shown(port.Text("protocol")!)}' must be TCP, UDP, SCTP, ICMP, ICMPv6 or ANY"),
    };

    private static int Checked(string path, int number, int lowest) => number >= lowest && number <= ushort.MaxValue
        ? number
        : throw new PolicyFaultException(string.Create(CultureInfo.InvariantCulture, $"{path} {number} must be {lowest} to 65535"));
}

/// <summary>Names of ICMP messages, as Cilium has them.</summary>
internal static class IcmpTypes
{
    private static readonly Dictionary<string, int> V4 = new(StringComparer.Ordinal)
    {
        ["EchoReply"] = 0,
        ["DestinationUnreachable"] = 3,
        ["Redirect"] = 5,
        ["EchoRequest"] = 8,
        ["Echo"] = 8,
        ["RouterAdvertisement"] = 9,
        ["RouterSelection"] = 10,
        ["TimeExceeded"] = 11,
        ["ParameterProblem"] = 12,
        ["Timestamp"] = 13,
        ["TimestampReply"] = 14,
        ["Photuris"] = 40,
        ["ExtendedEchoRequest"] = 42,
        ["ExtendedEchoReply"] = 43,
    };

    private static readonly Dictionary<string, int> V6 = new(StringComparer.Ordinal)
    {
        ["DestinationUnreachable"] = 1,
        ["PacketTooBig"] = 2,
        ["TimeExceeded"] = 3,
        ["ParameterProblem"] = 4,
        ["EchoRequest"] = 128,
        ["EchoReply"] = 129,
        ["MulticastListenerQuery"] = 130,
        ["MulticastListenerReport"] = 131,
        ["MulticastListenerDone"] = 132,
        ["RouterSolicitation"] = 133,
        ["RouterAdvertisement"] = 134,
        ["NeighborSolicitation"] = 135,
        ["NeighborAdvertisement"] = 136,
        ["RedirectMessage"] = 137,
    };

    public static int? Number(string name, bool v6) => (v6 ? V6 : V4).TryGetValue(name, out var number) ? number : null;
}
