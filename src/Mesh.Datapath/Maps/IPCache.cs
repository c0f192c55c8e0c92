using Mesh.Model;

namespace Mesh.Datapath.Maps;

/// <summary>struct ipcache4_key, key of ipcache4.</summary>
public struct IPCache4Key
{
    public BigEndianUInt32 Address;
    public ushort ClusterId;
    public ushort Pad;

    public static IPCache4Key From(IpAddr address) => new() { Address = BigEndianUInt32.FromHost((uint)address.Value) };

    public readonly IpPrefix ToPrefix() => IpPrefix.Host(IpAddr.V4(Address.Host));
}

/// <summary>struct ipcache6_key, key of ipcache6.</summary>
public struct IPCache6Key
{
    public MeshAddress Address;
    public ushort ClusterId;
    public ushort Pad;

    public static IPCache6Key From(IpAddr address) => new() { Address = MeshAddress.From(address) };

    public readonly IpPrefix ToPrefix() => IpPrefix.Host(Address.ToIpAddr(Family.IPv6)!.Value);
}

/// <summary>struct ipcache4_prefix_key, key of ipcache4_prefixes.</summary>
public struct IPCache4PrefixKey
{
    /// <summary>Bits before the address: cluster and padding, always matched whole.</summary>
    public const int StaticBits = 32;

    /// <summary>Counts the static bits too.</summary>
    public uint PrefixLength;
    public ushort ClusterId;
    public ushort Pad;
    public BigEndianUInt32 Address;

    public static IPCache4PrefixKey From(IpPrefix prefix) => new()
    {
        PrefixLength = (uint)prefix.Length + StaticBits,
        Address = BigEndianUInt32.FromHost((uint)prefix.Address.Value),
    };

    public readonly IpPrefix ToPrefix() => new(IpAddr.V4(Address.Host), (int)PrefixLength - StaticBits);
}

/// <summary>struct ipcache6_prefix_key, key of ipcache6_prefixes.</summary>
public struct IPCache6PrefixKey
{
    public uint PrefixLength;
    public ushort ClusterId;
    public ushort Pad;
    public MeshAddress Address;

    public static IPCache6PrefixKey From(IpPrefix prefix) => new()
    {
        PrefixLength = (uint)prefix.Length + IPCache4PrefixKey.StaticBits,
        Address = MeshAddress.From(prefix.Address),
    };

    public readonly IpPrefix ToPrefix() => new(Address.ToIpAddr(Family.IPv6)!.Value, (int)PrefixLength - IPCache4PrefixKey.StaticBits);
}

/// <summary>struct ipcache_value, value of the four ipcache maps.</summary>
public struct IPCacheValue
{
    public uint Identity;

    /// <summary>Index into nodes; 0 = no tunnel.</summary>
    public uint Node;
}
