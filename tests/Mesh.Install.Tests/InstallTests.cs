using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Install.Charts;
using Mesh.Install.Preflight;
using Mesh.Install.Releases;
using Mesh.Install.Text;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>Stories of installations on an API server.</summary>
public class InstallTests
{
    private const string Bpf = "the BPF file system could not be mounted at /sys/fs/bpf: permission denied (EACCES)";

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Install_upgrade_uninstall_and_nothing_is_left()
    {
        await using var world = await World.StartAsync();
        var before = world.Snapshot();

        await InstallAsync(world, "cluster: {name: tokyo, id: 1}");
        Assert.Equal("tokyo", (string?)world.Find("configmaps", "cilium-config")!["data"]!["cluster-name"]);
        Assert.Equal(2, (int)world.Find("daemonsets.apps", "cilium")!["status"]!["numberReady"]!);
        Assert.Null(world.Find("services", "clustermesh-apiserver"));

        // As `cilium clustermesh enable` does it: some values more, the others kept.
        await UpgradeAsync(world, "clustermesh: {useAPIServer: true}");
        Assert.Equal("NodePort", (string?)world.Find("services", "clustermesh-apiserver")!["spec"]!["type"]);
        Assert.Equal("tokyo", (string?)world.Find("configmaps", "cilium-config")!["data"]!["cluster-name"]);
        var authority = (string?)world.Find("secrets", "cilium-ca")!["data"]!["ca.crt"];

        await UpgradeAsync(world, "extraConfig: {policy-audit-mode: 'true'}");
        Assert.Equal("true", (string?)world.Find("configmaps", "cilium-config")!["data"]!["policy-audit-mode"]);
        Assert.Equal(authority, (string?)world.Find("secrets", "cilium-ca")!["data"]!["ca.crt"]);

        // And back: what is no longer wanted goes.
        await UpgradeAsync(world, "clustermesh: {useAPIServer: false}");
        Assert.Null(world.Find("services", "clustermesh-apiserver"));
        Assert.Null(world.Find("deployments.apps", "clustermesh-apiserver"));

        await UninstallAsync(world);
        Assert.Equal(before, world.Snapshot());
    }

    [Fact]
    public async Task The_release_is_one_that_Helm_reads()
    {
        await using var world = await World.StartAsync(1);
        await InstallAsync(world, "cluster: {name: tokyo, id: 1}");
        await UpgradeAsync(world, "policyAuditMode: true");

        var (first, second) = (world.Find("secrets", "sh.helm.release.v1.cilium.v1")!, world.Find("secrets", "sh.helm.release.v1.cilium.v2")!);
        Assert.Equal("helm.sh/release.v1", (string?)second["type"]);
        Assert.Equal(("helm", "cilium", "2", "deployed"), ((string?)second["metadata"]!["labels"]!["owner"], (string?)second["metadata"]!["labels"]!["name"],
            (string?)second["metadata"]!["labels"]!["version"], (string?)second["metadata"]!["labels"]!["status"]));
        Assert.Equal("superseded", (string?)first["metadata"]!["labels"]!["status"]);
        var record = ReleaseRecord.FromSecret(second);
        Assert.Equal("tokyo", record.Config.At("cluster.name"));
        Assert.Equal(true, record.Config.At("policyAuditMode"));
        // The chart is complete: rendered from the record it is what the manifest says.
        var files = record.Chart["templates"]!.AsArray().ToDictionary(file => (string)file!["name"]!,
            file => System.Text.Encoding.UTF8.GetString(Convert.FromBase64String((string)file!["data"]!)));
        files["Chart.yaml"] = YamlText.Write(Tree.FromJson(record.Chart["metadata"])) + "\n";
        files["values.yaml"] = YamlText.Write(Tree.FromJson(record.Chart["values"])) + "\n";
        files["values.schema.json"] = System.Text.Encoding.UTF8.GetString(Convert.FromBase64String((string)record.Chart["schema"]!));
        var again = ChartRenderer.Render(new Chart(files), record.Config, new("cilium", World.Namespace, 2), ChartEnvironment.Nowhere);
        Assert.Equal(record.Manifest, again.Manifest("cilium"));
        // What Helm wants to see on an object before it touches it.
        var set = world.Find("daemonsets.apps", "cilium")!["metadata"]!;
        Assert.Equal(("Helm", "cilium", World.Namespace), ((string?)set["labels"]!["app.kubernetes.io/managed-by"],
            (string?)set["annotations"]!["meta.helm.sh/release-name"], (string?)set["annotations"]!["meta.helm.sh/release-namespace"]));
    }

    [Fact]
    public async Task A_failed_install_tells_the_true_cause_and_leaves_the_cluster_as_it_found_it()
    {
        await using var world = await World.StartAsync();
        // Found: an authority that several clusters share. It is used, and stays.
        var authority = new JsonObject { ["apiVersion"] = "v1", ["kind"] = "Secret" };
        authority["metadata"] = new JsonObject { ["name"] = "cilium-ca", ["namespace"] = World.Namespace };
        var shared = ChartEnvironment.Nowhere.MakeAuthority("shared", 10);
        authority["data"] = new JsonObject { ["ca.crt"] = Base64((string)shared["Cert"]!), ["ca.key"] = Base64((string)shared["Key"]!) };
        await world.Client.CreateAsync(KubeResources.Secrets.Raw, World.Namespace, authority, Stop);
        var before = world.Snapshot();
        world.Become = pod => (string?)pod["spec"]!["nodeName"] == "node-2" && (string?)pod["metadata"]!["labels"]!["k8s-app"] == "cilium"
            ? World.Failing("initContainerStatuses", "mount-bpf-fs", "CrashLoopBackOff", 3, $"noise before\nmesh: {Bpf}\n")
            : World.Ready(pod);

        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, "clustermesh: {useAPIServer: true}"));

        Assert.Contains($"cilium-2 on node-2, mount-bpf-fs: CrashLoopBackOff, exited with code 1: mesh: {Bpf}", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("everything that was made is removed again", e.Message, StringComparison.Ordinal);
        Assert.Contains(world.Told, line => line.StartsWith('⌛')
            && line.Contains("cilium-2 on node-2, mount-bpf-fs: CrashLoopBackOff", StringComparison.Ordinal));
        await world.Server.WhenAsync(_ => !world.Snapshot().Keys.Any(name => name.StartsWith("pods ", StringComparison.Ordinal)), Stop);
        Assert.Equal(before, world.Snapshot());
    }

    [Fact]
    public async Task Where_a_container_left_no_word_its_log_is_read()
    {
        await using var world = await World.StartAsync(1);
        world.Become = _ => World.Failing("containerStatuses", "cilium-agent", "CrashLoopBackOff", 3, null);
        world.Log("cilium-1/cilium-agent", "starting\nmesh-agent: --cluster-id '0': must be 1 to 255\n");
        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, "operator: {enabled: false}"));
        Assert.Contains("cilium-agent: CrashLoopBackOff: mesh-agent: --cluster-id '0': must be 1 to 255", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Where_there_is_no_container_events_say_why()
    {
        await using var world = await World.StartAsync(1);
        world.Become = _ => new JsonObject { ["phase"] = "Pending" };
        for (var i = 0; i < 2; i++)
        {
            await world.Client.CreateAsync(KubeResources.Events.Raw, World.Namespace, new JsonObject
            {
                ["apiVersion"] = "v1",
                ["kind"] = "Event",
                ["metadata"] = new JsonObject { ["name"] = $"cilium-1.{i}", ["namespace"] = World.Namespace },
                ["involvedObject"] = new JsonObject { ["kind"] = "Pod", ["name"] = "cilium-1", ["namespace"] = World.Namespace },
                ["type"] = "Warning",
                ["reason"] = "FailedMount",
                ["message"] = "MountVolume.SetUp failed for volume \"cgroup\": hostPath type check failed: /sys/fs/cgroup is not a directory",
                ["count"] = 4,
            }, Stop);
        }
        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, "operator: {enabled: false}"));
        Assert.Contains("cilium-1 on node-1: FailedMount: MountVolume.SetUp failed for volume \"cgroup\"", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_failed_upgrade_goes_back_to_what_ran()
    {
        await using var world = await World.StartAsync(1);
        await InstallAsync(world, "cluster: {name: tokyo, id: 1}");
        var before = Without(world.Snapshot(), "sh.helm");
        world.Become = pod => (string?)pod["metadata"]!["labels"]!["k8s-app"] == "clustermesh-apiserver"
            ? World.Failing("containerStatuses", "apiserver", "ImagePullBackOff", 0, null)
            : World.Ready(pod);

        var e = await Assert.ThrowsAsync<InstallException>(() => UpgradeAsync(world, "{policyAuditMode: true, clustermesh: {useAPIServer: true}}"));

        Assert.Contains("clustermesh-apiserver-1 on node-1, apiserver: ImagePullBackOff", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("everything is as revision 1 left it", e.Message, StringComparison.Ordinal);
        await world.Server.WhenAsync(_ => Without(world.Snapshot(), "sh.helm").Count == before.Count, Stop);
        Assert.Equal(before.Keys, Without(world.Snapshot(), "sh.helm").Keys);
        Assert.Equal("false", (string?)world.Find("configmaps", "cilium-config")!["data"]!["policy-audit-mode"]);
        Assert.Equal("failed", (string?)world.Find("secrets", "sh.helm.release.v1.cilium.v2")!["metadata"]!["labels"]!["status"]);
        // And the next one may begin.
        world.Become = World.Ready;
        await UpgradeAsync(world, "policyAuditMode: true");
        Assert.Equal("true", (string?)world.Find("configmaps", "cilium-config")!["data"]!["policy-audit-mode"]);
    }

    [Fact]
    public async Task What_is_there_already_is_not_touched()
    {
        await using var world = await World.StartAsync(1);
        world.Server.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\ndata: {a: b}\n");
        var before = world.Snapshot();
        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, ""));
        Assert.Contains("ConfigMap kube-system/cilium-config", e.Message, StringComparison.Ordinal);
        Assert.Equal(before, world.Snapshot());
    }

    [Fact]
    public async Task A_server_that_does_not_know_all_fields_is_too_old()
    {
        await using var world = await World.StartAsync(1, version: "v1.29.9-eks-1");
        var before = world.Snapshot();
        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, ""));
        Assert.StartsWith("the cluster runs Kubernetes v1.29.9-eks-1: must be 1.30 or later", e.Message, StringComparison.Ordinal);
        Assert.Equal(before, world.Snapshot());
    }

    [Fact]
    public async Task Twice_is_refused_and_so_is_a_release_of_another_chart()
    {
        await using var world = await World.StartAsync(1);
        await InstallAsync(world, "");
        var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, ""));
        Assert.Contains("it is installed already (release cilium, revision 1): `mesh upgrade` changes it", e.Message, StringComparison.Ordinal);
        var store = new ReleaseStore(world.Client, World.Namespace, "cilium");
        var record = (await store.DeployedAsync(Stop))!;
        ((JsonObject)record.Chart["metadata"]!).Remove("annotations");
        await store.SaveAsync(record, Stop);
        foreach (var attempt in new Func<Task>[] { () => InstallAsync(world, ""), () => UpgradeAsync(world, ""), () => UninstallAsync(world) })
            Assert.Contains("another chart", (await Assert.ThrowsAsync<InstallException>(attempt)).Message, StringComparison.Ordinal);
        Assert.NotNull(world.Find("daemonsets.apps", "cilium"));
    }

    [Fact]
    public async Task An_API_server_that_refuses_half_way_finds_nothing_left()
    {
        await using var world = await World.StartAsync(1);
        var before = world.Snapshot();
        using (world.Server.Faults.Add(new(FaultKind.InternalError) { Verb = "patch", Resource = "daemonsets" }))
        {
            var e = await Assert.ThrowsAsync<InstallException>(() => InstallAsync(world, ""));
            Assert.EndsWith("everything that was made is removed again", e.Message, StringComparison.Ordinal);
        }
        Assert.Equal(before, world.Snapshot());
    }

    [Fact]
    public async Task The_preflight_looks_at_every_node_and_leaves_no_pod()
    {
        await using var world = await World.StartAsync(3);
        var before = world.Snapshot();
        world.Report = node => node switch
        {
            "node-2" => new NodeReport("5.4.0", "x64",
            [
                new("kernel", CheckResult.Fault, "5.4.0", "upgrade the node's kernel to 5.10 or later"),
                new("bpffs", CheckResult.Fault, Bpf, "mount it on the node"),
            ]).ToJson(),
            "node-3" => null,
            _ => new NodeReport("6.1.0", "x64",
            [
                new("kernel", CheckResult.Ok, "6.1.0"), new("CNI", CheckResult.Warning, "10-flannel.conflist", "cni.exclusive=false"),
            ]).ToJson(),
        };
        var values = Chart.OfThisProgram.Values;
        var verdicts = await ClusterPreflight.RunAsync(world.Client, World.Namespace, ["node-1", "node-2", "node-3"], values, world.Narrator,
            world.Wait, "0.1.0", Stop);

        Assert.Equal([true, false, false], verdicts.Select(verdict => verdict.IsFit));
        Assert.Equal($"""
            ✅ node-1 (kernel 6.1.0, x64)
               ⚠️  CNI: 10-flannel.conflist
                  💡 cni.exclusive=false
            ❌ node-2 (kernel 5.4.0, x64)
               ✗ kernel: 5.4.0
                  💡 upgrade the node's kernel to 5.10 or later
               ✗ bpffs: {Bpf}
                  💡 mount it on the node
            ❌ node-3
               ✗ preflight: could not be done: ImagePullBackOff
                  💡 make the image available to the node: image.repository, image.tag, imagePullSecrets; on kind: `kind load docker-image`

            """, PreflightText.Format(verdicts, all: false));
        await world.Server.WhenAsync(_ => !world.Snapshot().Keys.Any(name => name.StartsWith("pods ", StringComparison.Ordinal)), Stop);
        Assert.Equal(before, world.Snapshot());
    }

    /// <summary>Objects that the operator made for services go; those of people, and the kinds that somebody else has defined, stay.</summary>
    [Fact]
    public async Task What_the_operator_made_for_services_goes_with_an_uninstallation()
    {
        await using var world = await World.StartAsync(1);
        await InstallAsync(world, "");
        var definitions = CrdInstaller.Definitions.Concat(CrdInstaller.MulticlusterDefinitions).ToList();
        await CrdInstaller.InstallAsync(world.Client, TimeProvider.System, Stop, [.. definitions]);
        world.Server.Apply("""
            ---
            {apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport,
             metadata: {name: cart, namespace: default, annotations: {mesh.cilium.io/applied: x} }, spec: {type: ClusterSetIP, ports: [{port: 80}]} }
            ---
            {apiVersion: multicluster.x-k8s.io/v1alpha1, kind: ServiceImport, metadata: {name: of-others, namespace: default},
             spec: {type: ClusterSetIP, ports: [{port: 80}]} }
            ---
            {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [], metadata: {name: mirrored, namespace: default,
             labels: {endpointslice.kubernetes.io/managed-by: endpointslice-mesh-controller.cilium.io} } }
            ---
            {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [], metadata: {name: own, namespace: default} }
            """);
        var exports = (await world.Client.FindAsync(KubeResources.CustomResourceDefinitions.Raw, null, "serviceexports.multicluster.x-k8s.io", Stop))!;
        exports["metadata"]!["labels"] = new JsonObject();
        await world.Client.UpdateAsync(KubeResources.CustomResourceDefinitions.Raw, null, "serviceexports.multicluster.x-k8s.io", exports, Stop);

        await new Uninstaller(world.Client, world.Target, world.Narrator, world.Wait).RunAsync(new UninstallOptions(), [], Stop);
        Assert.Equal(["of-others"], world.Server.List("serviceimports.multicluster.x-k8s.io").Select(one => (string?)one["metadata"]!["name"]));
        Assert.Equal(["kubernetes", "own"], world.Server.List("endpointslices.discovery.k8s.io").Select(one => (string?)one["metadata"]!["name"]).Order());

        await InstallAsync(world, "");
        await new Uninstaller(world.Client, world.Target, world.Narrator, world.Wait).RunAsync(new UninstallOptions { DeletesDefinitions = true },
            [.. definitions.Select(one => (string)one["metadata"]!["name"]!)], Stop);
        Assert.Equal(["serviceexports.multicluster.x-k8s.io"],
            world.Server.List("customresourcedefinitions.apiextensions.k8s.io").Select(one => (string?)one["metadata"]!["name"]));
    }

    private static async Task InstallAsync(World world, string values)
    {
        var plan = await world.Planner.InstallAsync(YamlText.ParseMap(values, "values"), Stop);
        await new Installer(world.Client, world.Narrator, world.Wait, NoDefinitions).RunAsync(plan, Stop);
    }

    private static async Task UpgradeAsync(World world, string changes)
    {
        var plan = await world.Planner.UpgradeAsync(YamlText.ParseMap(changes, "values"), reuse: true, Stop);
        await new Installer(world.Client, world.Narrator, world.Wait, NoDefinitions).RunAsync(plan, Stop);
    }

    private static Task UninstallAsync(World world) =>
        new Uninstaller(world.Client, world.Target, world.Narrator, world.Wait).RunAsync(new UninstallOptions { DeletesDefinitions = true }, [], Stop);

    private static Task<IReadOnlyList<DefinitionResult>> NoDefinitions(KubeClient client, CancellationToken stop) =>
        Task.FromResult<IReadOnlyList<DefinitionResult>>([]);

    private static SortedDictionary<string, string> Without(SortedDictionary<string, string> all, string word)
    {
        foreach (var name in all.Keys.Where(name => name.Contains(word, StringComparison.Ordinal)).ToList())
            all.Remove(name);
        return all;
    }

    private static string Base64(string text) => Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(text));
}
