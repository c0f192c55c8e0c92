using Mesh.Model;

namespace Mesh.Kubernetes.Policies;

/// <summary>What a policy object says, whichever of the three kinds it is. Namespaces are settled here; which cluster a selector
/// means is left to whoever knows the own cluster's name.</summary>
/// <param name="Unsupported">Fields that we do not do, each with what holds in its place: always the stricter.</param>
public sealed record PolicyReading(IReadOnlyList<PolicySpec> Specs, IReadOnlyList<string> Unsupported)
{
    /// <summary>Reads the object.</summary>
    /// <exception cref="PolicyFaultException">It cannot be a policy: names the field and the mend.</exception>
    public static PolicyReading Of(Objects.KubernetesObject policy) => policy switch
    {
        Objects.NetworkPolicy one => NetworkPolicyReader.Read(one),
        Objects.CiliumNetworkPolicy one => new CiliumPolicyReader(one.Metadata.Namespace ?? "default").Read(one.Spec, one.Specs),
        Objects.CiliumClusterwideNetworkPolicy one => new CiliumPolicyReader(null).Read(one.Spec, one.Specs),
        _ => throw new ArgumentException($"{policy.Key} is no policy", nameof(policy)),
    };
}

/// <param name="Field">Where it stands in the object: spec, specs[1].</param>
/// <param name="Subject">The pods of this cluster that it applies to.</param>
/// <param name="Ingress">Null when it says nothing about this direction.</param>
public sealed record PolicySpec(string Field, LabelSelector Subject, SpecDirection? Ingress, SpecDirection? Egress);

/// <param name="DefaultDeny">What no rule allows is denied for the subjects.</param>
public sealed record SpecDirection(bool DefaultDeny, IReadOnlyList<RuleSpec> Rules);

/// <param name="Field">spec.ingress[0], spec.egressDeny[2].</param>
/// <param name="Peers">Any of them; empty = nobody.</param>
/// <param name="Ports">Any of them; null = every protocol and port.</param>
public sealed record RuleSpec(string Field, bool Deny, IReadOnlyList<PeerSpec> Peers, IReadOnlyList<PortSpec>? Ports);

/// <summary>Who is meant at the other end.</summary>
public abstract record PeerSpec
{
    /// <summary>Everybody.</summary>
    public static readonly PeerSpec Anybody = new EntityPeer("all");
}

public sealed record LabelPeer(LabelSelector Selector) : PeerSpec;

/// <param name="Entity">One of <see cref="Entities"/>.</param>
public sealed record EntityPeer(string Entity) : PeerSpec
{
    public static readonly IReadOnlySet<string> Entities = new HashSet<string>(StringComparer.Ordinal)
    {
        "all", "world", "world-ipv4", "world-ipv6", "cluster", "host", "remote-node", "kube-apiserver", "init", "health", "unmanaged",
        "ingress", "none",
    };
}

/// <summary>Addresses outside the mesh.</summary>
/// <param name="Except">Ranges inside it that are not meant.</param>
public sealed record CidrPeer(IpPrefix Range, EquatableArray<IpPrefix> Except) : PeerSpec;

/// <summary>Ports of a protocol, or ICMP types.</summary>
/// <param name="Protocol">As in the IP header.</param>
/// <param name="First">Port; type of an ICMP message.</param>
/// <param name="Last">Not below <paramref name="First"/>.</param>
/// <param name="Name">Of a port that pods give a number to, each its own; null when the numbers are said.</param>
public readonly record struct PortSpec(byte Protocol, ushort First, ushort Last, string? Name = null)
{
    public const byte Icmp = 1;
    public const byte IcmpV6 = 58;

    public static string NameOf(byte protocol) => protocol switch
    {
        Icmp => "ICMP",
        6 => "TCP",
        17 => "UDP",
        IcmpV6 => "ICMPv6",
        132 => "SCTP",
        _ => protocol.ToString(System.Globalization.CultureInfo.InvariantCulture),
    };

    /// <summary>80/TCP, 8000-8100/UDP, 0-65535/TCP; http/TCP, and http(8080)/TCP once its number is known.</summary>
    public override string ToString()
    {
        var range = First == Last ? $"{First}" : $"{First}-{Last}";
        return Name is null ? $"{range}/{NameOf(Protocol)}" : Last == 0 ? $"{Name}/{NameOf(Protocol)}" : $"{Name}({range})/{NameOf(Protocol)}";
    }
}

/// <summary>An object that cannot be a policy. The message names the field, its value and what is allowed.</summary>
public sealed class PolicyFaultException(string message) : Exception(message);
