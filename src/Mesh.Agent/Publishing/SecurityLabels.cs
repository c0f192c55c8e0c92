using System.Security.Cryptography;
using System.Text;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;

namespace Mesh.Agent.Publishing;

/// <summary>
/// What identifies a pod to policies: its own labels and its namespace's, its service account, its namespace and its cluster. Labels that
/// name a single pod or a single rollout are left out, or every pod would be an identity of its own.
/// </summary>
internal sealed class SecurityLabels : IEquatable<SecurityLabels>
{
    /// <summary>Keys that begin so say nothing of who a pod is.</summary>
    private static readonly string[] LeftOut =
    [
        "io.kubernetes", "kubernetes.io", "k8s.io", "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/job-completion-index", "batch.kubernetes.io/controller-uid", "controller-uid", "pod-template-generation",
        "pod-template-hash", "controller-revision-hash", "annotation.", "etcd_node",
    ];

    private readonly SortedDictionary<string, string> _labels;

    private SecurityLabels(SortedDictionary<string, string> labels)
    {
        _labels = labels;
        Text = string.Concat(labels.Select(label => $"{label.Key}={label.Value};"));
        Digest = SHA256.HashData(Encoding.UTF8.GetBytes(Text));
    }

    /// <summary>"source:key" → value.</summary>
    public IReadOnlyDictionary<string, string> Labels => _labels;

    /// <summary>All of them in order: equal texts are equal labels.</summary>
    public string Text { get; }

    /// <summary>SHA-256 of the text.</summary>
    public byte[] Digest { get; }

    /// <summary>"source:key=value", as endpoints list them.</summary>
    public IEnumerable<string> Listed => _labels.Select(label => $"{label.Key}={label.Value}");

    /// <param name="place">Null while the namespace is unknown: its labels are not taken.</param>
    public static SecurityLabels Of(Pod pod, Namespace? place, string cluster)
    {
        var labels = new SortedDictionary<string, string>(StringComparer.Ordinal);
        void Add(string key, string value) => labels[$"{IdentityLabels.KubernetesSource}:{key}"] = value;
        foreach (var (key, value) in pod.Metadata.Labels ?? new Dictionary<string, string>())
        {
            if (Identifies(key))
                Add(key, value);
        }
        foreach (var (key, value) in place?.Metadata.Labels ?? new Dictionary<string, string>())
            Add(IdentityLabels.NamespaceLabelsPrefix + key, value);
        Add(IdentityLabels.NamespaceKey, pod.Metadata.Namespace ?? "");
        Add(IdentityLabels.ServiceAccountKey, pod.Spec?.ServiceAccountName is { Length: > 0 } account ? account : "default");
        Add(IdentityLabels.ClusterKey, cluster);
        return new SecurityLabels(labels);
    }

    /// <summary>Null when the object has none.</summary>
    public static SecurityLabels? Of(CiliumIdentity identity) => identity.SecurityLabels is { Count: > 0 } labels
        ? new SecurityLabels(new SortedDictionary<string, string>(labels.ToDictionary(), StringComparer.Ordinal))
        : null;

    public bool Equals(SecurityLabels? other) => other is not null && other.Text == Text;

    public override bool Equals(object? obj) => Equals(obj as SecurityLabels);

    public override int GetHashCode() => Text.GetHashCode(StringComparison.Ordinal);

    private static bool Identifies(string key) =>
        !LeftOut.Any(prefix => key.StartsWith(prefix, StringComparison.Ordinal)) && !key.Contains("beta.kubernetes.io", StringComparison.Ordinal);
}
