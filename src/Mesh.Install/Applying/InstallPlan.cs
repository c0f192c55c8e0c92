using Mesh.Install.Charts;
using Mesh.Install.Detecting;
using Mesh.Install.Objects;
using Mesh.Install.Releases;
using Mesh.Install.Text;

namespace Mesh.Install.Applying;

/// <summary>Where an installation is, and what it is called.</summary>
/// <param name="Release">As Helm calls it; the cilium CLI looks for "cilium".</param>
public sealed record InstallTarget(string Namespace = "kube-system", string Release = "cilium")
{
    /// <summary>Of a namespace, as of every label of DNS.</summary>
    private const int LongestNamespace = 63;

    /// <summary>Helm's; it adds to it where it names objects after the release.</summary>
    private const int LongestRelease = 53;

    /// <summary>As people say it.</summary>
    /// <exception cref="InstallException">Kubernetes or Helm would take no such name.</exception>
    public static InstallTarget Named(string ns, string release)
    {
        Check("--namespace", ns, LongestNamespace);
        Check("--helm-release-name", release, LongestRelease);
        return new InstallTarget(ns, release);
    }

    private static void Check(string flag, string name, int longest)
    {
        if (name.Length == 0 || name.Length > longest || name[0] == '-' || name[^1] == '-'
            || !name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-'))
            throw new InstallException($"{flag} '{name}': must be 1 to {longest} of a-z, 0-9 and '-', neither first nor last '-'");
    }
}

/// <summary>What will be applied; nothing has been changed yet.</summary>
/// <param name="Former">What is deployed now; null before the first installation.</param>
/// <param name="Revision">Of the release that this will become.</param>
/// <param name="Config">Values that differ from the chart's own: given, picked, and kept from before.</param>
/// <param name="Left">Objects found in the cluster that are used as they are, and not ours to change; not among those of the rendering.</param>
public sealed record InstallPlan(
    InstallTarget Target, ClusterFacts Cluster, ReleaseRecord? Former, int Revision, Map Config, IReadOnlyList<Picked> Picked, Rendering Rendering,
    IReadOnlyList<KubeObject> Left)
{
    /// <summary>All values.</summary>
    public Map Values => Chart.OfThisProgram.Values.With(Config);

    /// <summary>What is waited for.</summary>
    public IReadOnlyList<KubeObject> Workloads =>
        [.. Rendering.Objects.Select(rendered => rendered.Object).Where(one => one.Kind is "DaemonSet" or "Deployment")];

    /// <summary>As YAML, ready for kubectl.</summary>
    public string Manifest => Rendering.Manifest(Chart.OfThisProgram.Name);
}
