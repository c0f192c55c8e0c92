using Mesh.Install.Charts;
using Mesh.Install.Detecting;
using Mesh.Install.Objects;
using Mesh.Install.Releases;
using Mesh.Install.Text;
using Mesh.Install.Values;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>Finds out what an installation or an upgrade would do. It only reads.</summary>
public sealed class Planner(KubeClient client, InstallTarget target, TimeProvider time)
{
    /// <summary>Secret with the authority that signs for this cluster.</summary>
    internal const string Authority = "cilium-ca";

    private static readonly Chart Ours = Chart.OfThisProgram;

    private readonly ReleaseStore _releases = new(client, target.Namespace, target.Release);

    /// <param name="given">Values that people gave.</param>
    /// <exception cref="InstallException">A value is wrong, or something is there already.</exception>
    public async Task<InstallPlan> InstallAsync(Map given, CancellationToken cancellation)
    {
        ValueCheck.ThrowIfWrong(Ours, given);
        if (await _releases.NewestAsync(cancellation) is { } there)
            throw new InstallException(AlreadyThere(there));
        var cluster = await ClusterAsync(cancellation);
        if (cluster.Nodes.Count == 0)
            throw new InstallException("the cluster has no nodes: there is nothing to install on");
        var picked = Choice.Pick(cluster, given.Plain(), client.Configuration.Context);
        var config = given.Plain();
        foreach (var pick in picked)
            config.Set(pick.Name, pick.Value);
        var (rendering, left) = await RenderAsync(config, revision: 1, null, cancellation);
        return new InstallPlan(target, cluster, null, 1, config, picked, rendering, left);
    }

    /// <param name="changes">Values over those of the release, or instead of them.</param>
    /// <param name="reuse">Values of the release stay; otherwise only what is given, and what is picked, holds.</param>
    /// <exception cref="InstallException">A value is wrong, or there is no release of ours to upgrade.</exception>
    public async Task<InstallPlan> UpgradeAsync(Map changes, bool reuse, CancellationToken cancellation)
    {
        var newest = await _releases.NewestAsync(cancellation)
            ?? throw new InstallException($"nothing is installed as release {target.Release} in namespace {target.Namespace}: begin with `mesh install`");
        var former = await _releases.DeployedAsync(cancellation);
        if (former is null)
            throw new InstallException($"release {target.Release} was begun and never finished ({newest.Status}, {newest.Description}): "
                + "`mesh uninstall` removes what there is of it");
        if (!former.IsOurs)
            throw new InstallException(AlreadyThere(former));
        var cluster = await ClusterAsync(cancellation);
        // Name, number and ranges of a running cluster are never picked anew.
        var config = (reuse ? former.Config.With(changes) : Kept(former.Config).With(changes)).Plain();
        var (rendering, left) = await RenderAsync(config, newest.Revision + 1, former, cancellation);
        await new Foundation(client, target).ThrowIfMovedAsync(Ours.Values.With(former.Config.Plain()), Ours.Values.With(config), cancellation);
        return new InstallPlan(target, cluster, former, newest.Revision + 1, config, [], rendering, left);
    }

    /// <exception cref="InstallException">Its Kubernetes is too old.</exception>
    private async Task<ClusterFacts> ClusterAsync(CancellationToken cancellation)
    {
        var cluster = await ClusterFacts.ReadAsync(client, cancellation);
        // v1.31.2-eks-7f9249a, v1.31.2+k3s1. A version that cannot be read is nobody's fault.
        var number = cluster.Version.TrimStart('v').Split('-', '+')[0];
        return Version.TryParse(number, out var version) && version < Ours.OldestKubernetes
            ? throw new InstallException($"the cluster runs Kubernetes {cluster.Version}: must be {Ours.OldestKubernetes.ToString(2)} or later, "
                + "which knows all that the agents' pods ask for (appArmorProfile)")
            : cluster;
    }

    /// <summary>What cannot change under running pods.</summary>
    private static Map Kept(Map config)
    {
        var kept = new Map();
        foreach (var path in new[] { "cluster.name", "cluster.id", "ipam.mode", "ipam.operator", "kubeProxyReplacement", "k8sServiceHost", "k8sServicePort",
            "ipv4.enabled", "ipv6.enabled", "clustermesh.maxConnectedClusters" })
        {
            if (config.At(path) is { } value)
                kept.Set(path, Tree.Copy(value));
        }
        return kept;
    }

    /// <returns>What is to be applied, and what is there already and is used as it is.</returns>
    /// <exception cref="InstallException">A value is wrong, or something is there that is nobody's to change.</exception>
    private async Task<(Rendering Rendering, IReadOnlyList<KubeObject> Left)> RenderAsync(
        Map config, int revision, ReleaseRecord? former, CancellationToken cancellation)
    {
        // The one object that the chart looks up.
        var authority = await client.FindAsync(KubeResources.Secrets.Raw, target.Namespace, Authority, cancellation);
        var found = new Dictionary<(string, string, string, string), Map>();
        if (authority is not null)
            found[("v1", "Secret", target.Namespace, Authority)] = (Map)Tree.FromJson(authority)!;
        var rendering = ChartRenderer.Render(Ours, config, new ReleaseIdentity(target.Release, target.Namespace, revision),
            new ChartEnvironment(found, time));
        // The marks of a release prove nothing: whoever shares an authority between clusters copies them too. Ours is what we made.
        if (authority is null || former is not null && ManifestObjects.Of(former.Manifest).Any(IsAuthority))
        {
            await ThrowIfOthersAsync(rendering, cancellation);
            return (rendering, []);
        }
        rendering = new Rendering([.. rendering.Objects.Where(rendered => !IsAuthority(rendered.Object))]);
        await ThrowIfOthersAsync(rendering, cancellation);
        return (rendering, [KubeObject.From(authority, Authority)]);
    }

    private static bool IsAuthority(KubeObject one) => one is { Kind: "Secret", Name: Authority };

    /// <exception cref="InstallException">What is wanted is there and belongs to somebody else.</exception>
    private async Task ThrowIfOthersAsync(Rendering rendering, CancellationToken cancellation)
    {
        var journal = new ObjectJournal(client, target.Release, target.Namespace, _ => { });
        var clashes = new List<string>();
        foreach (var wanted in rendering.Objects.Select(rendered => rendered.Object))
        {
            if (await client.FindAsync(wanted.Resource.Raw, wanted.Namespace, wanted.Name, cancellation) is { } found && !journal.IsOurs(found))
                clashes.Add(wanted.ToString());
        }
        if (clashes.Count > 0)
            throw new InstallException($"these are in the cluster already and belong to no release {target.Release}, so they are not touched: "
                + $"{string.Join(", ", clashes)}. Remove them first (kubectl delete), or install into another namespace (-n)");
    }

    private static string AlreadyThere(ReleaseRecord there)
    {
        if (!there.IsOurs)
            return $"release {there.Name} in namespace {there.Namespace} is of another chart ({there.ChartName} {there.ChartVersion}, probably Cilium itself): "
                + "uninstall that first; both cannot program the same nodes";
        return there.Status == ReleaseRecord.Deployed
            ? $"it is installed already (release {there.Name}, revision {there.Revision}): `mesh upgrade` changes it, `mesh uninstall` removes it"
            : $"an installation was begun {there.LastDeployed:yyyy-MM-dd HH:mm} UTC and is not finished ({there.Status}): "
                + "wait for whoever began it, or remove what there is of it with `mesh uninstall`";
    }
}
