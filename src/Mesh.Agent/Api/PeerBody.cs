using Mesh.AgentApi;
using Mesh.ClusterMesh.Remote;

namespace Mesh.Agent.Api;

/// <summary>The evidence behind each peer's state, and the list of everything that is wrong.</summary>
internal static class PeerBody
{
    public static PeerStatus Of(RemoteClusterStatus peer, AgentView view)
    {
        var health = peer.Health;
        var (probed, silent) = view.Liveness?.Of(peer.Name) ?? (0, []);
        var (fault, cause) = Weigh(health, probed, silent);
        return new PeerStatus
        {
            Name = peer.Name,
            Healthy = fault == PeerFault.None,
            Fault = fault.Name(),
            Cause = fault == PeerFault.None ? null : cause ?? peer.Status,
            Mend = fault == PeerFault.None ? null : Mend(fault, peer, atRelay: health?.AtRelay == true && fault == health.Fault),
            Endpoint = health?.Endpoint,
            Server = health?.Endpoint is null ? null : peer.Cached ? "relay" : health.IsDoor ? "door" : "etcd",
            ProofAge = Seconds(health?.ProofAge),
            Reconnections = peer.Failures,
            LastReconnection = health?.LastReconnection,
            ClockSkew = health?.ClockSkew is { } skew ? Math.Round(skew.TotalSeconds, 1) : null,
            Resources = health is null ? null : [.. health.Resources.Select(Resource)],
            Audits = health?.Audits ?? 0,
            AuditRepairs = health?.Repairs ?? 0,
            Certificates = health?.Tls is { } tls ? Certificates(tls, DateTimeOffset.UtcNow) : null,
            Pinned = peer.Pinned,
            Refused = peer.Rejected,
            Quarantined = peer.Quarantined,
            Held = peer.Held,
            HeldReason = peer.HeldText,
            NodesProbed = probed,
            NodesSilent = silent.Count == 0 ? null : silent,
        };
    }

    /// <summary>What is wrong, each peer's fault and then the node's own.</summary>
    public static IEnumerable<MeshFault> Faults(
        IEnumerable<RemoteClusterStatus> peers, IEnumerable<PeerStatus> evidence, IEnumerable<TableStatus> tables) =>
        evidence.Where(peer => !peer.Healthy).Select(peer => new MeshFault
        {
            Class = peer.Fault,
            Peer = peer.Name,
            Cause = peer.Cause ?? "",
            Mend = peer.Mend ?? "",
        }).Concat(peers.SelectMany(Alarms)).Concat(tables.SelectMany(Faults));

    /// <summary>What does not break the connection and must be mended all the same.</summary>
    public static IReadOnlyList<string> Problems(RemoteClusterStatus peer) =>
        [.. new[] { peer.ImportsProblem, peer.Tls?.Problem, peer.CertificateExpiry }.OfType<string>()];

    private static IEnumerable<MeshFault> Alarms(RemoteClusterStatus peer)
    {
        // A peer that is down because of it says so already.
        if (peer is { ImportsProblem: { } imports, Health: not null })
            yield return Alarm(PeerFault.Settings, imports, $"put {peer.Name}.imports.json right: it is read again at once");
        if (peer is { Tls.Problem: { } certificate, Health.Fault: not (PeerFault.CertificateUnusable or PeerFault.CertificateExpired) })
            yield return Alarm(PeerFault.CertificateUnusable, certificate, PeerFault.CertificateUnusable.Mend(peer.Name));

        MeshFault Alarm(PeerFault fault, string cause, string mend) =>
            new() { Class = fault.Name(), Peer = peer.Name, Cause = cause, Mend = mend };
    }

    private static string Mend(PeerFault fault, RemoteClusterStatus peer, bool atRelay) =>
        atRelay && fault != PeerFault.SourceLost ? $"where our relay runs: {fault.Mend(peer.Name)}" : fault.Mend(peer.Name);

    /// <summary>The connection first: without it, what the tunnel does is another matter.</summary>
    private static (PeerFault Fault, string? Cause) Weigh(PeerHealth? health, int probed, IReadOnlyList<string> silent)
    {
        if (health is null)
            return (PeerFault.Settings, null);
        if (health.Fault != PeerFault.None || silent.Count == 0)
            return (health.Fault, health.Cause);
        return silent.Count == probed
            ? (PeerFault.TunnelDown, $"no answer through the tunnel from any of its nodes: {string.Join(", ", silent.Take(5))}")
            : (PeerFault.NodeUnreachable, $"no answer through the tunnel from {silent.Count} of {probed} nodes: {string.Join(", ", silent.Take(5))}");
    }

    private static IEnumerable<MeshFault> Faults(TableStatus table)
    {
        foreach (var map in table.Full ?? [])
            yield return new MeshFault
            {
                Class = PeerFault.MapFull.Name(),
                Cause = $"{map.Error}; {map.Waiting} of {table.Rows} rows of {table.Name} wait for room",
                Mend = map.Map is "ipcache4" or "ipcache6"
                    ? "fewer entries, or start mesh-agent with a larger --bpf-ipcache-map-max"
                    : PeerFault.MapFull.Mend(""),
            };
        var others = table.Failing - (table.Full ?? []).Sum(map => map.Waiting);
        if (others <= 0)
            yield break;
        var first = table.Failures?.FirstOrDefault(row => table.Full?.Any(map => map.Error == row.Error) != true);
        yield return new MeshFault
        {
            Class = PeerFault.KernelBehind.Name(),
            Cause = $"{others} of {table.Rows} rows of {table.Name} are not in the kernel{(first is null ? "" : $"; {first.Key}: {first.Error}")}",
            Mend = PeerFault.KernelBehind.Mend(""),
        };
    }

    private static PeerResource Resource(ResourceHealth resource) => new()
    {
        Name = resource.Resource switch
        {
            RemoteResource.Nodes => "nodes",
            RemoteResource.Services => "services",
            RemoteResource.IpEntries => "endpoints",
            _ => "identities",
        },
        Synced = resource.Synced,
        Entries = resource.Entries,
        ProofAge = Seconds(resource.ProofAge),
        AuditAge = Seconds(resource.AuditAge),
        Relists = resource.Relists,
        RelistReason = resource.RelistReason,
    };

    private static PeerCertificateDays Certificates(KVStore.TlsStatus tls, DateTimeOffset now) => new()
    {
        ClientName = tls.ClientName,
        ClientDays = Days(tls.ClientNotAfter, now),
        ServerName = tls.ServerName,
        ServerDays = Days(tls.ServerNotAfter, now),
        AuthorityDays = Days(tls.AuthorityNotAfter, now),
        Problem = tls.Problem,
    };

    private static long? Days(DateTimeOffset? end, DateTimeOffset now) => end is { } time ? (long)Math.Floor((time - now).TotalDays) : null;

    private static double Seconds(TimeSpan? age) => age is { } known ? Math.Round(known.TotalSeconds, 1) : -1;
}
