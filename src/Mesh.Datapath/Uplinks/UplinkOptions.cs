using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;

namespace Mesh.Datapath.Uplinks;

/// <summary>How the node takes in packets from outside, and how it speaks with other nodes.</summary>
public sealed record UplinkOptions
{
    /// <summary>Devices by which clients outside come in; empty = the one with the underlay address.</summary>
    public IReadOnlyList<string> Devices { get; init; } = [];

    /// <summary>For services that do not say otherwise; a service that asks for DSR has it in either case.</summary>
    public ForwardingMode Forwarding { get; init; } = ForwardingMode.Snat;

    /// <summary>For services that do not say otherwise; one that asks for chance has it in either case.</summary>
    public BackendAlgorithm Algorithm { get; init; } = BackendAlgorithm.Maglev;

    public Acceleration Acceleration { get; init; } = Acceleration.Disabled;

    /// <summary>Our programs write and remove VXLAN headers where they can; otherwise the device does it always.</summary>
    public bool BuiltHeaders { get; init; } = true;

    /// <summary>This node's addresses on the underlay, at most one of each family: the source towards backends with a node's own
    /// address. The underlay address counts as one of them.</summary>
    public IReadOnlyList<IpAddr> NodeAddresses { get; init; } = [];

    /// <summary>The row with what it does not say itself. Services for inside only know neither.</summary>
    internal Frontend Complete(Frontend row) => row.Type == ServiceType.ClusterIP
        ? row
        : row with
        {
            Forwarding = row.Forwarding == ForwardingMode.Snat ? Forwarding : row.Forwarding,
            Algorithm = row.Algorithm == BackendAlgorithm.Maglev ? Algorithm : row.Algorithm,
        };
}

/// <summary>Where the load balancer for outside runs.</summary>
public enum Acceleration
{
    /// <summary>At tc.</summary>
    Disabled,

    /// <summary>In native XDP, and at tc for what XDP leaves or where the driver has no XDP.</summary>
    Native,

    /// <summary>The same, of one who has not asked for it: where native XDP does not hold, the status says why.</summary>
    BestEffort,
}

/// <summary>One device, as its programs are attached.</summary>
/// <param name="Hooks">"tcx", "tcx+xdp", "clsact" or "clsact+xdp".</param>
/// <param name="Problem">Why native XDP, which was asked for or may be there, is not; null when nothing is wrong.</param>
public sealed record UplinkStatus(string Device, string Hooks, string? Problem);
