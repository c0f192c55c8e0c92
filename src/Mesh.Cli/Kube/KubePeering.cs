using System.Text;
using Mesh.Cli.Commands.Install;
using Mesh.Install;
using Mesh.Install.Applying;
using Mesh.Install.Releases;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Kube;

/// <summary>
/// Clusters on Kubernetes become peers by their release's values, as Cilium's CLI does it: each side gets the other's name, addresses, authority and a
/// client certificate of the other's authority under clustermesh.config.clusters, and is upgraded. All is checked on both sides before anything is
/// changed on one.
/// </summary>
internal sealed class KubePeering(InstallTarget target, WaitOptions wait, TextWriter output)
{
    private const string ClustersPath = "clustermesh.config.clusters";

    /// <summary>Runs the API server that other clusters read.</summary>
    public async Task EnableAsync(KubeCluster cluster, string? serviceType, bool? kvstoremesh, CancellationToken cancel)
    {
        var changes = new Map();
        changes.Set("clustermesh.useAPIServer", true);
        if (serviceType is not null)
            changes.Set("clustermesh.apiserver.service.type", serviceType);
        if (kvstoremesh is { } relay)
            changes.Set("clustermesh.apiserver.kvstoremesh.enabled", relay);
        await UpgradeAsync(cluster, changes, cancel);
        output.WriteLine("✅ ClusterMesh enabled!");
    }

    public async Task DisableAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var changes = new Map();
        changes.Set("clustermesh.useAPIServer", false);
        changes.Set("clustermesh.config.enabled", false);
        changes.Set(ClustersPath, new List<object?>());
        await UpgradeAsync(cluster, changes, cancel);
        if (await cluster.Client.FindAsync(KubeResources.Secrets.Raw, cluster.Namespace, "cilium-ca", cancel) is not null)
            output.WriteLine("ℹ️  Secret cilium-ca stays: clusters that share it, and whoever enables again, go on with it");
        output.WriteLine("✅ ClusterMesh disabled.");
    }

    /// <exception cref="CliException">The two cannot be peers; says why, and nothing was changed.</exception>
    public async Task ConnectAsync(KubeCluster source, KubeCluster destination, IReadOnlyList<string> sourceEndpoints,
        IReadOnlyList<string> destinationEndpoints, CancellationToken cancel)
    {
        output.WriteLine($"✨ Reading what {source.Name} and {destination.Name} say of themselves");
        var ours = Given(await AccessPoint.ReadAsync(source, cancel), sourceEndpoints, "--source-endpoint");
        var theirs = Given(await AccessPoint.ReadAsync(destination, cancel), destinationEndpoints, "--destination-endpoint");
        foreach (var (cluster, access) in new[] { (source, ours), (destination, theirs) })
        {
            if (access.ClusterName == "default" || access.ClusterId == "0")
            {
                throw new CliException($"{cluster.Name} has no name and ID of its own: install it anew with --set cluster.name=NAME "
                    + $"--set cluster.id=1..{access.MaxConnectedClusters}");
            }
            if (access.Authority is null || access.Certificate is null || access.Key is null)
                throw new CliException($"{cluster.Name}: secret clustermesh-apiserver-remote-cert lacks ca.crt, tls.crt or tls.key");
        }
        if (ours.MaxConnectedClusters != theirs.MaxConnectedClusters)
        {
            throw new CliException($"{ours.ClusterName} counts up to {ours.MaxConnectedClusters} clusters and {theirs.ClusterName} up to "
                + $"{theirs.MaxConnectedClusters}: clustermesh.maxConnectedClusters must be the same in the whole mesh");
        }
        var (ground, theirGround) = (await PeerGround.ReadAsync(source, ours.ClusterName, cancel),
            await PeerGround.ReadAsync(destination, theirs.ClusterName, cancel));
        var (around, theirAround) = (await ground.PeersAsync(source, cancel), await theirGround.PeersAsync(destination, cancel));
        var (one, other) = (await KnownPeers.ReadAsync(source, ours, cancel), await KnownPeers.ReadAsync(destination, theirs, cancel));
        var faults = KnownPeers.Faults(one, other).Concat(PeerGround.Faults(ground, around, theirGround, theirAround)).ToList();
        if (faults.Count > 0)
            throw new CliException($"{ours.ClusterName} and {theirs.ClusterName} cannot be one mesh; nothing was changed:\n  {string.Join("\n  ", faults)}");
        foreach (var doubt in KnownPeers.Doubts(one, other))
            output.WriteLine($"⚠️  {doubt}");
        var compared = around.Concat(theirAround).Select(peer => peer.Cluster).Concat([ours.ClusterName, theirs.ClusterName]).ToHashSet();
        var unknown = one.Peers.Concat(other.Peers).Select(peer => peer.Name).Where(peer => !compared.Contains(peer)).Distinct().ToList();
        if (unknown.Count > 0)
        {
            output.WriteLine($"⚠️  the addresses of {string.Join(", ", unknown)} are not known: no agent that was asked has reached them; "
                + "compare them by hand");
        }
        var former = await PeersAsync(source, cancel);
        var plan = await PlanAsync(source, clusters => With(clusters, theirs), cancel);
        var change = await PlanAsync(destination, clusters => With(clusters, ours), cancel);
        await CarryOutAsync(source, plan, cancel);
        try
        {
            await CarryOutAsync(destination, change, cancel);
        }
        catch (Exception e) when (e is InstallException or KubeApiException or OperationCanceledException)
        {
            await UndoAsync(source, former, theirs.ClusterName, e);
            throw;
        }
        output.WriteLine($"✅ Connected cluster {ours.ClusterName} and {theirs.ClusterName}!");
    }

    /// <summary>A cluster that reads another one which does not know it is no peer: it is put back as it was. The other has undone its own part.</summary>
    private async Task UndoAsync(KubeCluster cluster, List<object?> former, string peer, Exception why)
    {
        output.WriteLine($"⚠️  {peer} could not be changed ({why.Message.Split('\n')[0]}): {cluster.Name} is put back");
        try
        {
            // Also when a person has interrupted us.
            await CarryOutAsync(cluster, await PlanAsync(cluster, _ => former, CancellationToken.None), CancellationToken.None);
        }
        catch (Exception e) when (e is InstallException or KubeApiException)
        {
            throw new CliException($"{why.Message}\nand {cluster.Name} could not be put back: {e.Message}\n"
                + $"`mesh clustermesh disconnect --context {cluster.Name} {peer}` does it");
        }
    }

    /// <param name="peer">Name of the cluster to leave.</param>
    public async Task DisconnectAsync(KubeCluster cluster, string peer, CancellationToken cancel)
    {
        var former = await PeersAsync(cluster, cancel);
        if (former.All(one => NameOf(one) != peer))
        {
            output.WriteLine($"✅ {cluster.Name} was not connected to {peer}: nothing to do");
            return;
        }
        await CarryOutAsync(cluster, await PlanAsync(cluster, clusters => [.. clusters.Where(one => NameOf(one) != peer)], cancel), cancel);
        output.WriteLine($"✅ {cluster.Name} has left {peer}");
    }

    /// <summary>Name of a cluster, by its ConfigMap.</summary>
    public static async Task<string> NameOfAsync(KubeCluster cluster, CancellationToken cancel) =>
        (await AccessPoint.ConfigAsync(cluster, cancel)).Text("data", "cluster-name") ?? "default";

    private static AccessPoint Given(AccessPoint access, IReadOnlyList<string> endpoints, string flag)
    {
        if (endpoints.Count == 0)
            return access;
        var parsed = endpoints.Select(text => System.Net.IPEndPoint.TryParse(text, out var endpoint) && endpoint.Port > 0 ? endpoint
            : throw new CliException($"{flag} {text}: must be IP:PORT")).ToList();
        if (parsed.Select(endpoint => endpoint.Port).Distinct().Count() > 1)
            throw new CliException($"{flag}: all must have one port");
        return access with { Addresses = [.. parsed.Select(endpoint => $"{endpoint.Address}")], Port = parsed[0].Port };
    }

    private static string? NameOf(object? peer) => (peer as Map)?.At("name") as string;

    private static List<object?> With(List<object?> clusters, AccessPoint peer)
    {
        var entry = new Map();
        entry.Set("name", peer.ClusterName);
        entry.Set("port", (long)peer.Port);
        entry.Set("ips", peer.Addresses.Cast<object?>().ToList());
        entry.Set("tls.cert", Base64(peer.Certificate!));
        entry.Set("tls.key", Base64(peer.Key!));
        entry.Set("tls.caCert", Base64(peer.Authority!));
        return [.. clusters.Where(one => NameOf(one) != peer.ClusterName), entry];
    }

    private static string Base64(string text) => Convert.ToBase64String(Encoding.UTF8.GetBytes(text));

    private async Task<List<object?>> PeersAsync(KubeCluster cluster, CancellationToken cancel)
    {
        var release = await new ReleaseStore(cluster.Client, target.Namespace, target.Release).DeployedAsync(cancel)
            ?? throw new CliException($"{cluster.Name}: nothing is installed as release {target.Release} in namespace {target.Namespace}");
        return release.Config.At(ClustersPath) switch
        {
            IReadOnlyList<object?> list => [.. list],
            // The other way of writing it.
            Map map => [.. map.Select(member => (object?)((Map?)Tree.Copy(member.Value) ?? new Map()).Set("name", member.Key))],
            _ => [],
        };
    }

    private async Task<InstallPlan> PlanAsync(KubeCluster cluster, Func<List<object?>, List<object?>> change, CancellationToken cancel)
    {
        var clusters = change(await PeersAsync(cluster, cancel));
        var changes = new Map();
        changes.Set("clustermesh.config.enabled", clusters.Count > 0);
        changes.Set(ClustersPath, clusters);
        return await new Planner(cluster.Client, target, TimeProvider.System).UpgradeAsync(changes, reuse: true, cancel);
    }

    private async Task UpgradeAsync(KubeCluster cluster, Map changes, CancellationToken cancel) => await CarryOutAsync(cluster,
        await new Planner(cluster.Client, target, TimeProvider.System).UpgradeAsync(changes, reuse: true, cancel), cancel);

    private async Task CarryOutAsync(KubeCluster cluster, InstallPlan plan, CancellationToken cancel)
    {
        output.WriteLine($"ℹ️  {cluster.Name}: revision {plan.Revision}");
        await new Installer(cluster.Client, new Narrator(output.WriteLine), wait, InstallOptions.DefineAsync).RunAsync(plan, cancel);
    }
}
