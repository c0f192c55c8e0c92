namespace Mesh.Model;

/// <summary>Transport protocols, numbered as in the IP header.</summary>
public enum L4Protocol : byte
{
    None = 0,
    TCP = 6,
    UDP = 17,
    SCTP = 132,
}

public static class L4Protocols
{
    /// <summary>Exact upper-case names, as on the wire; anything else is not a protocol we can serve.</summary>
    public static L4Protocol Parse(string? name) => name switch
    {
        "TCP" => L4Protocol.TCP,
        "UDP" => L4Protocol.UDP,
        "SCTP" => L4Protocol.SCTP,
        _ => L4Protocol.None,
    };
}

/// <summary>An address with port and protocol: what a frontend listens on and what a backend answers on.</summary>
/// <param name="Address">IPv4 or IPv6.</param>
/// <param name="Port">1 to 65535, host byte order.</param>
/// <param name="Protocol">Never <see cref="L4Protocol.None"/> in a table row.</param>
public readonly record struct L3n4Addr(IpAddr Address, ushort Port, L4Protocol Protocol) : IComparable<L3n4Addr>
{
    /// <summary>10.0.0.1:80/TCP, [fd00::1]:80/TCP.</summary>
    public override string ToString() => $"{HostPort}/{Protocol}";

    /// <summary>10.0.0.1:80 or [fd00::1]:80.</summary>
    public string HostPort => Address.IsV6 ? $"[{Address}]:{Port}" : $"{Address}:{Port}";

    public int CompareTo(L3n4Addr other)
    {
        var byAddress = Address.CompareTo(other.Address);
        if (byAddress != 0)
            return byAddress;
        var byPort = Port.CompareTo(other.Port);
        return byPort != 0 ? byPort : Protocol.CompareTo(other.Protocol);
    }

    public static bool operator <(L3n4Addr left, L3n4Addr right) => left.CompareTo(right) < 0;

    public static bool operator >(L3n4Addr left, L3n4Addr right) => left.CompareTo(right) > 0;

    public static bool operator <=(L3n4Addr left, L3n4Addr right) => left.CompareTo(right) <= 0;

    public static bool operator >=(L3n4Addr left, L3n4Addr right) => left.CompareTo(right) >= 0;
}

/// <summary>Which clusters' backends a global service prefers; local to the consuming cluster, never on the wire.</summary>
public enum ServiceAffinity
{
    None,
    Local,
    Remote,
}
