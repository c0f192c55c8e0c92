using Mesh.Model;

namespace Mesh.Liveness;

/// <summary>
/// Decides from probes and their answers which clusters and nodes may be sent new flows. A pure machine: time is what it is told,
/// and it does nothing itself. It knows no control plane, and so cannot be misled by one.
///
///   silent    = has answered before, and now owes answers for <see cref="LivenessOptions.Losses"/> periods and
///               <see cref="LivenessOptions.Overdue"/> probes (asked faster as soon as one is late)
///   node out    = it is silent, and a witness answered meanwhile
///   cluster out = all its representatives are silent, none of its reserve answered since, and a witness of elsewhere did
///   in again    = after a hold of good answers; a cluster with a growing share
///
/// A witness proves that the observer can hear. Without one, after a late turn, or without a carrier, the observer blames itself:
/// what is owed is forgotten and nothing changes. Only where there is nobody else to ask no witness is wanted.
/// Not thread-safe: the prober's thread owns it.
/// </summary>
public sealed class LivenessJudge
{
    /// <summary>Doubt asks faster for so long; a silence that is not judged by then is somebody else's fault.</summary>
    private static readonly TimeSpan DoubtEnds = TimeSpan.FromSeconds(1);

    private readonly LivenessOptions _options;
    private readonly Func<uint, bool> _clusterWasIn;
    private readonly Func<uint, bool> _nodeWasIn;
    private readonly Dictionary<NodeName, JudgedNode> _nodes = [];
    private readonly Dictionary<uint, JudgedCluster> _clusters = [];
    private readonly List<Verdict> _pending = [];
    private readonly TimeSpan _allSilent;
    private TimeSpan? _expected;
    private TimeSpan? _lastAnswer;
    private TimeSpan _tick;
    private long _lateTurns;
    private long _selfSuspicions;
    private bool _linkUp = true;

    /// <param name="clusterWasIn">What the datapath says of a cluster when it is first met.</param>
    /// <param name="nodeWasIn">The same of a node, by its index.</param>
    public LivenessJudge(LivenessOptions options, Func<uint, bool>? clusterWasIn = null, Func<uint, bool>? nodeWasIn = null)
    {
        _options = options;
        _clusterWasIn = clusterWasIn ?? (_ => true);
        _nodeWasIn = nodeWasIn ?? (_ => true);
        _allSilent = (options.Losses - 1) * options.Period + options.Patience / 2;
    }

    /// <summary>When <see cref="Turn"/> and <see cref="Due"/> want to be called next, if no answer comes before.</summary>
    public TimeSpan NextTurn { get; private set; }

    /// <summary>Replaces the targets; what is known of those that stay is kept. Nothing bad is known of those that go.</summary>
    public void SetTargets(IReadOnlyList<ProbeTarget> targets)
    {
        foreach (var gone in _nodes.Keys.Except(targets.Select(target => target.Name)).ToList())
            if (_nodes.Remove(gone, out var node) && !node.Presence.IsIn)
                _pending.Add(new Verdict(VerdictKind.NodeIn, node.Target.ClusterId, node.Target.Index, 255, default));
        foreach (var target in targets)
            if (_nodes.TryGetValue(target.Name, out var known) && known.Target.Address.Equals(target.Address) && known.Target.Index == target.Index)
                known.Target = target with { Proved = target.Proved || known.Target.Proved };
            else
                _nodes[target.Name] = new JudgedNode(target, _options, target.Index == 0 || _nodeWasIn(target.Index));
        foreach (var judged in _clusters.Values)
            judged.Nodes.Clear();
        foreach (var node in _nodes.Values.Where(node => node.Target.Role is TargetRole.Representative or TargetRole.Reserve))
        {
            var id = node.Target.ClusterId;
            if (!_clusters.TryGetValue(id, out var cluster))
                _clusters[id] = cluster = new JudgedCluster(id, _options, _clusterWasIn(id));
            cluster.Nodes.Add(node);
        }
        foreach (var cluster in _clusters.Values.Where(cluster => cluster.Nodes.Count == 0).ToList())
        {
            _clusters.Remove(cluster.Id);
            if (!cluster.Presence.IsIn || cluster.Share < byte.MaxValue)
                _pending.Add(new Verdict(VerdictKind.ClusterIn, cluster.Id, 0, byte.MaxValue, default));
        }
    }

    /// <summary>An answer, whatever it means for whom.</summary>
    public void Answered(NodeName name, uint sequence, TimeSpan now)
    {
        if (!_nodes.TryGetValue(name, out var node))
            return;
        // Everybody was silent: had we been deaf, this one is only the first whom we hear again.
        if (_lastAnswer is { } last && now - last > _allSilent && _nodes.Count > 1)
        {
            _selfSuspicions++;
            Restart();
        }
        _lastAnswer = now;
        node.Silence.Answer(sequence, now);
    }

    /// <summary>A packet of this node arrived then, other than an answer.</summary>
    public void Seen(NodeName name, TimeSpan at)
    {
        if (_nodes.TryGetValue(name, out var node) && (node.SeenAt is null || at > node.SeenAt))
            node.SeenAt = at;
    }

    /// <summary>The targets that owe an answer: whose passive evidence is worth a look.</summary>
    public IEnumerable<ProbeTarget> Owing => _nodes.Values.Where(node => node.Silence.Since is not null).Select(node => node.Target);

    /// <summary>Judges. To be called when every answer that has arrived has been told.</summary>
    public void Turn(TimeSpan now, bool linkUp, List<Verdict> verdicts)
    {
        verdicts.AddRange(_pending);
        _pending.Clear();
        var late = _expected is { } expected && now - expected > _options.Late;
        if (late)
            _lateTurns++;
        if (late || !linkUp)
            Restart();
        _linkUp = linkUp;
        foreach (var cluster in _clusters.Values)
            Judge(cluster, now, verdicts);
        foreach (var node in _nodes.Values)
            if (node.Target.Role != TargetRole.Watched)
                Judge(node, now, verdicts);
    }

    /// <summary>The probes to be sent now; they count as sent.</summary>
    public void Due(TimeSpan now, List<Probe> probes)
    {
        var tick = now >= _tick;
        // Everybody at the same tick, so that the silence of a cluster is judged once, and not by its last node.
        if (tick)
            _tick = now - _tick < _options.Period ? _tick + _options.Period : now + _options.Period;
        var next = _tick;
        foreach (var node in _nodes.Values)
        {
            var silence = node.Silence;
            var doubted = IsDoubted(node, now);
            var period = doubted ? _options.DoubtPeriod
                : node.Target.Role is TargetRole.Watched or TargetRole.Reserve ? _options.WatchPeriod
                : _options.Period;
            var isDue = silence.LastSent is not { } sent || now - sent >= period || (tick && period == _options.Period);
            if (isDue)
                probes.Add(new Probe(node.Target, silence.Send(now)));
            if (node.Target.Role == TargetRole.Watched)
                continue;
            if (doubted)
                Earlier(ref next, silence.LastSent!.Value + _options.DoubtPeriod);
            else if (silence.Since is { } since && node.IsProved && now < since + silence.DoubtAfter)
                Earlier(ref next, since + silence.DoubtAfter);
            if (silence.Since is { } began && began + _options.OutAfter(silence.Patience) is var judged && judged > now)
                Earlier(ref next, judged);
        }
        NextTurn = next;
        _expected = next;
    }

    public LivenessReport Report(TimeSpan now) => new(
        [
            .. _clusters.Values.OrderBy(cluster => cluster.Id).Select(cluster =>
            {
                var representatives = cluster.Representatives.ToList();
                return new ClusterReport(cluster.Id, cluster.Presence.IsIn, cluster.Share, now - cluster.Presence.Since,
                    cluster.Presence.HoldLeft(now), representatives.Count, representatives.Count(node => IsSilent(node, now)),
                    cluster.Presence.Transitions);
            }),
        ],
        [
            .. _nodes.Values.OrderBy(node => node.Target.Name.ToString(), StringComparer.Ordinal).Select(node => new NodeReport(
                node.Target.Name, node.Target.ClusterId, node.Target.Index, node.Target.Role, node.Presence.IsIn, IsSilent(node, now),
                node.IsProved, node.Silence.RoundTrip, now - node.Silence.LastAnswer, node.Silence.Sent, node.Silence.Answered)),
        ],
        _lateTurns, _selfSuspicions, !_linkUp);

    private void Judge(JudgedCluster cluster, TimeSpan now, List<Verdict> verdicts)
    {
        var (proved, silent, good) = (0, 0, 0);
        TimeSpan? since = null;
        foreach (var node in cluster.Representatives)
        {
            if (!node.IsProved)
                continue;
            proved++;
            if (IsSilent(node, now))
            {
                silent++;
                if (since is null || node.Silence.Since < since)
                    since = node.Silence.Since;
            }
            else if (node.Silence.GoodInRow >= _options.GoodAnswers)
            {
                good++;
            }
        }
        cluster.InDoubt = cluster.Representatives.Any(node => IsDoubted(node, now)) && cluster.Presence.IsIn;
        var allSilent = proved > 0 && silent == proved;
        if (allSilent && !cluster.Presence.IsIn)
            cluster.Presence.Relapse();
        else if (allSilent && !ReserveSpoke(cluster, since!.Value)
            && HasWitness(since.Value, other => other.Target.ClusterId != cluster.Id))
        {
            cluster.Presence.Fall(now);
            cluster.Share = 0;
            verdicts.Add(new Verdict(VerdictKind.ClusterOut, cluster.Id, 0, 0, now - since.Value));
        }
        else if (good > 0 && cluster.Presence.Rise(now, enoughAnswers: true))
        {
            cluster.RampBegan = now;
            cluster.Share = Share(TimeSpan.Zero);
            verdicts.Add(new Verdict(VerdictKind.ClusterIn, cluster.Id, 0, cluster.Share, default));
        }
        else if (cluster.Presence.IsIn && cluster.Share < byte.MaxValue && now - cluster.RampStepped >= _options.RampStep)
        {
            cluster.RampStepped = now;
            cluster.Share = Share(now - cluster.RampBegan);
            verdicts.Add(new Verdict(VerdictKind.ClusterShare, cluster.Id, 0, cluster.Share, default));
        }
    }

    private void Judge(JudgedNode node, TimeSpan now, List<Verdict> verdicts)
    {
        if (IsSilent(node, now))
        {
            node.Silence.GoodInRow = 0;
            node.Presence.Relapse();
            // The reserve is asked too seldom to be judged, unless its cluster is in doubt.
            if (node.Presence.IsIn && node.Target.Role != TargetRole.Reserve && HasWitness(node.Silence.Since!.Value, other => other != node))
            {
                node.Presence.Fall(now);
                verdicts.Add(new Verdict(VerdictKind.NodeOut, node.Target.ClusterId, node.Target.Index, 0, now - node.Silence.Since!.Value));
            }
        }
        else if (!node.Presence.IsIn && node.Silence.LastAnswer is { } answer && now - answer < 2 * _options.WatchPeriod
            && node.Presence.Rise(now, node.Silence.GoodInRow >= _options.GoodAnswers))
        {
            verdicts.Add(new Verdict(VerdictKind.NodeIn, node.Target.ClusterId, node.Target.Index, byte.MaxValue, default));
        }
    }

    private bool IsSilent(JudgedNode node, TimeSpan now)
    {
        if (!node.IsProved || node.Silence.Since is not { } since)
            return false;
        var silence = now - since;
        if (node.Target.Role is TargetRole.Watched or TargetRole.Reserve && !IsAskedOften(node))
            return node.Silence.Overdue(now, _options.Losses) >= _options.Losses;
        var patience = node.Silence.Patience;
        if (silence < _options.OutAfter(patience))
            return false;
        // Out already: it need not be asked as fast to stay so.
        var enough = node.Presence.IsIn ? Math.Max(_options.Losses, _options.Overdue) : _options.Losses;
        if (node.Silence.Overdue(now, enough) < enough)
            return false;
        return node.SeenAt is not { } seen || seen < since + node.Silence.RoundTrip + TimeSpan.FromMilliseconds(5)
            || silence >= _options.PassiveCredit;
    }

    private bool IsAskedOften(JudgedNode node) =>
        node.Target.Role == TargetRole.Reserve && _clusters.TryGetValue(node.Target.ClusterId, out var cluster) && cluster.InDoubt;

    private bool IsDoubted(JudgedNode node, TimeSpan now)
    {
        if (node.Target.Role == TargetRole.Watched)
            return false;
        if (node.Target.Role == TargetRole.Reserve)
            return IsAskedOften(node);
        if (!node.IsProved || node.Silence.Since is not { } since)
            return false;
        var silence = now - since;
        return silence >= node.Silence.DoubtAfter && silence < DoubtEnds && (node.Presence.IsIn || node.Silence.GoodInRow > 0);
    }

    private static bool ReserveSpoke(JudgedCluster cluster, TimeSpan since) =>
        cluster.Nodes.Any(node => node.Target.Role == TargetRole.Reserve && node.Silence.ProvedAt > since);

    /// <summary>Somebody answered a probe sent in this silence, and not only at its very beginning.</summary>
    private bool HasWitness(TimeSpan since, Func<JudgedNode, bool> mayWitness)
    {
        var asked = false;
        foreach (var node in _nodes.Values)
        {
            if (node.Target.Role is TargetRole.Watched or TargetRole.Reserve || !node.IsProved || !mayWitness(node))
                continue;
            if (node.Silence.ProvedAt >= since + (_options.Losses - 1) * _options.Period)
                return true;
            asked = true;
        }
        return !asked;
    }

    private byte Share(TimeSpan elapsed)
    {
        const int first = byte.MaxValue / 10;
        var grown = first + (byte.MaxValue - first) * (elapsed / _options.Ramp);
        return (byte)Math.Clamp(grown, first, byte.MaxValue);
    }

    private void Restart()
    {
        foreach (var node in _nodes.Values)
            node.Silence.Restart();
    }

    private static void Earlier(ref TimeSpan next, TimeSpan candidate)
    {
        if (candidate < next)
            next = candidate;
    }

    private sealed class JudgedNode(ProbeTarget target, LivenessOptions options, bool isIn)
    {
        public ProbeTarget Target { get; set; } = target;

        public Silence Silence { get; } = new(options);

        public Presence Presence { get; } = new(options, isIn);

        public TimeSpan? SeenAt { get; set; }

        public bool IsProved => Target.Proved || Silence.Answered > 0;
    }

    private sealed class JudgedCluster(uint id, LivenessOptions options, bool isIn)
    {
        public uint Id { get; } = id;

        public List<JudgedNode> Nodes { get; } = [];

        public Presence Presence { get; } = new(options, isIn);

        public byte Share { get; set; } = isIn ? byte.MaxValue : (byte)0;

        public bool InDoubt { get; set; }

        public TimeSpan RampBegan { get; set; }

        public TimeSpan RampStepped { get; set; }

        public IEnumerable<JudgedNode> Representatives => Nodes.Where(node => node.Target.Role == TargetRole.Representative);
    }
}
