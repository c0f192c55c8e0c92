using Mesh.Kubernetes.Policies;
using Mesh.Model;

namespace Mesh.Policy.Rules;

/// <summary>Whom a rule means. Equal selectors are one, whichever rules they stand in: each identity is asked once.</summary>
public abstract record PeerSelector
{
    public abstract bool Selects(PeerIdentity who);

    /// <summary>True when it means even those of whom nothing is known.</summary>
    public virtual bool SelectsAnybody => false;

    /// <summary>What the spec's peer means in this cluster.</summary>
    /// <param name="cluster">Name of the own cluster.</param>
    /// <param name="defaultLocal">A selector that names no cluster means the own one.</param>
    /// <returns>Null for nobody.</returns>
    public static PeerSelector? Of(PeerSpec peer, string cluster, bool defaultLocal) => peer switch
    {
        LabelPeer { Selector: var selector } => new PodsSelector(
            defaultLocal && !selector.NamesReserved && !selector.Names(LabelSelector.ClusterLabel)
                ? selector.And(LabelRequirement.Is("k8s:" + LabelSelector.ClusterLabel, cluster))
                : selector),
        CidrPeer { Range: var range, Except: var except } => new RangeSelector(range, except),
        EntityPeer { Entity: "none" } => null,
        EntityPeer { Entity: "all" } => new AnybodySelector(),
        EntityPeer { Entity: "cluster" } => new ClusterSelector(cluster),
        EntityPeer { Entity: var entity } => new ReservedSelector(entity),
        _ => throw new ArgumentException($"no selector for {peer}", nameof(peer)),
    };
}

public sealed record AnybodySelector : PeerSelector
{
    public override bool SelectsAnybody => true;

    public override bool Selects(PeerIdentity who) => true;

    public override string ToString() => "everybody";
}

public sealed record PodsSelector(LabelSelector Labels) : PeerSelector
{
    public override bool Selects(PeerIdentity who) => who.Range is null && who.Meets(Labels);

    public override string ToString() => Labels.ToString();
}

/// <summary>Everything of the own cluster, its nodes, and the nodes of others: they have one identity.</summary>
public sealed record ClusterSelector(string Cluster) : PeerSelector
{
    private static readonly string[] Reserved = ["host", "remote-node", "init", "health", "unmanaged", "kube-apiserver", "ingress"];

    public override bool Selects(PeerIdentity who) =>
        who.Labels.TryGetValue("k8s:" + LabelSelector.ClusterLabel, out var cluster) && cluster == Cluster
        || Reserved.Any(word => who.Labels.ContainsKey($"reserved:{word}"));

    public override string ToString() => $"cluster {Cluster}";
}

/// <param name="Entity">World, host, remote-node, …: the word behind "reserved:".</param>
public sealed record ReservedSelector(string Entity) : PeerSelector
{
    public override bool Selects(PeerIdentity who) => who.Labels.ContainsKey($"reserved:{Entity}");

    public override string ToString() => Entity;
}

/// <summary>Addresses outside the mesh: never a pod or a node, whatever their addresses.</summary>
public sealed record RangeSelector(IpPrefix Range, EquatableArray<IpPrefix> Except) : PeerSelector
{
    public override bool Selects(PeerIdentity who) => who.Range is { } range && Within(range, Range) && !Except.Items.Any(except => Within(range, except));

    /// <summary>Ranges that need an identity of their own for this selector to be told apart.</summary>
    public IEnumerable<IpPrefix> Named => Except.Items.Prepend(Range);

    public override string ToString() => Except.Count == 0 ? $"{Range}" : $"{Range} except {string.Join(", ", Except)}";

    private static bool Within(IpPrefix inner, IpPrefix outer) =>
        inner.Address.IsV6 == outer.Address.IsV6 && inner.Length >= outer.Length && outer.Contains(inner.Address);
}
