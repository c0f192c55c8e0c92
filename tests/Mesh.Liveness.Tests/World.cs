using System.Net;
using Mesh.Model;

namespace Mesh.Liveness.Tests;

/// <summary>
/// A judge, and a network in virtual time around it: answers come after a round trip, unless a way is cut or a packet is lost. Own
/// cluster 1, peers 2 and 3, two nodes each, seen from the first node of the own one.
/// </summary>
internal sealed class World
{
    private readonly LivenessJudge _judge;
    private readonly Random _random;
    private readonly PriorityQueue<(Probe Probe, TimeSpan At), TimeSpan> _arriving = new();
    private readonly List<Verdict> _verdicts = [];
    private readonly List<Probe> _probes = [];
    private readonly Dictionary<NodeName, int> _unanswered = [];

    public World(int seed = 1, LivenessOptions? options = null, Func<uint, bool>? clusterWasIn = null, params ProbeTarget[] targets)
    {
        _random = new Random(seed);
        _judge = new LivenessJudge(options ?? new LivenessOptions(), clusterWasIn);
        Targets = targets.Length > 0 ? targets : [Own(2), .. Peers(2, 2), .. Peers(3, 2)];
        _judge.SetTargets(Targets);
    }

    public IReadOnlyList<ProbeTarget> Targets { get; private set; }

    public TimeSpan Now { get; private set; }

    public TimeSpan RoundTrip { get; set; } = TimeSpan.FromMilliseconds(1);

    /// <summary>Chance that a question or its answer is lost.</summary>
    public double Loss { get; set; }

    /// <summary>Ways that are cut.</summary>
    public Func<ProbeTarget, bool> IsCut { get; set; } = _ => false;

    public bool LinkUp { get; set; } = true;

    /// <summary>Nodes of which other packets arrive all the time.</summary>
    public Func<ProbeTarget, bool> IsHeard { get; set; } = _ => false;

    public List<(TimeSpan At, Verdict Verdict)> Verdicts { get; } = [];

    public int Sent { get; private set; }

    public IEnumerable<(TimeSpan At, Verdict Verdict)> OfCluster(uint cluster) => Verdicts.Where(one =>
        one.Verdict.ClusterId == cluster && one.Verdict.Kind is VerdictKind.ClusterOut or VerdictKind.ClusterIn);

    public LivenessReport Report => _judge.Report(Now);

    /// <summary>Questions to this node since its last answer.</summary>
    public int Unanswered(NodeName name) => _unanswered.GetValueOrDefault(name);

    public Action<Verdict>? OnVerdict { get; set; }

    public static ProbeTarget Own(int number) => Target(1, number, TargetRole.OwnNode);

    public static ProbeTarget[] Peers(uint cluster, int count, TargetRole role = TargetRole.Representative, int first = 1) =>
        [.. Enumerable.Range(first, count).Select(number => Target(cluster, number, role))];

    public void Set(params ProbeTarget[] targets) => _judge.SetTargets(Targets = targets);

    public void Run(double seconds)
    {
        var end = Now + TimeSpan.FromSeconds(seconds);
        while (Now < end)
        {
            Turn();
            var next = _judge.NextTurn;
            if (_arriving.TryPeek(out _, out var arrival) && arrival < next)
                next = arrival;
            Now = next < end ? (next > Now ? next : Now + TimeSpan.FromTicks(1)) : end;
        }
    }

    /// <summary>The observer sleeps; what arrives meanwhile waits for it.</summary>
    public void Sleep(double seconds) => Now += TimeSpan.FromSeconds(seconds);

    private void Turn()
    {
        while (_arriving.TryPeek(out var answer, out var arrival) && arrival <= Now)
        {
            _arriving.Dequeue();
            _unanswered[answer.Probe.Target.Name] = 0;
            _judge.Answered(answer.Probe.Target.Name, answer.Probe.Sequence, Now);
        }
        foreach (var target in Targets.Where(IsHeard))
            _judge.Seen(target.Name, Now);
        _verdicts.Clear();
        _judge.Turn(Now, LinkUp, _verdicts);
        foreach (var verdict in _verdicts)
        {
            Verdicts.Add((Now, verdict));
            OnVerdict?.Invoke(verdict);
        }
        _probes.Clear();
        _judge.Due(Now, _probes);
        foreach (var probe in _probes)
        {
            Sent++;
            _unanswered[probe.Target.Name] = Unanswered(probe.Target.Name) + 1;
            if (LinkUp && !IsCut(probe.Target) && _random.NextDouble() >= Loss)
                _arriving.Enqueue((probe, Now), Now + RoundTrip * (1 + _random.NextDouble() / 4));
        }
    }

    private static ProbeTarget Target(uint cluster, int number, TargetRole role) => new(new NodeName($"c{cluster}", $"n{number}"), cluster,
        cluster * 10 + (uint)number, IPAddress.Parse($"10.{cluster}.{number}.1"), role);
}
