namespace Mesh.Joining.Checks;

/// <summary>A cluster and all that it is connected to, as one side of a comparison.</summary>
/// <param name="Peers">Without the cluster itself; an ID of 0 is not known.</param>
public sealed record Membership(PeerFacts Itself, IReadOnlyList<PeerFacts> Peers)
{
    /// <summary>The cluster first.</summary>
    public IEnumerable<PeerFacts> All => Peers.Prepend(Itself);

    internal bool IsItself(PeerFacts member) => member.Name == Itself.Name;

    internal string Whose(PeerFacts member) => IsItself(member) ? member.Name : $"{member.Name} (a peer of {Itself.Name})";
}
