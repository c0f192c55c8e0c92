namespace Mesh.Liveness;

/// <summary>How often is asked, how long is waited, and how slowly trust comes back. The defaults take a cluster that falls silent
/// out 140 to 200 ms after its last answer.</summary>
public sealed record LivenessOptions
{
    /// <summary>Between two probes of a node in good health.</summary>
    public TimeSpan Period { get; init; } = TimeSpan.FromMilliseconds(50);

    /// <summary>Between two probes of a node that owes an answer: many lost in a row are no accident, three might be.</summary>
    public TimeSpan DoubtPeriod { get; init; } = TimeSpan.FromMilliseconds(10);

    /// <summary>Between two probes of a node that is asked for the status only.</summary>
    public TimeSpan WatchPeriod { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>Periods without an answer after which a node counts as silent.</summary>
    public int Losses { get; init; } = 3;

    /// <summary>Probes that must be overdue besides, those of the doubt included.</summary>
    public int Overdue { get; init; } = 10;

    /// <summary>A probe is overdue after this, or what the node's own answers take if that is longer.</summary>
    public TimeSpan Patience { get; init; } = TimeSpan.FromMilliseconds(40);

    /// <summary>A probe raises doubt after this, or what the node's own answers take if that is longer.</summary>
    public TimeSpan DoubtAfter { get; init; } = TimeSpan.FromMilliseconds(15);

    /// <summary>How long packets that still arrive from a node, while it answers nothing, put off the judgement. They prove that it
    /// lives, but not that there is a way to it.</summary>
    public TimeSpan PassiveCredit { get; init; } = TimeSpan.FromMilliseconds(500);

    /// <summary>A turn that comes this much too late is that of an observer who cannot tell losses from its own sleep.</summary>
    public TimeSpan Late { get; init; } = TimeSpan.FromMilliseconds(40);

    /// <summary>How long one must have answered well to be let in again; doubled by every flap.</summary>
    public TimeSpan Hold { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>Bound of the doubling.</summary>
    public TimeSpan HoldMax { get; init; } = TimeSpan.FromSeconds(40);

    /// <summary>Answers in a row besides.</summary>
    public int GoodAnswers { get; init; } = 5;

    /// <summary>Staying in for so long makes earlier flaps forgotten.</summary>
    public TimeSpan FlapMemory { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>From the first new flow to a returned cluster to its full share.</summary>
    public TimeSpan Ramp { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>Between two steps of the ramp.</summary>
    public TimeSpan RampStep { get; init; } = TimeSpan.FromMilliseconds(100);

    /// <summary>Silence from the first unanswered probe on that makes a node silent: the time of the last of <see cref="Losses"/>
    /// probes, and its patience.</summary>
    internal TimeSpan OutAfter(TimeSpan patience) => (Losses - 1) * Period + patience;
}
