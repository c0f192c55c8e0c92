using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;

namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>
/// CiliumIdentity → its labels under its number. Only numbers of our own range leave the cluster: peers skip any other, and a
/// reserved one means something else to them.
/// </summary>
internal static class IdentityConverter
{
    /// <summary>Namespace of the pods that have the identity; null when its labels do not say.</summary>
    public static string? NamespaceOf(CiliumIdentity identity) =>
        identity.SecurityLabels?.GetValueOrDefault($"{IdentityLabels.KubernetesSource}:{IdentityLabels.NamespaceKey}");

    public static Publishable Convert(CiliumIdentity identity, ClusterSelf self)
    {
        if (identity.SecurityLabels is not { Count: > 0 } securityLabels)
            return Publishable.Nothing;
        var number = uint.Parse(identity.Metadata.Name!, CultureInfo.InvariantCulture);
        if (!self.Numbering.InRange(self.Id, number))
        {
            return Publishable.Refused(
                $"identity {number} is outside the range of cluster {self.Name} ({self.Numbering.MinOf(self.Id)} to "
                + $"{self.Numbering.MaxOf(self.Id)}) and stays at home: number it anew, or set the right --cluster-id");
        }
        var text = IdentityLabels.Encode(securityLabels.Select(Label));
        if (!IdentityLabels.BelongsTo(text, self.Name))
        {
            return Publishable.Refused(
                $"identity {number} lacks the label {IdentityLabels.KubernetesSource}:{IdentityLabels.ClusterKey}={self.Name}, "
                + "without which no peer takes it: add it");
        }
        return Publishable.One(Keys.Identity(number), Encoding.UTF8.GetBytes(text));
    }

    private static IdentityLabel Label(KeyValuePair<string, string> label)
    {
        var colon = label.Key.IndexOf(':', StringComparison.Ordinal);
        return new IdentityLabel(label.Key[..colon], label.Key[(colon + 1)..], label.Value);
    }
}
