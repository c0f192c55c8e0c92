using System.Text.Json.Nodes;
using Mesh.Install.Charts;
using Mesh.Install.Objects;
using Mesh.Install.Preflight;
using Mesh.Install.Releases;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>How far an uninstallation goes.</summary>
public sealed record UninstallOptions
{
    /// <summary>Also the definitions of custom resources, and with them all policies and service exports of people.</summary>
    public bool DeletesDefinitions { get; init; }

    /// <summary>Also what agents leave on nodes on purpose: pins, devices, the plugin and its configuration.</summary>
    public bool CleansNodes { get; init; } = true;
}

/// <summary>
/// Takes an installation away, in the order in which nobody is left without what it uses: workloads, then what agents left on the nodes, then
/// the objects that agents and operator made, then everything else, the release's own records last. It may be run again after a failure.
/// </summary>
public sealed class Uninstaller(KubeClient client, InstallTarget target, Narrator narrator, WaitOptions options)
{
    /// <summary>Made by agents and operator; nobody else needs them.</summary>
    private static readonly KubeResource[] Made = [KubeResources.CiliumEndpoints, KubeResources.CiliumNodes, KubeResources.CiliumIdentities];

    /// <summary>Secrets that hold the peers, whoever wrote them.</summary>
    internal static readonly string[] PeerSecrets = ["cilium-clustermesh", "cilium-kvstoremesh"];

    /// <param name="definitions">Names of the definitions that are ours.</param>
    /// <exception cref="InstallException">Nothing is installed, or something stays.</exception>
    public async Task RunAsync(UninstallOptions how, IReadOnlyList<string> definitions, CancellationToken cancellation)
    {
        var releases = new ReleaseStore(client, target.Namespace, target.Release);
        var records = await releases.ListAsync(cancellation);
        if (records.Count == 0)
            throw new InstallException($"nothing is installed as release {target.Release} in namespace {target.Namespace}");
        var newest = records[^1];
        if (!newest.IsOurs)
            throw new InstallException($"release {target.Release} is of another chart ({newest.ChartName} {newest.ChartVersion}): "
                + "`mesh` removes only what `mesh` or this chart has installed");
        // A revision that was rolled back may have left objects that the deployed one does not name.
        var objects = records.SelectMany(record => ManifestObjects.Of(record.Manifest)).DistinctBy(one => one.ToString()).ToList();
        var journal = new ObjectJournal(client, target.Release, target.Namespace, narrator.Did);

        narrator.Say("🔥 Workloads");
        var workloads = objects.Where(one => one.Kind is "DaemonSet" or "Deployment").ToList();
        foreach (var workload in workloads.OrderByDescending(one => InstallOrder.Of(one.Kind)))
            await journal.DeleteAsync(workload, cancellation);
        var rollout = new Rollout(client, narrator, options) { Namespace = target.Namespace };
        foreach (var workload in workloads)
            await rollout.WaitGoneAsync(target.Namespace, Selector(workload), cancellation);

        var unclean = how.CleansNodes ? await CleanNodesAsync(newest, cancellation) : [];

        narrator.Say("🔥 Objects");
        await DeleteMadeAsync(cancellation);
        if (await MadeForServices.DeleteImportsAsync(client, cancellation) is > 0 and var imports)
            narrator.Did($"deleted {imports} ServiceImports, and the Services derived from them");
        if (await MadeForServices.DeleteSlicesAsync(client, cancellation) is > 0 and var slices)
            narrator.Did($"deleted {slices} EndpointSlices of other clusters' pods");
        foreach (var one in objects.Where(one => !workloads.Contains(one)).OrderByDescending(one => InstallOrder.Of(one.Kind)))
            await journal.DeleteAsync(one, cancellation);
        if (await client.FindAsync(KubeResources.Secrets.Raw, target.Namespace, Planner.Authority, cancellation) is not null)
            narrator.Did($"left Secret {target.Namespace}/{Planner.Authority}: this release did not make it");
        foreach (var secret in PeerSecrets)
        {
            if (await client.DeleteAsync(KubeResources.Secrets, target.Namespace, secret, cancellation))
                narrator.Did($"deleted Secret {target.Namespace}/{secret}");
        }
        foreach (var lease in (await client.ListAsync(KubeResources.Leases.Raw, target.Namespace, cancellation))
            .Select(lease => (string)lease["metadata"]!["name"]!).Where(name => name.StartsWith("cilium-operator", StringComparison.Ordinal)))
            await client.DeleteAsync(KubeResources.Leases, target.Namespace, lease, cancellation);
        if (how.DeletesDefinitions)
        {
            foreach (var name in definitions)
                await DeleteDefinitionAsync(name, cancellation);
        }
        if (unclean.Count > 0)
            throw new InstallException($"removed from the cluster, but not from every node:\n  {string.Join("\n  ", unclean)}\n"
                + "run `mesh uninstall` again when they answer, or reboot them; the release is kept for that");
        foreach (var record in records)
            await releases.DeleteAsync(record, cancellation);
    }

    private async Task DeleteDefinitionAsync(string name, CancellationToken cancellation)
    {
        if (await client.FindAsync(KubeResources.CustomResourceDefinitions.Raw, null, name, cancellation) is not { } present)
            return;
        // MCS-API's kinds are everybody's: whoever else has defined them, still uses them.
        if (!name.EndsWith(".cilium.io", StringComparison.Ordinal) && present["metadata"]?["labels"]?[CrdInstaller.VersionLabel] is null)
        {
            narrator.Did($"left CustomResourceDefinition {name}: somebody else has made it");
            return;
        }
        if (await client.DeleteAsync(KubeResources.CustomResourceDefinitions, null, name, cancellation))
            narrator.Did($"deleted CustomResourceDefinition {name}");
    }

    private async Task DeleteMadeAsync(CancellationToken cancellation)
    {
        foreach (var resource in Made)
        {
            try
            {
                foreach (var one in await client.ListAsync(resource.Raw, null, cancellation))
                    await client.DeleteAsync(resource, (string?)one["metadata"]!["namespace"], (string)one["metadata"]!["name"]!, cancellation);
            }
            catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
            {
                // Not defined (any more): then there are none.
                continue;
            }
        }
    }

    /// <returns>Nodes that could not be cleaned, each with the reason.</returns>
    private async Task<IReadOnlyList<string>> CleanNodesAsync(ReleaseRecord record, CancellationToken cancellation)
    {
        narrator.Say("🧹 Nodes");
        var values = Chart.OfThisProgram.Values.With(record.Config.Plain());
        var all = await client.ListAsync(KubeResources.Nodes.Raw, null, cancellation);
        var nodes = ClusterPreflight.Nodes(all, values);
        var volumes = new Dictionary<string, string>
        {
            ["/node/bpf"] = (string)values.At("bpf.root")!,
            ["/node/cni-bin"] = (string)values.At("cni.binPath")!,
            ["/node/cni-conf"] = (string)values.At("cni.confPath")!,
            ["/node/run"] = "/var/run/cilium",
        };
        var errand = new Errand("cleanup", ClusterPreflight.ImageOf(values, Chart.OfThisProgram.AppVersion), (string)values.At("image.pullPolicy")!,
            ["/usr/bin/mesh", "node", "cleanup", "--bpf-root=/node/bpf/mesh", "--cni-bin-dir=/node/cni-bin", "--cni-conf-dir=/node/cni-conf",
                "--run-dir=/node/run"],
            // Devices; the rest is root's own files.
            ["NET_ADMIN"], volumes);
        var results = await new NodeErrands(client, target.Namespace, narrator, options).RunAsync(errand, nodes, cancellation);
        foreach (var result in results.Where(result => result.Output is { Length: > 0 }))
            narrator.Did($"{result.Node}: {result.Output!.ReplaceLineEndings(", ")}");
        return [.. results.Where(result => result.Trouble is not null).Select(result => $"{result.Node}: {result.Trouble}")];
    }

    private static string Selector(KubeObject workload) => string.Join(',',
        ((JsonObject)workload.Body["spec"]!["selector"]!["matchLabels"]!).Select(label => $"{label.Key}={(string?)label.Value}"));
}
