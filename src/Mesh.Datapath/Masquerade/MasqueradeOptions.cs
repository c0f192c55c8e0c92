using Mesh.Model;

namespace Mesh.Datapath.Masquerade;

/// <summary>Whose packets leave with the node's address.</summary>
public sealed record MasqueradeOptions
{
    public bool IPv4 { get; init; }

    public bool IPv6 { get; init; }

    /// <summary>Destinations that know the way to pods, and see their addresses; null = none.</summary>
    public IpPrefix? NativeRoutingIPv4 { get; init; }

    /// <summary>As <see cref="NativeRoutingIPv4"/>.</summary>
    public IpPrefix? NativeRoutingIPv6 { get; init; }

    public bool IsOn(bool v6) => v6 ? IPv6 : IPv4;

    public IpPrefix? NativeRouting(bool v6) => v6 ? NativeRoutingIPv6 : NativeRoutingIPv4;
}
