using System.Net;
using Mesh.Model;

namespace Mesh.Liveness;

/// <summary>What a target is asked for.</summary>
public enum TargetRole
{
    /// <summary>For the status only; never judged.</summary>
    Watched,

    /// <summary>Asked only while a representative of its cluster owes an answer.</summary>
    Reserve,

    /// <summary>Speaks for its cluster, and for itself.</summary>
    Representative,

    /// <summary>A node of the own cluster: speaks for itself, and bears witness that the observer can still hear.</summary>
    OwnNode,
}

/// <summary>A node to be asked.</summary>
/// <param name="Index">Its index in the datapath's nodes; 0 = the datapath does not know it, so it cannot be taken out alone.</param>
/// <param name="Address">Its address inside the mesh, which is reached through the tunnel.</param>
/// <param name="Proved">It has been heard before, by an earlier run: it may be judged although it has not answered this one.</param>
public sealed record ProbeTarget(NodeName Name, uint ClusterId, uint Index, IPAddress Address, TargetRole Role, bool Proved = false);

/// <summary>One question on its way.</summary>
/// <param name="Sequence">Counts the questions to this target, and never repeats.</param>
public readonly record struct Probe(ProbeTarget Target, uint Sequence);

/// <summary>What is to be done, in this order.</summary>
public enum VerdictKind
{
    NodeOut,
    NodeIn,
    ClusterOut,

    /// <summary>Back in, at the share given by <see cref="Verdict.Share"/>.</summary>
    ClusterIn,

    /// <summary>Another step on the way to the full share.</summary>
    ClusterShare,
}

/// <summary>A decision of the judge.</summary>
/// <param name="ClusterId">The cluster, or that of the node.</param>
/// <param name="Node">Index of the node; 0 for a cluster.</param>
/// <param name="Share">1 to 255, 255 = full; for clusters that are in.</param>
/// <param name="Silence">For how long nothing had been heard; zero for a return.</param>
public readonly record struct Verdict(VerdictKind Kind, uint ClusterId, uint Node, byte Share, TimeSpan Silence);
