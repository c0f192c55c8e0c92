using Mesh.Model;

namespace Mesh.Kubernetes.Policies;

public enum LabelOperator
{
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// <summary>One condition on labels. Of an absent label, <see cref="LabelOperator.NotIn"/> and <see cref="LabelOperator.DoesNotExist"/> hold.</summary>
/// <param name="Key">Always with its source: k8s:app, reserved:host, or any:app, which every source satisfies.</param>
/// <param name="Values">Empty for Exists and DoesNotExist.</param>
public readonly record struct LabelRequirement(string Key, LabelOperator Operator, EquatableArray<string> Values)
{
    public static LabelRequirement Is(string key, string value) => new(key, LabelOperator.In, new([value]));

    public static LabelRequirement Has(string key) => new(key, LabelOperator.Exists, default);

    /// <summary>The key without its source.</summary>
    public string Name => Key[(Key.IndexOf(':', StringComparison.Ordinal) + 1)..];

    public override string ToString() => Operator switch
    {
        LabelOperator.In when Values.Count == 1 => $"{Key}={Values[0]}",
        LabelOperator.In => $"{Key} in ({string.Join(',', Values)})",
        LabelOperator.NotIn => $"{Key} not in ({string.Join(',', Values)})",
        LabelOperator.Exists => Key,
        _ => $"!{Key}",
    };
}

/// <summary>All of its requirements must hold; without any it selects everything.</summary>
public sealed record LabelSelector(EquatableArray<LabelRequirement> Requirements)
{
    /// <summary>In which namespace a pod is.</summary>
    public const string NamespaceLabel = "io.kubernetes.pod.namespace";

    /// <summary>Begins the labels that a pod has from its namespace.</summary>
    public const string NamespaceLabelsPrefix = "io.cilium.k8s.namespace.labels.";

    /// <summary>To which cluster a pod belongs.</summary>
    public const string ClusterLabel = "io.cilium.k8s.policy.cluster";

    public static readonly LabelSelector Everything = new(default(EquatableArray<LabelRequirement>));

    /// <summary>True when a requirement speaks of this label, by source k8s or any.</summary>
    public bool Names(string label) => Requirements.Items.Any(one => one.Name == label && !IsReserved(one));

    /// <summary>True when it speaks of identities that are no pods.</summary>
    public bool NamesReserved => Requirements.Items.Any(IsReserved);

    public LabelSelector And(params LabelRequirement[] more) => new(new EquatableArray<LabelRequirement>([.. Requirements.Items, .. more]));

    public override string ToString() => Requirements.Count == 0 ? "everything" : string.Join(", ", Requirements);

    private static bool IsReserved(LabelRequirement requirement) => requirement.Key.StartsWith("reserved:", StringComparison.Ordinal);
}
