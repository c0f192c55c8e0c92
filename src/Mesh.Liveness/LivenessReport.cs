using Mesh.Model;

namespace Mesh.Liveness;

/// <summary>What the judge thinks at one moment. Immutable.</summary>
/// <param name="LateTurns">Turns that came too late for a judgement.</param>
/// <param name="SelfSuspicions">Times when everybody was silent at once, and the observer blamed itself.</param>
/// <param name="LinkDown">The device of the tunnel has no carrier now.</param>
public sealed record LivenessReport(
    IReadOnlyList<ClusterReport> Clusters, IReadOnlyList<NodeReport> Nodes, long LateTurns, long SelfSuspicions, bool LinkDown)
{
    public static LivenessReport Empty { get; } = new([], [], 0, 0, false);
}

/// <param name="Share">Of 255; less on its way back.</param>
/// <param name="Since">Age of the state; null = as it was found.</param>
/// <param name="HoldLeft">Until it may come back; null while it is in, or silent.</param>
/// <param name="Transitions">Times it went out or in.</param>
public sealed record ClusterReport(
    uint ClusterId, bool IsIn, byte Share, TimeSpan? Since, TimeSpan? HoldLeft, int Representatives, int Silent, int Transitions);

/// <param name="IsSilent">Owes answers to so many probes now that it would be judged by them.</param>
/// <param name="Proved">Has ever answered; who never did is not judged.</param>
/// <param name="SinceAnswer">Age of the last answer; null when there was none.</param>
public sealed record NodeReport(
    NodeName Name, uint ClusterId, uint Index, TargetRole Role, bool IsIn, bool IsSilent, bool Proved, TimeSpan RoundTrip, TimeSpan? SinceAnswer,
    long Sent, long Answered);
