using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>The real kubectl takes the stand-in for a kube-apiserver. Each story runs with every kubectl there is.</summary>
public class KubectlTests
{
    public static TheoryData<string> Programs => Kubectl.Programs;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    [Theory, MemberData(nameof(Programs))]
    public async Task Apply_creates_then_changes_then_finds_nothing_to_do(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        Assert.Equal("deployment.apps/fleet created", await kubectl.FeedAsync(Manifests.Deployment, "apply", "-f", "-"));
        Assert.Equal("deployment.apps/fleet unchanged", await kubectl.FeedAsync(Manifests.Deployment, "apply", "-f", "-"));
        var changed = Manifests.Deployment.Replace("x-wing:1", "x-wing:2", StringComparison.Ordinal)
            .Replace(", env: [{name: A, value: '1'}]", "", StringComparison.Ordinal);
        Assert.Equal("deployment.apps/fleet configured (server dry run)", await kubectl.FeedAsync(changed, "apply", "--dry-run=server", "-f", "-"));
        Assert.Equal("deployment.apps/fleet configured", await kubectl.FeedAsync(changed, "apply", "-f", "-"));
        var fleet = api.Find("deployments", "default", "fleet")!;
        Assert.Equal(2, (int)fleet["metadata"]!["generation"]!);
        var ship = fleet["spec"]!["template"]!["spec"]!["containers"]![0]!;
        Assert.Equal("x-wing:2", (string)ship["image"]!);
        Assert.Null(ship["env"]);
        Assert.Equal("TCP", (string)ship["ports"]![0]!["protocol"]!);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Server_side_apply_says_who_else_owns_a_field(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.FeedAsync(Manifests.Deployment, "apply", "--server-side", "-f", "-");
        await kubectl.RunAsync("scale", "deployment", "fleet", "--replicas=4");
        var refused = await kubectl.TryAsync(Manifests.Deployment, "apply", "--server-side", "-f", "-");
        Assert.Contains("Apply failed with 1 conflict", refused.Error, StringComparison.Ordinal);
        Assert.Contains(".spec.replicas", refused.Error, StringComparison.Ordinal);
        Assert.Equal(4, (int)api.Find("deployments", "default", "fleet")!["spec"]!["replicas"]!);
        var withoutEnv = Manifests.Deployment.Replace(", env: [{name: A, value: '1'}]", "", StringComparison.Ordinal);
        await kubectl.FeedAsync(withoutEnv, "apply", "--server-side", "--force-conflicts", "-f", "-");
        var fleet = api.Find("deployments", "default", "fleet")!;
        Assert.Equal(2, (int)fleet["spec"]!["replicas"]!);
        Assert.Null(fleet["spec"]!["template"]!["spec"]!["containers"]![0]!["env"]);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Get_shows_rows_and_objects_and_follows_changes(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.FeedAsync(Manifests.Pod, "create", "-f", "-");
        Assert.Contains("luke   0/2     Pending", await kubectl.RunAsync("get", "pods"), StringComparison.Ordinal);
        Assert.Contains("hoth", await kubectl.RunAsync("get", "pods", "-o", "wide"), StringComparison.Ordinal);
        Assert.Equal("luke", (string)JsonNode.Parse(await kubectl.RunAsync("get", "pod", "luke", "-o", "json"))!["metadata"]!["name"]!);
        Assert.Contains("image: saber:1", await kubectl.RunAsync("get", "pod", "luke", "-o", "yaml"), StringComparison.Ordinal);
        Assert.Equal("pod/luke", await kubectl.RunAsync("get", "pods", "-l", "side=light", "-o", "name"));
        Assert.Equal("", await kubectl.RunAsync("get", "pods", "-l", "side!=light", "-o", "name"));
        Assert.Equal("pod/luke", await kubectl.RunAsync("get", "pods", "-A", "--field-selector", "spec.nodeName=hoth", "-o", "name"));

        using var watch = kubectl.Start("get", "pods", "-w");
        await Lines.UntilAsync(watch.StandardOutput, line => line.Contains("Pending", StringComparison.Ordinal));
        using (var client = api.CreateClient())
            await Http.PatchAsync(client, "/api/v1/namespaces/default/pods/luke/status", """{"status":{"phase":"Running"}}""");
        await Lines.UntilAsync(watch.StandardOutput, line => line.Contains("Running", StringComparison.Ordinal));
        watch.Kill();
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Patches_of_three_kinds_labels_and_annotations(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.FeedAsync(Manifests.Deployment, "apply", "-f", "-");
        await kubectl.RunAsync("patch", "deployment", "fleet", "--type=merge", "-p", """{"spec":{"replicas":3}}""");
        await kubectl.RunAsync("patch", "deployment", "fleet", "--type=json", "-p", """[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]""");
        await kubectl.RunAsync("patch", "deployment", "fleet", "-p",
            """{"spec":{"template":{"spec":{"containers":[{"name":"escort","image":"y-wing"},{"name":"ship","image":"x-wing:3"}]}}}}""");
        await kubectl.RunAsync("label", "deployment", "fleet", "rank=first");
        await kubectl.RunAsync("annotate", "deployment", "fleet", "note=fast");
        var fleet = api.Find("deployments", "default", "fleet")!;
        Assert.Equal(3, (int)fleet["spec"]!["replicas"]!);
        Assert.Equal("""{"a":"b","rank":"first"}""", fleet["metadata"]!["labels"]!.ToJsonString());
        Assert.Equal("fast", (string)fleet["metadata"]!["annotations"]!["note"]!);
        Assert.Equal(["escort y-wing", "ship x-wing:3"], fleet["spec"]!["template"]!["spec"]!["containers"]!.AsArray()
            .Select(one => $"{one!["name"]} {one["image"]}"));
        await kubectl.RunAsync("patch", "deployment", "fleet", "-p",
            """{"spec":{"template":{"spec":{"containers":[{"name":"escort","$patch":"delete"}]}}}}""");
        Assert.Single(api.Find("deployments", "default", "fleet")!["spec"]!["template"]!["spec"]!["containers"]!.AsArray());
        await kubectl.RunAsync("label", "deployment", "fleet", "rank-");
        Assert.Null(api.Find("deployments", "default", "fleet")!["metadata"]!["labels"]!["rank"]);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Scale_and_rollout_status_follow_the_deployment(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.FeedAsync(Manifests.Deployment, "apply", "-f", "-");
        await kubectl.RunAsync("scale", "deployment", "fleet", "--replicas=1");
        using var rollout = kubectl.Start("rollout", "status", "deployment/fleet", "--timeout=20s");
        await Lines.UntilAsync(rollout.StandardOutput, line => line.Contains("Waiting", StringComparison.Ordinal));
        using (var client = api.CreateClient())
            await Http.PatchAsync(client, "/apis/apps/v1/namespaces/default/deployments/fleet/status",
                """{"status":{"observedGeneration":2,"replicas":1,"updatedReplicas":1,"readyReplicas":1,"availableReplicas":1}}""");
        await Lines.UntilAsync(rollout.StandardOutput, line => line.Contains("successfully rolled out", StringComparison.Ordinal));
        await rollout.WaitForExitAsync(Stop);
        Assert.Equal(0, rollout.ExitCode);
        Assert.Contains("fleet   1/1", await kubectl.RunAsync("get", "deployments"), StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Delete_waits_for_finalizers_and_takes_dependents_along(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.RunAsync("create", "configmap", "owner");
        var uid = (string)api.Find("configmaps", "default", "owner")!["metadata"]!["uid"]!;
        api.Apply($$"""
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: owned, finalizers: [rebel.io/hold], ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: '{{uid}}'}]}
            """);
        Assert.Contains("\"owner\" deleted", await kubectl.RunAsync("delete", "configmap", "owner"), StringComparison.Ordinal);
        await api.WhenAsync(one => one.Find("configmaps", "default", "owned")?["metadata"]!["deletionTimestamp"] is not null, Stop);
        using var delete = kubectl.Start("delete", "configmap", "owned");
        await Lines.UntilAsync(delete.StandardOutput, line => line.Contains("deleted", StringComparison.Ordinal));
        Assert.False(delete.HasExited);
        await kubectl.RunAsync("patch", "configmap", "owned", "--type=merge", "-p", """{"metadata":{"finalizers":null}}""");
        await delete.WaitForExitAsync(Stop);
        Assert.Equal(0, delete.ExitCode);
        Assert.Null(api.Find("configmaps", "default", "owned"));
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task A_namespace_goes_with_all_that_is_in_it(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.RunAsync("create", "namespace", "rebels");
        await api.WhenAsync(one => one.Find("serviceaccounts", "rebels", "default") is not null, Stop);
        await kubectl.RunAsync("create", "configmap", "plans", "-n", "rebels", "--from-literal=a=b");
        await kubectl.RunAsync("delete", "namespace", "rebels");
        Assert.Null(api.Find("namespaces", "", "rebels"));
        Assert.Empty(api.List("configmaps", "rebels"));
        var late = await kubectl.TryAsync(null, "create", "configmap", "late", "-n", "rebels");
        Assert.Contains("namespaces \"rebels\" not found", late.Error, StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Custom_resources_are_served_checked_and_withdrawn(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var kubectl = new Kubectl(program, api);
        await kubectl.FeedAsync(Manifests.Definition, "apply", "-f", "-");
        await kubectl.RunAsync("wait", "--for=condition=established", "crd/ships.rebel.io", "--timeout=10s");
        Assert.Contains("ships", await kubectl.RunAsync("api-resources", "--api-group=rebel.io"), StringComparison.Ordinal);
        await kubectl.FeedAsync(Manifests.Ship, "apply", "-f", "-");
        Assert.Contains("falcon   2", await kubectl.RunAsync("get", "sh"), StringComparison.Ordinal);
        Assert.Equal("nameless", await kubectl.RunAsync("get", "ship", "falcon", "-o", "jsonpath={.spec.name}"));
        await kubectl.RunAsync("scale", "ship/falcon", "--replicas=5");
        Assert.Equal(5, (int)api.Find("ships", "default", "falcon")!["spec"]!["crew"]!);
        var wrong = Manifests.Ship.Replace("crew: 2", "crew: 0", StringComparison.Ordinal);
        var refused = await kubectl.TryAsync(wrong, "apply", "--dry-run=server", "-f", "-");
        Assert.Contains("spec.crew in body should be greater than or equal to 1", refused.Error, StringComparison.Ordinal);
        Assert.Equal(1, refused.Code);
        await kubectl.RunAsync("delete", "crd", "ships.rebel.io");
        Assert.Equal(1, (await kubectl.TryAsync(null, "get", "ships")).Code);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Exec_carries_input_output_errors_and_the_exit_code(string program)
    {
        var runtime = new ProcessRuntime();
        await using var api = await KubeApiServer.StartAsync(new() { Pods = runtime }, Stop);
        using var kubectl = new Kubectl(program, api);
        api.Apply(Manifests.Pod);
        var outcome = await kubectl.TryAsync("a new hope", "exec", "-i", "luke", "-c", "main", "--", "sh", "-c", "cat; echo trouble >&2; exit 7");
        Assert.Equal("a new hope", outcome.Output);
        Assert.Contains("trouble\n", outcome.Error, StringComparison.Ordinal);
        Assert.Equal(7, outcome.Code);
        Assert.Equal(["sh", "-c", "cat; echo trouble >&2; exit 7"], runtime.Executed[0].Command);
        Assert.Equal(("main", "hoth"), (runtime.Executed[0].Container, runtime.Executed[0].Node));
        var much = await kubectl.RunAsync("exec", "luke", "-c", "aside", "--", "seq", "1", "60000");
        Assert.Equal(60000, much.Split('\n').Length);
        Assert.EndsWith("\n60000", much, StringComparison.Ordinal);
        var nobody = await kubectl.TryAsync(null, "exec", "luke", "-c", "nobody", "--", "true");
        Assert.Contains("container nobody is not", nobody.Error, StringComparison.Ordinal);
        Assert.Contains("attached to main", await kubectl.RunAsync("attach", "luke", "-c", "main"), StringComparison.Ordinal);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Logs_are_shown_and_followed(string program)
    {
        var runtime = new ProcessRuntime();
        await using var api = await KubeApiServer.StartAsync(new() { Pods = runtime }, Stop);
        using var kubectl = new Kubectl(program, api);
        api.Apply(Manifests.Pod);
        Assert.Equal("one\ntwo\nthree", await kubectl.RunAsync("logs", "luke", "-c", "main"));
        Assert.Equal("three", await kubectl.RunAsync("logs", "luke", "-c", "main", "--tail=1"));
        using var follow = kubectl.Start("logs", "-f", "luke", "-c", "main");
        await Lines.UntilAsync(follow.StandardOutput, line => line == "three");
        runtime.More.SetResult("four");
        await Lines.UntilAsync(follow.StandardOutput, line => line == "four");
        await follow.WaitForExitAsync(Stop);
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Port_forward_carries_a_connection(string program)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var runtime = new ProcessRuntime { Port = ((IPEndPoint)listener.LocalEndpoint).Port };
        await using var api = await KubeApiServer.StartAsync(new() { Pods = runtime }, Stop);
        using var kubectl = new Kubectl(program, api);
        api.Apply(Manifests.Pod);
        using (var admin = api.CreateClient())
            await Http.PatchAsync(admin, "/api/v1/namespaces/default/pods/luke/status", """{"status":{"phase":"Running"}}""");
        using var forward = kubectl.Start("port-forward", "pod/luke", ":80");
        var line = await Lines.UntilAsync(forward.StandardOutput, one => one.StartsWith("Forwarding from 127.0.0.1:", StringComparison.Ordinal));
        using var client = new TcpClient("127.0.0.1", int.Parse(line.Split(':')[1].Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture));
        await client.GetStream().WriteAsync("ping"u8.ToArray(), Stop);
        using var served = await listener.AcceptTcpClientAsync(Stop);
        var buffer = new byte[4];
        await served.GetStream().ReadExactlyAsync(buffer, Stop);
        Assert.Equal("ping", Encoding.ASCII.GetString(buffer));
        await served.GetStream().WriteAsync("pong"u8.ToArray(), Stop);
        await client.GetStream().ReadExactlyAsync(buffer, Stop);
        Assert.Equal("pong", Encoding.ASCII.GetString(buffer));
        forward.Kill();
    }

    [Theory, MemberData(nameof(Programs))]
    public async Task Rights_are_those_of_roles_and_bindings(string program)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        api.Apply("""
            apiVersion: rbac.authorization.k8s.io/v1
            kind: Role
            metadata: {name: readers}
            rules: [{apiGroups: [''], resources: [pods, pods/log], verbs: [get, list, watch]}]
            ---
            apiVersion: rbac.authorization.k8s.io/v1
            kind: RoleBinding
            metadata: {name: readers}
            roleRef: {kind: Role, name: readers}
            subjects: [{kind: User, name: leia}]
            """);
        using var kubectl = new Kubectl(program, api, new KubeUser("leia"));
        Assert.Equal("yes", await kubectl.RunAsync("auth", "can-i", "list", "pods"));
        Assert.StartsWith("no", (await kubectl.TryAsync(null, "auth", "can-i", "delete", "pods")).Output, StringComparison.Ordinal);
        Assert.StartsWith("no", (await kubectl.TryAsync(null, "auth", "can-i", "list", "pods", "-n", "kube-system")).Output, StringComparison.Ordinal);
        await kubectl.RunAsync("get", "pods");
        var refused = await kubectl.TryAsync(null, "get", "secrets");
        Assert.Contains("secrets is forbidden: User \"leia\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"",
            refused.Error, StringComparison.Ordinal);
    }
}
