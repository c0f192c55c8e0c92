using Mesh.Model;

namespace Mesh.Datapath.Maps;

/// <summary>struct endpoint_key, key of endpoints.</summary>
public struct EndpointKey : IEquatable<EndpointKey>
{
    public MeshAddress Address;
    public byte Family;
    public byte Pad0;
    public byte Pad1;
    public byte Pad2;

    public static EndpointKey From(IpAddr address) => new() { Address = MeshAddress.From(address), Family = Maps.Family.Of(address) };

    public readonly IpAddr? ToIpAddr() => Address.ToIpAddr(Family);

    public readonly bool Equals(EndpointKey other) => Address == other.Address && Family == other.Family;

    public override readonly bool Equals(object? obj) => obj is EndpointKey other && Equals(other);

    public override readonly int GetHashCode() => HashCode.Combine(Address, Family);

    public static bool operator ==(EndpointKey left, EndpointKey right) => left.Equals(right);

    public static bool operator !=(EndpointKey left, EndpointKey right) => !left.Equals(right);
}

/// <summary>struct endpoint, value of endpoints.</summary>
public struct EndpointValue
{
    public uint InterfaceIndex;

    /// <summary>0 = not known yet.</summary>
    public uint Identity;
    public MacAddress Mac;

    /// <summary>Endpoint id; 0 for an address of the node itself.</summary>
    public ushort Id;
    public MacAddress HostMac;
    public EndpointFlags Flags;
}

[Flags]
public enum EndpointFlags : ushort
{
    None = 0,
    Host = 0x01,

    /// <summary>A pod whose word in policy_endpoints is asked.</summary>
    Policy = 0x02,
}
