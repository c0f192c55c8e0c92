using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Datapath;

namespace Mesh.Cli.Commands.Explain;

/// <summary>
/// Lays the intention for one frontend beside what the maps hold for it. A difference is anything that the agent would write
/// otherwise: a backend too many or too few, another state, tier, weight or property. What traffic has proved (silent clusters and
/// nodes, drills, ejections) is no difference: it stands in maps of its own and is told as trouble.
/// </summary>
internal sealed class Join
{
    private const string NotForOutside = "a ClusterIP is not served to clients outside the cluster: their packets to it are passed on as they are; "
        + "give the Service a NodePort, LoadBalancer or external address";
    private const string CutForOutside = "cut: ClusterIP, the client is outside";

    private readonly PinnedMaps _maps;
    private readonly Dictionary<uint, PinnedCluster> _clusters;
    private readonly DateTimeOffset _now;

    public Join(PinnedMaps maps, DateTimeOffset now)
    {
        _maps = maps;
        _now = now;
        _clusters = maps.Clusters().ToDictionary(cluster => cluster.ClusterId);
    }

    /// <param name="intended">Null when the agent has written nothing about this address.</param>
    /// <param name="actual">Null when the map has no such frontend.</param>
    public ExplainedFrontend Of(string address, FrontendDecision? intended, PinnedFrontend? actual, bool external)
    {
        var differences = new List<string>();
        var places = Places(actual);
        var chances = Chances(places);
        var backends = new List<ExplainedBackend>();
        var served = intended is { Withheld: null };
        foreach (var candidate in intended?.Candidates ?? [])
        {
            var rule = intended!.RuleFor(candidate, external);
            var kept = candidate.IsKept && rule != BackendRule.TrafficPolicyLocal;
            var found = kept ? places.Find(place => !place.Told && place.Is(candidate)) : null;
            if (found is not null)
                found.Told = true;
            backends.Add(Explained(candidate, rule, kept, found, found is null ? 0 : chances[found]));
            if (kept && served)
                differences.AddRange(Differences(candidate, found, actual, intended.Candidates, external, intended));
        }
        foreach (var place in places.Where(place => !place.Told && (served || intended is null)))
        {
            differences.Add($"slot {place.Backend.Slot} holds {place.Backend.Address} of cluster {place.Backend.ClusterId}, which the agent does not intend");
            backends.Add(Unintended(place, chances[place]));
        }
        if (intended is null)
            differences.Insert(0, "the map serves it, and the agent has written down no intention");
        else if (served && actual is null)
            differences = ["the map has no such frontend"];
        else if (served)
            differences.AddRange(Properties(intended, actual!, external));
        var type = intended?.Type ?? actual?.Type ?? ServiceType.ClusterIP;
        var reached = !external || type != ServiceType.ClusterIP;
        return new ExplainedFrontend
        {
            Address = address,
            PortName = intended?.PortName ?? "",
            Type = type.ToString(),
            Withheld = intended?.Withheld ?? (reached ? null : NotForOutside),
            ServiceId = actual?.ServiceId,
            Generation = actual?.Generation ?? 0,
            Segments = actual?.Segments.Count ?? 0,
            Backends = reached ? backends : [.. backends.Select(NotReached)],
            Differences = intended is { LeftOut: > 0 } ? [] : differences,
            LeftOut = intended?.LeftOut ?? 0,
        };
    }

    private static IEnumerable<string> Differences(Candidate candidate, Place? found, PinnedFrontend? actual, IReadOnlyList<Candidate> all,
        bool external, FrontendDecision intended)
    {
        if (found is null)
        {
            yield return $"{candidate.Address} of cluster {candidate.ClusterId} should stand in tier {candidate.Tier}, and the map has no such entry";
            yield break;
        }
        if (found.Backend.State != candidate.State)
            yield return $"{candidate.Address} should be {candidate.State}, the map says {found.Backend.State}";
        if (found.Entries == 0)
            yield return $"{candidate.Address} has no entry in the table of segment {found.Number}: no flow can choose it";
        var weight = candidate.Weight != 0 ? candidate.Weight : (uint)all.Count(one => one.IsKept && one.Tier == candidate.Tier
            && one.ClusterId == candidate.ClusterId && one.InZone == candidate.InZone
            && intended.RuleFor(one, external) != BackendRule.TrafficPolicyLocal);
        // Once for the whole group.
        if (found.Segment.Weight != weight && actual!.Segments[found.Number].Backends[0].Slot == found.Backend.Slot)
            yield return $"segment {found.Number} (cluster {candidate.ClusterId}, tier {candidate.Tier}) weighs {found.Segment.Weight}, intended is {weight}";
    }

    private static IEnumerable<string> Properties(FrontendDecision intended, PinnedFrontend actual, bool external)
    {
        if (actual.AffinitySeconds != intended.AffinitySeconds)
            yield return $"session affinity of {actual.AffinitySeconds} s, intended are {intended.AffinitySeconds} s";
        if (actual.Segments.Count > 0 && actual.Algorithm != intended.Algorithm)
            yield return $"algorithm {actual.Algorithm}, intended is {intended.Algorithm}";
        if (actual.Segments.Count > 0 && actual.Forwarding != intended.Forwarding)
            yield return $"forwarding {actual.Forwarding}, intended is {intended.Forwarding}";
        if (actual.Segments.Count > 0 && actual.IsLocalOnly != (external ? intended.ExternalLocal : intended.InternalLocal))
            yield return $"traffic policy {(actual.IsLocalOnly ? "Local" : "Cluster")}, intended is the other";
        foreach (var (segment, i) in actual.Segments.Select((segment, i) => (segment, i)))
            if (segment.Table.Any(entry => entry >= segment.Backends.Count))
                yield return $"the table of segment {i} leads beyond its {segment.Backends.Count} backends";
    }

    private ExplainedBackend Explained(Candidate candidate, BackendRule rule, bool kept, Place? found, double chance) => new()
    {
        Address = candidate.Address,
        Cluster = candidate.Cluster,
        ClusterId = candidate.ClusterId,
        Node = candidate.Node,
        Zone = candidate.Zone,
        Revision = candidate.Revision,
        AgeSeconds = candidate.Since == default ? null : Math.Max(0, (_now - candidate.Since).TotalSeconds),
        State = rule == BackendRule.NotReady ? "not ready" : candidate.State.ToString().ToLowerInvariant(),
        Kept = kept,
        Rule = Words(rule, candidate.Detail),
        IsOfAnotherKind = rule is BackendRule.OtherProtocol or BackendRule.OtherFamily,
        Troubles = found?.Troubles ?? [],
        Tier = candidate.Tier,
        Map = found?.Entry,
        Chance = chance,
    };

    private static ExplainedBackend Unintended(Place place, double chance) => new()
    {
        Address = place.Backend.Address.ToString(),
        ClusterId = place.Backend.ClusterId,
        State = place.Backend.State.ToString().ToLowerInvariant(),
        Rule = "not intended",
        Troubles = place.Troubles,
        Tier = place.Segment.Tier,
        Map = place.Entry,
        Chance = chance,
    };

    /// <summary>What stands behind it in the map is still compared with the intention; it is only not for this client.</summary>
    private static ExplainedBackend NotReached(ExplainedBackend backend) =>
        backend with { Kept = false, Chance = 0, Rule = backend.Kept ? CutForOutside : backend.Rule };

    private static string Words(BackendRule rule, string? detail)
    {
        var words = rule switch
        {
            BackendRule.Kept => "kept",
            BackendRule.Standby => "kept: standby, for when no lower tier lives",
            BackendRule.Draining => "kept: draining, its flows finish",
            BackendRule.Restored => "kept: from before the agent's start, its cluster is not heard yet",
            BackendRule.NotGlobal => "cut: the service is not global",
            BackendRule.ClaimedElsewhere => "cut: claimed",
            BackendRule.OtherProtocol => "cut: other protocol",
            BackendRule.OtherFamily => "cut: other family",
            BackendRule.PortNameDiffers => "cut: port name differs",
            BackendRule.ClusterNotNamed => "cut: cluster not named in mesh.cilium.io/clusters",
            BackendRule.NotReady => "cut: not ready",
            BackendRule.TrafficPolicyLocal => "cut: traffic policy Local, it is on another node",
            _ => "cut: not in force yet",
        };
        return detail is null ? words : rule == BackendRule.ClaimedElsewhere ? $"{words} {detail}" : $"{words} ({detail})";
    }

    private List<Place> Places(PinnedFrontend? actual)
    {
        var places = new List<Place>();
        for (var i = 0; i < (actual?.Segments.Count ?? 0); i++)
        {
            var segment = actual!.Segments[i];
            var entries = new int[segment.Backends.Count];
            foreach (var entry in segment.Table)
                if (entry < entries.Length)
                    entries[entry]++;
            for (var j = 0; j < entries.Length; j++)
                places.Add(new Place(i, segment, segment.Backends[j], entries[j], [.. TroublesOf(segment.Backends[j])]));
        }
        return places;
    }

    private IEnumerable<string> TroublesOf(PinnedBackend backend)
    {
        if (!_clusters.TryGetValue(backend.ClusterId, out var cluster) || !cluster.Up)
            yield return "cluster not configured";
        else if (!cluster.Alive)
            yield return "cluster out: traffic proves it silent";
        else if (cluster.Share < byte.MaxValue)
            yield return $"cluster on its way back: {cluster.Share * 100 / byte.MaxValue}% of its share";
        if (cluster?.DrillLeft is { } left)
            yield return $"cluster out: drill, {left.TotalSeconds:0} s left";
        if (_maps.Find(backend.Address.Address) is { Node: > 0 } entry && !_maps.IsNodeUp(entry.Node))
            yield return $"node {entry.TunnelEndpoint} down";
        if (_maps.Health(backend.Slot).EjectedFor is { } ejected)
            yield return $"ejected for {ejected.TotalSeconds:0.0} s more";
    }

    /// <summary>Of a new flow: the first tier with a backend that may be chosen shares by the weights of its segments, and inside of
    /// them by the table.</summary>
    private static Dictionary<Place, double> Chances(List<Place> places)
    {
        var chances = places.ToDictionary(place => place, _ => 0.0);
        var live = places.Where(place => place.Takes > 0).ToList();
        if (live.Count == 0)
            return chances;
        var tier = live.Min(place => place.Segment.Tier);
        var segments = live.Where(place => place.Segment.Tier == tier).GroupBy(place => place.Number).ToList();
        var weights = segments.Sum(segment => (double)segment.First().Segment.Weight * segment.First().Takes);
        foreach (var segment in segments)
            foreach (var place in segment)
                chances[place] = place.Segment.Weight * place.Takes / weights * place.Entries / Math.Max(1, segment.Sum(one => one.Entries));
        return chances;
    }

    /// <summary>A backend's place in the maps.</summary>
    private sealed class Place(int number, PinnedSegment segment, PinnedBackend backend, int entries, IReadOnlyList<string> troubles)
    {
        public int Number => number;

        public PinnedSegment Segment => segment;

        public PinnedBackend Backend => backend;

        public int Entries => entries;

        public IReadOnlyList<string> Troubles => troubles;

        public bool Told { get; set; }

        /// <summary>Part of its share that it takes now, 0 to 1.</summary>
        public double Takes => backend.State != BackendState.Active ? 0
            : troubles.Count == 0 || troubles is [var only] && only.StartsWith("cluster on its way back", StringComparison.Ordinal) ? 1 : 0;

        public MapEntry Entry => new(number, segment.Weight, backend.Slot, entries, segment.TableSize, backend.State.ToString().ToLowerInvariant());

        public bool Is(Candidate candidate) => segment.Tier == candidate.Tier && segment.ClusterId == candidate.ClusterId
            && backend.ClusterId == candidate.ClusterId && backend.Address.ToString() == candidate.Address;
    }
}
