using Mesh.Kubernetes.Objects;
using Mesh.Kubernetes.Policies;

namespace Mesh.Policy.Rules;

public enum PolicyDirection
{
    Ingress,
    Egress,
}

/// <summary>One rule of one object.</summary>
/// <param name="Number">Index of its counter; <see cref="RuleNumbers.Shared"/> when there are more rules than counters.</param>
/// <param name="Field">spec.ingress[0].</param>
/// <param name="Peers">Any of them.</param>
/// <param name="Ports">Any of them; null = everything.</param>
public sealed record PolicyRule(
    uint Number, ObjectKey Object, string Field, PolicyDirection Direction, bool Deny, IReadOnlyList<PeerSelector> Peers, IReadOnlyList<PortSpec>? Ports)
{
    /// <summary>CiliumNetworkPolicy shop/web spec.ingress[0].</summary>
    public string Name => $"{Object} {Field}";
}

/// <summary>What one spec of an object says of one direction. Made anew when the object changes and never changed: a rule set is known
/// by the specs that it is made of.</summary>
public sealed record SpecRules(
    int Serial, ObjectKey Object, string Field, LabelSelector Subject, PolicyDirection Direction, bool DefaultDeny, IReadOnlyList<PolicyRule> Rules);

/// <summary>Hands out the counters of rules.</summary>
public sealed class RuleNumbers
{
    private const uint Capacity = 16384;

    /// <summary>Counts for all rules that found no counter of their own.</summary>
    public const uint Shared = Capacity - 1;

    private readonly Queue<uint> _free = new();
    private uint _next = 1;

    /// <summary>A number freed longest ago comes last: an old row may still name it for a moment.</summary>
    public uint Take() => _next < Shared ? _next++ : _free.TryDequeue(out var number) ? number : Shared;

    public void Free(uint number)
    {
        if (number != Shared)
            _free.Enqueue(number);
    }
}
