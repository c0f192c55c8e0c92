namespace Mesh.ClusterMesh.Door;

/// <summary>One commit that waits for its turn, or for somebody who has it and takes it along.</summary>
internal sealed class MirrorCommission(IReadOnlyList<MirrorChange> changes)
{
    private const int Waiting = 0;
    private const int Taken = 1;
    private const int Withdrawn = 2;

    private int _state;
    private MirrorCommit _result;
    private Exception? _fault;

    public IReadOnlyList<MirrorChange> Changes { get; } = changes;

    /// <summary>For who has the turn.</summary>
    public bool IsDone { get; private set; }

    /// <exception cref="InvalidOperationException">The group it was committed with failed.</exception>
    public MirrorCommit Result => _fault is null ? _result : throw new InvalidOperationException($"not committed: {_fault.Message}", _fault);

    /// <summary>From now on it is being committed. False when its caller has left.</summary>
    public bool TryTake() => Interlocked.CompareExchange(ref _state, Taken, Waiting) == Waiting;

    /// <summary>Its caller leaves. False when it is too late for that.</summary>
    public bool TryWithdraw() => Interlocked.CompareExchange(ref _state, Withdrawn, Waiting) == Waiting;

    public void Complete(MirrorCommit result) => (_result, IsDone) = (result, true);

    public void Fail(Exception fault) => (_fault, IsDone) = (fault, true);
}

/// <summary>
/// When a commit should wait a little for others: where several have just been made one by one. Each costs a write, and a wake-up of all that
/// read; events of many peers come at slightly different moments, and those of one peer together. Who comes alone never waits, nor do the few
/// commits that one change of a peer makes.
/// </summary>
internal sealed class Gathering(TimeSpan pause, TimeProvider time)
{
    /// <summary>So many, within so long, make it worth while.</summary>
    private const int Many = 3;
    private static readonly TimeSpan Lately = TimeSpan.FromMilliseconds(8);

    private readonly long?[] _last = new long?[Many];
    private int _next;

    public void Committed()
    {
        _last[_next] = time.GetTimestamp();
        _next = (_next + 1) % Many;
    }

    /// <param name="alone">Nobody else waits already.</param>
    public async ValueTask PauseAsync(bool alone)
    {
        if (alone && pause > TimeSpan.Zero && _last[_next] is { } first && time.GetElapsedTime(first) < Lately)
            await Task.Delay(pause, time);
    }
}
