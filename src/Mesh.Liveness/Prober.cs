using Mesh.Model;

namespace Mesh.Liveness;

/// <summary>Where verdicts take effect. Called on the prober's thread: must not wait, nor throw.</summary>
public interface ILivenessSink
{
    /// <summary>All of one turn, in their order.</summary>
    void Apply(IReadOnlyList<Verdict> verdicts);

    /// <summary>Age of the last packet of a node that arrived by the tunnel; null when none ever did, or none is counted.</summary>
    TimeSpan? SinceSeen(uint node);

    /// <summary>A node answered; called no oftener than once a second for each.</summary>
    void Heard(uint node);
}

/// <summary>
/// The loop around <see cref="LivenessJudge"/>: asks, listens, lets judge, hands on. A thread of its own with real-time priority and
/// the kernel's monotonic clock; it takes what has arrived before it judges, so that its own sleep is not taken for the others' silence.
/// </summary>
public sealed class Prober
{
    private static readonly TimeSpan ReportInterval = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan HeardInterval = TimeSpan.FromSeconds(1);

    private readonly LivenessJudge _judge;
    private readonly ILivenessSink _sink;
    private readonly TimeProvider _time;
    private readonly long _start;
    private readonly Dictionary<NodeName, uint> _keys = [];
    private readonly Dictionary<uint, (ProbeTarget Target, TimeSpan? HeardAt)> _targets = [];
    private readonly List<Verdict> _verdicts = [];
    private readonly List<Probe> _probes = [];
    private volatile Wanted? _wanted;
    private volatile LivenessReport _report = LivenessReport.Empty;
    private volatile string? _realTime = "the prober has not started";
    private uint _nextKey;

    public Prober(LivenessJudge judge, ILivenessSink sink, TimeProvider time)
    {
        _judge = judge;
        _sink = sink;
        _time = time;
        _start = time.GetTimestamp();
    }

    /// <summary>At most a fifth of a second old. From any thread.</summary>
    public LivenessReport Report => _report;

    /// <summary>Null when the thread has real-time priority, else why it has not.</summary>
    public string? RealTimeProblem => _realTime;

    /// <summary>Whom to ask from the next turn on. From any thread.</summary>
    /// <param name="device">The device of the tunnel's outer packets; null when it is not known.</param>
    public void Ask(IReadOnlyList<ProbeTarget> targets, string? device) => _wanted = new Wanted(targets, device);

    /// <summary>Probes from the network namespace of the calling thread's process until cancelled. Faults come out of the task.</summary>
    public Task RunAsync(CancellationToken cancellation)
    {
        var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var thread = new Thread(() =>
        {
            try
            {
                Run(cancellation);
                ended.SetCanceled(cancellation);
            }
            catch (Exception exception)
            {
                ended.SetException(exception);
            }
        })
        { IsBackground = true, Name = "prober" };
        thread.Start();
        return ended.Task;
    }

    private TimeSpan Now => _time.GetElapsedTime(_start);

    private void Run(CancellationToken cancellation)
    {
        _realTime = RealTimeThread.Request();
        using var echo = new EchoSocket();
        string? device = null;
        TimeSpan? reported = null;
        var answered = (Action<uint, uint>)Answered;
        while (!cancellation.IsCancellationRequested)
        {
            if (Interlocked.Exchange(ref _wanted, null) is { } wanted)
            {
                Take(wanted.Targets);
                device = wanted.Device;
                echo.Forget();
            }
            echo.Drain(answered);
            var now = Now;
            foreach (var target in _judge.Owing)
                if (target.Index != 0 && _sink.SinceSeen(target.Index) is { } age)
                    _judge.Seen(target.Name, now - age);
            _verdicts.Clear();
            _judge.Turn(now, device is null || echo.HasCarrier(device), _verdicts);
            if (_verdicts.Count > 0)
                _sink.Apply(_verdicts);
            _probes.Clear();
            _judge.Due(now, _probes);
            foreach (var probe in _probes)
                echo.Send(probe.Target.Address, _keys[probe.Target.Name], probe.Sequence);
            if (_verdicts.Count > 0 || reported is null || now - reported >= ReportInterval)
            {
                _report = _judge.Report(now);
                reported = now;
            }
            echo.Wait(_judge.NextTurn - Now);
        }
    }

    private void Take(IReadOnlyList<ProbeTarget> targets)
    {
        foreach (var gone in _keys.Keys.Except(targets.Select(target => target.Name)).ToList())
            if (_keys.Remove(gone, out var key))
                _targets.Remove(key);
        foreach (var target in targets)
        {
            if (!_keys.TryGetValue(target.Name, out var key))
                _keys[target.Name] = key = _nextKey++;
            _targets[key] = (target, _targets.TryGetValue(key, out var known) ? known.HeardAt : null);
        }
        _judge.SetTargets(targets);
    }

    private void Answered(uint key, uint sequence)
    {
        if (!_targets.TryGetValue(key, out var one))
            return;
        var now = Now;
        _judge.Answered(one.Target.Name, sequence, now);
        if (one.Target.Index == 0 || now - one.HeardAt < HeardInterval)
            return;
        _sink.Heard(one.Target.Index);
        _targets[key] = (one.Target, now);
    }

    private sealed record Wanted(IReadOnlyList<ProbeTarget> Targets, string? Device);
}
