namespace Mesh.Datapath.Maps;

/// <summary>enum drop_reason. Names are what metrics and the CLI print, in lower case.</summary>
public enum DropReason
{
    Forwarded = 0,
    InvalidPacket = 1,
    InvalidSource = 2,
    NoServiceBackend = 3,
    NoTunnel = 4,
    NodeDown = 5,
    NoEndpoint = 6,
    NoTunnelKey = 7,
    Encapsulation = 8,
    Fragment = 9,
    Translation = 10,
    Conntrack = 11,
    Ttl = 12,
    TooBig = 13,
    Hairpin = 14,
    FragmentOverlap = 15,
    SctpPort = 16,
    PortCollision = 17,
    IcmpError = 18,
    UnknownSender = 30,
    ForeignIdentity = 31,
    ForeignSource = 32,
    NotInSourceRange = 33,
    NatNoPort = 34,
    NatNotStored = 35,
    NoRoute = 36,
    DsrNotApplied = 37,
    TunnelHeader = 38,
    CongestionMark = 39,
    PolicyDenied = 45,
    PolicyDeniedByDenylist = 46,
    PolicyUndecided = 47,
    PolicyFragment = 48,

    /// <summary>No drop: counted beside what became of the packet, which passed in audit mode.</summary>
    PolicyAudited = 49,
}

public enum TrafficDirection
{
    /// <summary>From a pod or the host.</summary>
    Egress = 0,

    /// <summary>From the tunnel, or from outside.</summary>
    Ingress = 1,
}

/// <summary>struct counter, value of counters (per CPU).</summary>
public struct CounterValue
{
    public ulong Packets;
    public ulong Bytes;
}
