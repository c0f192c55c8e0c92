using System.Net;
using Mesh.Model;

namespace Mesh.Liveness;

/// <summary>A node that could be asked.</summary>
/// <param name="InUse">Its cluster has backends that this node's services may use.</param>
/// <param name="Suspect">Something else, such as a failed connection, speaks against it: it is asked whatever the others do.</param>
public sealed record ProbeCandidate(NodeName Name, uint ClusterId, uint Index, IPAddress Address, bool IsOwnCluster, bool InUse, bool Suspect, bool Proved);

/// <summary>
/// Which nodes speak for their cluster. Every observer draws its own few by rendezvous hashing with its own name, so that the
/// questions of a large mesh spread over all nodes, and a node that joins or leaves changes next to nothing.
/// </summary>
public static class TargetChoice
{
    /// <summary>Nodes that speak for a peer cluster.</summary>
    public const int Representatives = 3;

    /// <summary>Further nodes that are asked while those are in doubt.</summary>
    public const int Reserves = 5;

    /// <summary>Nodes of the own cluster.</summary>
    public const int OwnNodes = 16;

    /// <summary>Nodes of all clusters that are asked for the status only.</summary>
    public const int Watched = 64;

    public static IReadOnlyList<ProbeTarget> Choose(string observer, IEnumerable<ProbeCandidate> candidates)
    {
        var targets = new List<ProbeTarget>();
        foreach (var cluster in candidates.GroupBy(candidate => (candidate.ClusterId, candidate.IsOwnCluster)))
        {
            var drawn = cluster.OrderBy(candidate => Draw(observer, candidate.Name.ToString())).ToList();
            for (var place = 0; place < drawn.Count; place++)
                targets.Add(Target(drawn[place], Role(drawn[place], place)));
        }
        var watched = targets.Where(target => target.Role == TargetRole.Watched).OrderBy(target => Draw(observer, target.Name.ToString()));
        return [.. targets.Where(target => target.Role != TargetRole.Watched), .. watched.Take(Watched)];
    }

    private static TargetRole Role(ProbeCandidate candidate, int place) => candidate switch
    {
        { IsOwnCluster: true } => place < OwnNodes || candidate.Suspect ? TargetRole.OwnNode : TargetRole.Watched,
        { InUse: false } => TargetRole.Watched,
        { Suspect: true } => TargetRole.Representative,
        _ when place < Representatives => TargetRole.Representative,
        _ when place < Representatives + Reserves => TargetRole.Reserve,
        _ => TargetRole.Watched,
    };

    private static ProbeTarget Target(ProbeCandidate candidate, TargetRole role) =>
        new(candidate.Name, candidate.ClusterId, candidate.Index, candidate.Address, role, candidate.Proved);

    /// <summary>FNV-1a, stirred: the same in every process.</summary>
    private static uint Draw(string observer, string node)
    {
        var hash = 2166136261u;
        foreach (var c in observer)
            hash = (hash ^ c) * 16777619;
        hash = (hash ^ 0x9e) * 16777619;
        foreach (var c in node)
            hash = (hash ^ c) * 16777619;
        hash ^= hash >> 16;
        hash *= 0x85ebca6b;
        return hash ^ hash >> 13;
    }
}
