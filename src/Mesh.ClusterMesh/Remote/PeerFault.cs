using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>What is wrong with a peer. The names, in lower case with hyphens, are part of the API and never change.</summary>
public enum PeerFault
{
    None,
    Settings,
    Dns,
    ConnectionRefused,
    Unreachable,
    TlsUnknownAuthority,
    TlsWrongName,
    CertificateExpired,
    CertificateRefused,
    CertificateUnusable,
    TlsFailed,
    AccessDenied,
    NoQuorum,
    Frozen,
    ConnectionLost,
    ConfigMissing,
    ConfigMalformed,
    WrongClusterId,
    HeartbeatStale,
    DataLost,
    Compacted,
    NotSynced,
    StoreFull,
    StoreAlarm,
    ClockSkew,
    TunnelDown,
    NodeUnreachable,
    MapFull,
    KernelBehind,
    SourceLost,
    Other,
}

public static class PeerFaults
{
    public static string Name(this PeerFault fault) => fault switch
    {
        PeerFault.None => "none",
        PeerFault.Settings => "settings",
        PeerFault.Dns => "dns",
        PeerFault.ConnectionRefused => "connection-refused",
        PeerFault.Unreachable => "unreachable",
        PeerFault.TlsUnknownAuthority => "tls-unknown-authority",
        PeerFault.TlsWrongName => "tls-wrong-name",
        PeerFault.CertificateExpired => "certificate-expired",
        PeerFault.CertificateRefused => "certificate-refused",
        PeerFault.CertificateUnusable => "certificate-unusable",
        PeerFault.TlsFailed => "tls-failed",
        PeerFault.AccessDenied => "access-denied",
        PeerFault.NoQuorum => "no-quorum",
        PeerFault.Frozen => "frozen",
        PeerFault.ConnectionLost => "connection-lost",
        PeerFault.ConfigMissing => "config-missing",
        PeerFault.ConfigMalformed => "config-malformed",
        PeerFault.WrongClusterId => "wrong-cluster-id",
        PeerFault.HeartbeatStale => "heartbeat-stale",
        PeerFault.DataLost => "data-lost",
        PeerFault.Compacted => "compacted",
        PeerFault.NotSynced => "not-synced",
        PeerFault.StoreFull => "store-full",
        PeerFault.StoreAlarm => "store-alarm",
        PeerFault.ClockSkew => "clock-skew",
        PeerFault.TunnelDown => "tunnel-down",
        PeerFault.NodeUnreachable => "node-unreachable",
        PeerFault.MapFull => "map-full",
        PeerFault.KernelBehind => "kernel-behind",
        PeerFault.SourceLost => "source-lost",
        _ => "other",
    };

    /// <summary>What to do about it, for whoever runs the cluster that sees the fault.</summary>
    public static string Mend(this PeerFault fault, string peer) => fault switch
    {
        PeerFault.None => "",
        PeerFault.Settings => $"correct the peer file {peer}",
        PeerFault.Dns => "correct the host name in the peer file, or add it to DNS or to the hosts file of this node",
        PeerFault.ConnectionRefused => $"start the clustermesh-apiserver of {peer}, or correct the port in the peer file",
        PeerFault.Unreachable => $"open the TCP port between this node and the API server of {peer}: a firewall or a missing route drops it",
        PeerFault.TlsUnknownAuthority => $"put the CA of {peer} into the trusted-ca-file of its peer file",
        PeerFault.TlsWrongName => $"name {peer} in the peer file as its certificate does, or have it issue one with this name (mesh ca issue)",
        PeerFault.CertificateExpired => "issue new certificates on the side that the text names (mesh ca issue, mesh ca show)",
        PeerFault.CertificateRefused => $"have {peer} trust the CA of our client certificate, and not revoke it: see its door's log",
        PeerFault.CertificateUnusable => "correct the file that the text names; it is read again at the next attempt",
        PeerFault.TlsFailed => $"see that the port in the peer file is that of the API server of {peer}, which speaks TLS 1.2 or later",
        PeerFault.AccessDenied => $"have {peer} grant our user: its users file, or the CN of our client certificate",
        PeerFault.NoQuorum => $"bring the etcd members of {peer} back: most of them are away",
        PeerFault.Frozen => $"look at the API server of {peer}: its process stands still, or the network swallows what it says",
        PeerFault.ConnectionLost => $"see the log of the API server of {peer}; it is connected to again by itself",
        PeerFault.ConfigMissing => $"name the peer file as the cluster calls itself, and see that the API server of {peer} is ready",
        PeerFault.ConfigMalformed => $"see what wrote cilium/cluster-config/{peer}: it is not a cluster-config",
        PeerFault.WrongClusterId => $"give {peer} a cluster ID that is free and within the mesh's limit",
        PeerFault.HeartbeatStale => $"see that the API server of {peer} runs and can write to its etcd",
        PeerFault.DataLost => $"wait until {peer} has written its state again; what is known of it stays in use",
        PeerFault.Compacted => "nothing, once; when it goes on, the peer compacts its etcd faster than we can read it",
        PeerFault.NotSynced => $"see that the API server of {peer} is ready: it has not published all resources yet",
        PeerFault.StoreFull => $"give the etcd of {peer} room: compact, defragment, disarm the alarm",
        PeerFault.StoreAlarm => $"see the etcd of {peer}: it complains of itself",
        PeerFault.ClockSkew => $"set the clocks: run NTP here and in {peer}",
        PeerFault.TunnelDown => $"open UDP 8472 between our nodes and those of {peer}, both ways",
        PeerFault.NodeUnreachable => "look at that node: its agent, its underlay address, UDP 8472 to it",
        PeerFault.MapFull => "fewer entries, or larger maps: see `mesh status` for which table is full",
        PeerFault.SourceLost => $"run `mesh clustermesh troubleshoot {peer}` with the relay's peer files, where the relay runs; its copy stays in use",
        PeerFault.KernelBehind => "see `mesh status` for the rows that the kernel refused",
        _ => $"run `mesh clustermesh troubleshoot {peer}`",
    };

    /// <summary>The fault of this name; null when there is none, and for "none".</summary>
    public static PeerFault? OfName(string name)
    {
        foreach (var fault in Enum.GetValues<PeerFault>())
        {
            if (fault != PeerFault.None && fault.Name() == name)
                return fault;
        }
        return null;
    }

    public static PeerFault Of(StoreFault fault) => fault switch
    {
        StoreFault.None => PeerFault.None,
        StoreFault.Dns => PeerFault.Dns,
        StoreFault.Refused => PeerFault.ConnectionRefused,
        StoreFault.Unreachable => PeerFault.Unreachable,
        StoreFault.UnknownAuthority => PeerFault.TlsUnknownAuthority,
        StoreFault.WrongServerName => PeerFault.TlsWrongName,
        StoreFault.CertificateExpired => PeerFault.CertificateExpired,
        StoreFault.CertificateNotYetValid => PeerFault.ClockSkew,
        StoreFault.CertificateRefused => PeerFault.CertificateRefused,
        StoreFault.CertificateUnusable => PeerFault.CertificateUnusable,
        StoreFault.TlsFailed => PeerFault.TlsFailed,
        StoreFault.AccessDenied => PeerFault.AccessDenied,
        StoreFault.NoQuorum => PeerFault.NoQuorum,
        StoreFault.NoSpace => PeerFault.StoreFull,
        StoreFault.Frozen => PeerFault.Frozen,
        StoreFault.Broken => PeerFault.ConnectionLost,
        _ => PeerFault.Other,
    };
}
