using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <param name="Source">Who set it: k8s, reserved, …</param>
public readonly record struct IdentityLabel(string Source, string Key, string Value)
{
    /// <summary>source:key=value, the "=" even for an empty value.</summary>
    public override string ToString() => $"{Source}:{Key}={Value}";
}

/// <summary>cilium/state/identities/v1/id/NUMBER: not JSON but the labels, each closed by ";". STABLE.</summary>
public static class IdentityLabels
{
    public const string KubernetesSource = "k8s";

    /// <summary>The label that says whose identity it is; without it no peer since 1.16 accepts one.</summary>
    public const string ClusterKey = "io.cilium.k8s.policy.cluster";

    public const string ServiceAccountKey = "io.cilium.k8s.policy.serviceaccount";

    public const string NamespaceKey = "io.kubernetes.pod.namespace";

    /// <summary>Prefix of a namespace's own labels among those of its pods.</summary>
    public const string NamespaceLabelsPrefix = "io.cilium.k8s.namespace.labels.";

    /// <summary>Sorted by key in byte order: consumers look an identity up by this very text.</summary>
    /// <exception cref="ArgumentException">No labels, or one that the text cannot carry.</exception>
    public static string Encode(IEnumerable<IdentityLabel> labels)
    {
        var sorted = labels.OrderBy(label => label.Key, StringComparer.Ordinal).ToList();
        if (sorted.Count == 0)
            throw new ArgumentException("an identity without labels must not be published");
        foreach (var label in sorted)
        {
            if (label.Source.AsSpan().ContainsAny(":;") || label.Key.AsSpan().ContainsAny("=;") || label.Value.Contains(';'))
                throw new ArgumentException($"label {Quoted.Text(label.ToString())} holds a separator: ':' or ';' or '='");
        }
        return string.Concat(sorted.Select(label => $"{label};"));
    }

    /// <summary>In the order of the text. A piece without ":" has no source; one without "=" has no value.</summary>
    public static IReadOnlyList<IdentityLabel> Decode(string text)
    {
        var labels = new List<IdentityLabel>();
        foreach (var piece in text.Split(';', StringSplitOptions.RemoveEmptyEntries))
        {
            var colon = piece.IndexOf(':', StringComparison.Ordinal);
            var rest = piece[(colon + 1)..];
            var equals = rest.IndexOf('=', StringComparison.Ordinal);
            labels.Add(equals < 0
                ? new IdentityLabel(colon < 0 ? "" : piece[..colon], rest, "")
                : new IdentityLabel(colon < 0 ? "" : piece[..colon], rest[..equals], rest[(equals + 1)..]));
        }
        return labels;
    }

    /// <summary>True when the text carries the label of this cluster, set by Kubernetes, and of no other.</summary>
    public static bool BelongsTo(string text, string cluster)
    {
        var found = false;
        foreach (var label in Decode(text))
        {
            if (label.Key != ClusterKey)
                continue;
            if (label.Source != KubernetesSource || label.Value != cluster)
                return false;
            found = true;
        }
        return found;
    }
}

/// <summary>The text of the keys whose content nobody reads: heartbeat and canaries.</summary>
public static class WireTime
{
    /// <summary>RFC 3339 to the second, in UTC.</summary>
    public static byte[] Now(TimeProvider time) => System.Text.Encoding.ASCII.GetBytes(
        time.GetUtcNow().UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", System.Globalization.CultureInfo.InvariantCulture));
}
