using System.Globalization;
using System.Net.NetworkInformation;
using System.Threading.Channels;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Nodes;
using Mesh.Liveness;
using Mesh.Model;

namespace Mesh.Agent.Probes;

/// <summary>
/// The prober in its place: which of the tables' nodes it asks, and what its verdicts do to the kernel's maps and to connections. It
/// asks through the tunnel, from this node's own address inside the mesh to theirs, so that the questions take the way of the pods'
/// packets; and it never asks the control plane.
/// </summary>
internal sealed class LivenessStage : ILivenessSink
{
    private const string AddressType = "CiliumInternalIP";
    private static readonly TimeSpan ChoiceInterval = TimeSpan.FromMilliseconds(500);

    /// <summary>A node without an answer for so long is called silent in the status, judged or not.</summary>
    private static readonly TimeSpan SilentInStatus = TimeSpan.FromSeconds(3);

    /// <summary>How long a node stays under suspicion because a connection to it failed.</summary>
    private static readonly TimeSpan SuspicionLasts = TimeSpan.FromMinutes(1);

    private static readonly TimeSpan SecondLook = TimeSpan.FromMilliseconds(100);

    /// <summary>Bounds of what a connection's first question waits for its answer.</summary>
    private static readonly (TimeSpan Least, TimeSpan Most) SynTimeout = (TimeSpan.FromMilliseconds(250), TimeSpan.FromSeconds(1));

    private readonly DesiredState _state;
    private readonly Datapath.Datapath _datapath;
    private readonly Node _self;
    private readonly IpAddr _underlay;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly Action<IReadOnlySet<uint>> _tellLost;
    private readonly Prober _prober;
    private readonly Channel<string> _lines = Channel.CreateUnbounded<string>();
    private readonly Dictionary<uint, long> _suspects = [];
    private readonly Channel<bool> _lost = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private volatile IReadOnlyDictionary<uint, string> _names = new Dictionary<uint, string>();

    /// <param name="self">This node's row.</param>
    /// <param name="lost">Told which of the clusters in use get no new flow, again and again.</param>
    public LivenessStage(DesiredState state, Datapath.Datapath datapath, Node self, Action<IReadOnlySet<uint>> lost, TimeProvider time,
        Action<string> log)
    {
        _tellLost = lost;
        _state = state;
        _datapath = datapath;
        _self = self;
        _underlay = (self.UnderlayAddress(v6: false) ?? self.UnderlayAddress(v6: true))!.Value;
        _time = time;
        _log = log;
        var judge = new LivenessJudge(new LivenessOptions(), datapath.Liveness.IsAlive, node => !datapath.Liveness.IsSilent(node));
        _prober = new Prober(judge, this, time);
    }

    public LivenessReport Report => _prober.Report;

    public string? RealTimeProblem => _prober.RealTimeProblem;

    /// <summary>What is known of a cluster's nodes. From any thread.</summary>
    public (int Probed, IReadOnlyList<string> Silent) Of(string cluster) => Of(Report, cluster);

    internal static (int Probed, IReadOnlyList<string> Silent) Of(LivenessReport report, string cluster)
    {
        var asked = report.Nodes.Where(node => node.Name.Cluster == cluster && (node.Answered > 0 || node.Sent >= Enough(node.Role))).ToList();
        return (asked.Count, [.. asked.Where(node => node.IsSilent || node.SinceAnswer is null || node.SinceAnswer > SilentInStatus)
            .Select(node => node.Name.Name)]);
    }

    /// <summary>A connection to this node failed: it is asked for a while, whoever else speaks for its cluster. From any thread.</summary>
    public void Suspect(uint node)
    {
        if (node == 0)
            return;
        lock (_suspects)
            _suspects[node] = _time.GetTimestamp();
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task[] running = [ChooseAsync(stop.Token), SayAsync(stop.Token), CloseSocketsAsync(stop.Token), _prober.RunAsync(stop.Token)];
        var first = await Task.WhenAny(running);
        await stop.CancelAsync();
        // The thread must have ended before the maps that it writes are unmapped.
        await Task.WhenAll(running).ContinueWith(_ => { }, TaskScheduler.Default);
        await first;
    }

    void ILivenessSink.Apply(IReadOnlyList<Verdict> verdicts)
    {
        // The store first, the words after it: nothing here may wait.
        foreach (var verdict in verdicts)
            Apply(verdict);
        if (verdicts.Any(verdict => verdict.Kind is VerdictKind.ClusterOut or VerdictKind.NodeOut))
            _lost.Writer.TryWrite(true);
        foreach (var verdict in verdicts)
            if (verdict.Kind != VerdictKind.ClusterShare || verdict.Share == byte.MaxValue)
                _lines.Writer.TryWrite(Say(verdict));
    }

    TimeSpan? ILivenessSink.SinceSeen(uint node) => _datapath.Liveness.SinceHeard(node);

    void ILivenessSink.Heard(uint node) => _datapath.Liveness.Heard(node);

    private void Apply(Verdict verdict)
    {
        switch (verdict.Kind)
        {
            case VerdictKind.ClusterOut:
                _datapath.Liveness.TakeOut(verdict.ClusterId);
                break;
            case VerdictKind.ClusterIn or VerdictKind.ClusterShare:
                _datapath.Liveness.LetIn(verdict.ClusterId, verdict.Share);
                break;
            case VerdictKind.NodeOut or VerdictKind.NodeIn:
                _datapath.Liveness.SetSilent(verdict.Node, verdict.Kind == VerdictKind.NodeOut);
                break;
        }
    }

    private string Say(Verdict verdict)
    {
        var cluster = _names.GetValueOrDefault(verdict.ClusterId) ?? $"with ID {verdict.ClusterId}";
        var silence = string.Create(CultureInfo.InvariantCulture, $"nothing answered for {verdict.Silence.TotalMilliseconds:0} ms, others do");
        return verdict.Kind switch
        {
            VerdictKind.ClusterOut => $"liveness: cluster {cluster} is out: {silence}",
            VerdictKind.ClusterIn => $"liveness: cluster {cluster} is in again, with a share of {verdict.Share * 100 / 255} %",
            VerdictKind.ClusterShare => $"liveness: cluster {cluster} has its full share again",
            VerdictKind.NodeOut => $"liveness: node {verdict.Node} of cluster {cluster} is out: {silence}",
            _ => $"liveness: node {verdict.Node} of cluster {cluster} is in again",
        };
    }

    private async Task SayAsync(CancellationToken cancellation)
    {
        await foreach (var line in _lines.Reader.ReadAllAsync(cancellation))
            _log(line);
    }

    /// <summary>Closes what is connected to the lost, at once, and what was just being connected a moment later.</summary>
    private async Task CloseSocketsAsync(CancellationToken cancellation)
    {
        // One look serves all that were lost until then.
        await foreach (var _ in _lost.Reader.ReadAllAsync(cancellation))
        {
            _datapath.Sockets.Close();
            await Task.Delay(SecondLook, _time, cancellation);
            _datapath.Sockets.Close();
        }
    }

    private async Task ChooseAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(ChoiceInterval, _time);
        (long Nodes, long Frontends, long IPCache, int Suspects) chosen = (-1, -1, -1, -1);
        var rounds = 0;
        HashSet<uint> inUse = [];
        do
        {
            EndCostlyDrills();
            _datapath.Liveness.ClearOldDrills();
            _datapath.Backends.SetSynTimeout(SynTimeoutFor(Report));
            _tellLost(_datapath.Liveness.Lost(inUse));
            var now = (_state.Nodes.Revision, _state.Frontends.Revision, _state.IPCache.Revision, Suspects().Count);
            // The kernel's indexes follow the tables: look again for a while.
            rounds = now == chosen ? rounds - 1 : 6;
            if (rounds < 0)
                continue;
            if (now.Item2 != chosen.Frontends)
                inUse = [.. _state.Frontends.Snapshot().SelectMany(pair => pair.Value.Row.Backends.Items.Select(backend => backend.ClusterId))];
            chosen = now;
            _prober.Ask(TargetChoice.Choose(_self.Name.ToString(), Candidates(inUse)), Device());
        }
        while (await timer.WaitForNextTickAsync(cancellation));
    }

    /// <summary>Whoever began them may be gone.</summary>
    private void EndCostlyDrills()
    {
        var (ended, since) = _datapath.Drills.Look();
        foreach (var id in ended)
            _lines.Writer.TryWrite(string.Create(CultureInfo.InvariantCulture,
                $"liveness: the drill of cluster {_names.GetValueOrDefault(id) ?? $"with ID {id}"} is ended: "
                + $"{since.Failed} of {since.Flows} new flows failed"));
    }

    /// <summary>Four times the longest way to a node in use: a question that takes so long is lost.</summary>
    internal static TimeSpan SynTimeoutFor(LivenessReport report)
    {
        var longest = 4 * report.Nodes.Where(node => node.IsIn && node.Role != TargetRole.Watched)
            .Select(node => node.RoundTrip).DefaultIfEmpty().Max();
        return longest < SynTimeout.Least ? SynTimeout.Least : longest > SynTimeout.Most ? SynTimeout.Most : longest;
    }

    private List<ProbeCandidate> Candidates(HashSet<uint> inUse)
    {
        var suspects = Suspects();
        var candidates = new List<ProbeCandidate>();
        var names = new Dictionary<uint, string>();
        foreach (var (_, entry) in _state.Nodes.Snapshot())
        {
            var node = entry.Row;
            names[node.ClusterId] = node.Name.Cluster;
            var address = node.Addresses.Items.Where(address => address.Type == AddressType).OrderBy(address => address.Address.IsV6)
                .Select(address => address.Address.ToIPAddress()).FirstOrDefault();
            if (node.IsLocalNode || address is null)
                continue;
            var endpoint = node.UnderlayAddress(_underlay.IsV6) ?? node.UnderlayAddress(!_underlay.IsV6);
            var index = endpoint is { } known ? _datapath.NodeIndex(known) : 0;
            candidates.Add(new ProbeCandidate(node.Name, node.ClusterId, index, address, node.Name.Cluster == _self.Name.Cluster,
                inUse.Contains(node.ClusterId), suspects.Contains(index), _datapath.Liveness.SinceHeard(index) is not null));
        }
        _names = names;
        return candidates;
    }

    private HashSet<uint> Suspects()
    {
        lock (_suspects)
        {
            foreach (var (node, since) in _suspects.ToList())
                if (_time.GetElapsedTime(since) > SuspicionLasts)
                    _suspects.Remove(node);
            return [.. _suspects.Keys];
        }
    }

    /// <summary>The device with the tunnel's outer address; null when none has it now.</summary>
    private string? Device() => NetworkInterface.GetAllNetworkInterfaces().FirstOrDefault(device => device.GetIPProperties().UnicastAddresses
        .Any(address => IpAddr.TryParse(address.Address.ToString(), out var parsed) && parsed == _underlay))?.Name;

    private static long Enough(TargetRole role) => role is TargetRole.Watched or TargetRole.Reserve ? 4 : 60;
}
