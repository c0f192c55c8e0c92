using Mesh.KVStore;

namespace Mesh.ClusterMesh.Remote;

/// <summary>Weighs what the connection and the store report. Pure; the causes are weighed in the order of the steps of a connection,
/// so that the first broken one is told.</summary>
internal static class PeerTruth
{
    /// <summary>After this long without any sign, and with a question left unanswered, the peer counts as frozen.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(6);

    /// <summary>The same when no question failed yet.</summary>
    private static readonly TimeSpan LongestSilence = TimeSpan.FromSeconds(15);

    /// <summary>Certificates, leases and people all stumble over more than this.</summary>
    private static readonly TimeSpan SkewAllowed = TimeSpan.FromSeconds(30);

    /// <summary>A list that the peer's compaction forced is told for this long.</summary>
    private static readonly TimeSpan CompactionTold = TimeSpan.FromSeconds(10);

    /// <param name="fault">What ended the last connection, or holds this one up; None when nothing did.</param>
    /// <param name="store">The store of the connection; null between two.</param>
    /// <param name="sourceTrouble">What the relay between says of itself and the peer.</param>
    /// <param name="unsigned">Resources that are not followed, for want of a canary; null when all are.</param>
    /// <param name="prefixes">Where the resources are read; null before the configuration is known.</param>
    public static RemoteClusterStatus Of(
        RemoteClusterStatus status, PeerFault fault, string? lastReconnection, KVStoreStatus? store, Func<RemoteResource, string>? prefixes,
        TimeSpan? heartbeatSkew, SourceTrouble? sourceTrouble = null, string? unsigned = null)
    {
        var resources = Resources(status, store, prefixes);
        var (found, cause) = Weigh(status, fault, store, prefixes, heartbeatSkew, sourceTrouble, unsigned);
        var atRelay = sourceTrouble is not null && cause == Told(sourceTrouble);
        var proof = store?.ProofAge;
        foreach (var watch in store?.Watches ?? [])
            proof = Newer(proof, watch.MessageAge);
        var disproved = !atRelay && (found is PeerFault.Frozen or PeerFault.NoQuorum);
        return status with
        {
            Connected = status.Connected && !disproved,
            // A list that has been read anew is as good as the first, and a relay without its source serves on.
            Ready = status.Ready && (found is PeerFault.None or PeerFault.Compacted || atRelay),
            Status = status.Connected && cause is not null ? disproved ? cause : $"{status.Status}; {found.Name()}: {cause}" : status.Status,
            Health = new PeerHealth
            {
                Fault = found,
                AtRelay = atRelay,
                Cause = cause ?? (found == PeerFault.None ? null : status.Status),
                ProofAge = proof,
                LastReconnection = lastReconnection,
                Resources = resources,
                Tls = store?.Tls,
                ClockSkew = store?.ClockSkew ?? heartbeatSkew,
                IsDoor = store?.IsDoor ?? false,
                Audits = store?.Audits ?? 0,
                Repairs = store?.Repairs ?? 0,
                Endpoint = store?.Endpoint,
            },
        };
    }

    private static (PeerFault Fault, string? Cause) Weigh(
        RemoteClusterStatus status, PeerFault fault, KVStoreStatus? store, Func<RemoteResource, string>? prefixes, TimeSpan? heartbeatSkew,
        SourceTrouble? sourceTrouble, string? unsigned)
    {
        if (store is null || !store.Connected)
        {
            var live = store?.Fault is { } found and not StoreFault.None ? PeerFaults.Of(found) : PeerFault.None;
            return (live is not (PeerFault.None or PeerFault.Other) ? live : fault == PeerFault.None ? PeerFault.Other : fault, null);
        }
        if (store.ProofAge is { } age && Silence(age, store) is { } silence)
            return (store.Fault is StoreFault.NoQuorum ? PeerFault.NoQuorum : PeerFault.Frozen, silence);
        if (!status.ConfigRetrieved)
            return (fault == PeerFault.None ? PeerFault.NotSynced : fault, null);
        if (prefixes is not null && store.Watches.FirstOrDefault(w => IsHurt(w, prefixes)) is { } compacted)
            return (PeerFault.Compacted, $"{compacted.Prefix}: {compacted.RelistReason}; read anew {compacted.Relists} times");
        var missing = Missing(status);
        if (missing.Count > 0)
            return (PeerFault.NotSynced, $"waiting for the complete list of {string.Join(", ", missing)}{InLine(store)}");
        if (unsigned is not null)
            return (PeerFault.NotSynced, $"no canary of {unsigned} stands: the cluster lost its data or writes itself anew; what is known is kept");
        if (store.Watches.FirstOrDefault(w => w.Listing && prefixes is not null && IsResource(w.Prefix, prefixes)) is { } listing)
            return (PeerFault.NotSynced, $"{listing.Prefix} is being read anew: {listing.RelistReason ?? "after a reconnection"}");
        if (sourceTrouble is not null)
            return (sourceTrouble.Fault is PeerFault.Other ? PeerFault.SourceLost : sourceTrouble.Fault, Told(sourceTrouble));
        if (store.Alarm is { } alarm)
            return (store.Fault == StoreFault.NoSpace ? PeerFault.StoreFull : PeerFault.StoreAlarm, alarm);
        if ((store.ClockSkew ?? heartbeatSkew) is { } skew && skew.Duration() > SkewAllowed)
            return (PeerFault.ClockSkew, $"its clock is {skew.Duration().TotalSeconds:0} s {(skew > TimeSpan.Zero ? "ahead of" : "behind")} ours");
        return (PeerFault.None, null);
    }

    private static string InLine(KVStoreStatus store) =>
        store.Watches.Count(watch => watch.InLine) is var lists and > 0 ? $"; {lists} of its lists stand in line behind those of other peers" : "";

    private static string Told(SourceTrouble trouble) => $"the relay: {trouble.Text}";

    private static string? Silence(TimeSpan age, KVStoreStatus store)
    {
        var newest = store.Watches.Aggregate((TimeSpan?)age, (sum, watch) => Newer(sum, watch.MessageAge))!.Value;
        if (newest > LongestSilence || (store.ProofProblem is not null && newest > Patience))
            return $"no sign of life for {newest.TotalSeconds:0} s{(store.ProofProblem is { } problem ? $": {problem}" : "")}";
        return null;
    }

    private static bool IsHurt(WatchStatus watch, Func<RemoteResource, string> prefixes) =>
        watch is { Compacted: true, RelistAge: { } age } && (age < CompactionTold || watch.Listing) && IsResource(watch.Prefix, prefixes);

    private static bool IsResource(string prefix, Func<RemoteResource, string> prefixes) =>
        RemoteResources.All.Any(resource => prefixes(resource) == prefix);

    private static List<string> Missing(RemoteClusterStatus status)
    {
        var missing = new List<string>();
        if (!status.NodesSynced)
            missing.Add("nodes");
        if (!status.ServicesSynced)
            missing.Add("services");
        if (!status.IpEntriesSynced)
            missing.Add("endpoints");
        if (!status.IdentitiesSynced)
            missing.Add("identities");
        if (status.ServiceExportsSynced == false)
            missing.Add("service-exports");
        return missing;
    }

    private static ResourceHealth[] Resources(RemoteClusterStatus status, KVStoreStatus? store, Func<RemoteResource, string>? prefixes) =>
    [
        Resource(RemoteResource.Nodes, status.NodesSynced, status.Nodes, store, prefixes),
        Resource(RemoteResource.Services, status.ServicesSynced, status.Services, store, prefixes),
        Resource(RemoteResource.IpEntries, status.IpEntriesSynced, status.IpEntries, store, prefixes),
        Resource(RemoteResource.Identities, status.IdentitiesSynced, status.Identities, store, prefixes),
    ];

    private static ResourceHealth Resource(
        RemoteResource resource, bool synced, int entries, KVStoreStatus? store, Func<RemoteResource, string>? prefixes)
    {
        var watch = prefixes is null ? null : store?.Watches.FirstOrDefault(w => w.Prefix == prefixes(resource));
        // While its stream stands, an answer on the same connection speaks for it too.
        var proof = watch is null ? null : watch.Streaming ? Newer(watch.MessageAge, store?.ProofAge) : watch.MessageAge;
        return new ResourceHealth(resource, synced, entries, proof, watch?.AuditAge, watch?.Relists ?? 0, watch?.RelistReason);
    }

    private static TimeSpan? Newer(TimeSpan? one, TimeSpan? other) => one is null ? other : other is null || one < other ? one : other;
}
