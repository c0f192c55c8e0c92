using System.Text.RegularExpressions;

namespace Mesh.Model;

/// <summary>A Service, unique within one cluster; the same name in two clusters is one global service.</summary>
public readonly record struct ServiceName(string Namespace, string Name) : IComparable<ServiceName>
{
    public override string ToString() => $"{Namespace}/{Name}";

    public int CompareTo(ServiceName other)
    {
        var byNamespace = string.CompareOrdinal(Namespace, other.Namespace);
        return byNamespace != 0 ? byNamespace : string.CompareOrdinal(Name, other.Name);
    }

    public static bool operator <(ServiceName left, ServiceName right) => left.CompareTo(right) < 0;

    public static bool operator >(ServiceName left, ServiceName right) => left.CompareTo(right) > 0;

    public static bool operator <=(ServiceName left, ServiceName right) => left.CompareTo(right) <= 0;

    public static bool operator >=(ServiceName left, ServiceName right) => left.CompareTo(right) >= 0;
}

/// <summary>A node of any cluster, written cluster/node.</summary>
public readonly record struct NodeName(string Cluster, string Name)
{
    public override string ToString() => $"{Cluster}/{Name}";
}

/// <summary>Rules for cluster names; source: the wire contract, row 45 of its edge cases.</summary>
public static partial class ClusterName
{
    /// <summary>Longest name, in characters.</summary>
    public const int MaxLength = 32;

    // \z and not $, which would let a line end through.
    [GeneratedRegex(@"\A([a-z0-9][-a-z0-9]*)?[a-z0-9]\z")]
    private static partial Regex Pattern();

    /// <summary>Null when the name may be used by a cluster with a non-zero ID, otherwise the reason why not.</summary>
    public static string? Validate(string name)
    {
        if (name.Length is 0 or > MaxLength)
            return $"cluster name '{name}' must have 1 to {MaxLength} characters";
        if (name == "default")
            return "cluster name 'default' is reserved for clusters outside a mesh: choose another";
        return Pattern().IsMatch(name)
            ? null
            : $"cluster name '{name}' may hold only a-z, 0-9 and '-', and must begin and end with a letter or digit";
    }
}
