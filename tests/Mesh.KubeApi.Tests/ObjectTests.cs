using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.KubeApi.Tests;

/// <summary>What happens to an object between the request and the store.</summary>
public class ObjectTests
{
    private const string Default = "/api/v1/namespaces/default";
    private const string Ships = "/apis/rebel.io/v1/namespaces/default/ships";

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static string Service(string name, string spec) => $"{{\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{spec}}}";

    [Fact]
    public async Task A_stale_update_conflicts_and_one_that_changes_nothing_writes_nothing()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        var made = await Http.PostAsync(client, $"{Default}/configmaps", """{"metadata":{"name":"c"},"data":{"a":"1"}}""");
        await Http.PatchAsync(client, $"{Default}/configmaps/c", """{"data":{"a":"2"}}""");
        made["data"]!["a"] = "3";
        var (code, body) = await Http.SendAsync(client, HttpMethod.Put, $"{Default}/configmaps/c", made.ToJsonString());
        Assert.Equal((409, "Conflict"), (code, (string)body!["reason"]!));
        ((JsonObject)made["metadata"]!).Remove("resourceVersion");
        Assert.Equal(200, (await Http.SendAsync(client, HttpMethod.Put, $"{Default}/configmaps/c", made.ToJsonString())).Code);
        var revision = api.Revision;
        await Http.SendAsync(client, HttpMethod.Put, $"{Default}/configmaps/c", made.ToJsonString());
        await Http.PatchAsync(client, $"{Default}/configmaps/c", """{"data":{"a":"3"}}""");
        Assert.Equal(revision, api.Revision);
        var again = await Http.SendAsync(client, HttpMethod.Post, $"{Default}/configmaps", """{"metadata":{"name":"c"}}""");
        Assert.Equal((409, "AlreadyExists"), (again.Code, (string)again.Body!["reason"]!));
    }

    [Fact]
    public async Task Spec_and_status_are_written_apart_and_generation_counts_specs()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        api.Apply(Manifests.Definition);
        await Http.PostAsync(client, Ships, """{"apiVersion":"rebel.io/v1","kind":"Ship","metadata":{"name":"f"},"spec":{"crew":1},"status":{"crew":9}}""");
        Assert.Null(api.Find("ships", "default", "f")!["status"]);
        await Http.PatchAsync(client, $"{Ships}/f/status", """{"spec":{"crew":7},"status":{"crew":1},"metadata":{"labels":{"a":"b"}}}""");
        await Http.PatchAsync(client, $"{Ships}/f", """{"status":{"crew":8}}""");
        var ship = api.Find("ships", "default", "f")!;
        Assert.Equal((1, 1, 1), ((int)ship["spec"]!["crew"]!, (int)ship["status"]!["crew"]!, (int)ship["metadata"]!["generation"]!));
        Assert.Null(ship["metadata"]!["labels"]);
        await Http.PatchAsync(client, $"{Ships}/f", """{"spec":{"crew":2},"metadata":{"labels":{"a":"b"}}}""");
        Assert.Equal(2, (int)api.Find("ships", "default", "f")!["metadata"]!["generation"]!);
    }

    [Fact]
    public async Task Custom_resources_are_defaulted_pruned_and_checked()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        Assert.Equal(404, (await Http.SendAsync(client, HttpMethod.Get, Ships)).Code);
        api.Apply(Manifests.Definition);
        static string Ship(string name, string spec) =>
            $"{{\"apiVersion\":\"rebel.io/v1\",\"kind\":\"Ship\",\"metadata\":{{\"name\":\"{name}\"}},\"spec\":{spec}}}";
        var made = await Http.PostAsync(client, Ships, Ship("good", """{"crew":1,"unknown":true,"anything":{"goes":1},"parts":[{"name":"x","odd":1}]}"""));
        Assert.Equal("""{"crew":1,"anything":{"goes":1},"parts":[{"name":"x"}],"name":"nameless"}""", made["spec"]!.ToJsonString());
        foreach (var (spec, field) in new[]
        {
            ("{}", "spec.crew"), ("""{"crew":"one"}""", "spec.crew"), ("""{"crew":0}""", "spec.crew"), ("""{"crew":1,"name":"X"}""", "spec.name"),
            ("""{"crew":1,"parts":[{"count":1}]}""", "spec.parts[0].name"), ("""{"crew":1,"parts":[{"name":"a"},{"name":"a"}]}""", "spec.parts[1]"),
        })
        {
            var (code, body) = await Http.SendAsync(client, HttpMethod.Post, Ships, Ship("bad", spec));
            Assert.Equal((422, field), (code, (string)body!["details"]!["causes"]![0]!["field"]!));
        }
        var strict = await Http.SendAsync(client, HttpMethod.Post, $"{Ships}?fieldValidation=Strict", Ship("bad", """{"crew":1,"unknown":true}"""));
        Assert.Contains("unknown field \"spec.unknown\"", (string)strict.Body!["message"]!, StringComparison.Ordinal);
        var trial = await Http.SendAsync(client, HttpMethod.Post, $"{Ships}?dryRun=All", Ship("trial", """{"crew":1}"""));
        Assert.Equal((201, "nameless"), (trial.Code, (string)trial.Body!["spec"]!["name"]!));
        Assert.Null(api.Find("ships", "default", "trial"));
    }

    [Fact]
    public async Task A_definition_that_is_not_structural_is_refused()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        var wrong = Manifests.Definition.Replace("crew: {type: integer, minimum: 1}", "crew: {minimum: 1}", StringComparison.Ordinal);
        Assert.Contains("properties[crew].type", Assert.Throws<KubeApiException>(() => api.Apply(wrong)).Message, StringComparison.Ordinal);
        api.Apply(Manifests.Definition);
        Assert.Equal("True", (string)api.Find("customresourcedefinitions", "", "ships.rebel.io")!["status"]!["conditions"]![1]!["status"]!);
    }

    [Fact]
    public async Task Services_get_addresses_and_ports_that_nobody_else_has()
    {
        await using var api = await KubeApiServer.StartAsync(new() { ServiceCidr6 = "fd00:96::/112" }, Stop);
        using var client = api.CreateClient();
        var path = $"{Default}/services";
        var a = await Http.PostAsync(client, path, Service("a", """{"ports":[{"port":80}],"selector":{"x":"y"}}"""));
        var b = await Http.PostAsync(client, path, Service("b", """{"type":"NodePort","ports":[{"port":80,"name":"x"},{"port":81,"name":"y"}]}"""));
        Assert.NotEqual((string)a["spec"]!["clusterIP"]!, (string)b["spec"]!["clusterIP"]!);
        Assert.Equal(("TCP", 80, "ClusterIP"), ((string)a["spec"]!["ports"]![0]!["protocol"]!, (int)a["spec"]!["ports"]![0]!["targetPort"]!,
            (string)a["spec"]!["type"]!));
        var ports = b["spec"]!["ports"]!.AsArray().Select(port => (int)port!["nodePort"]!).ToList();
        Assert.Equal(2, ports.Distinct().Count());
        Assert.All(ports, port => Assert.InRange(port, 30000, 32767));
        var headless = await Http.PostAsync(client, path, Service("h", """{"clusterIP":"None","selector":{"x":"y"}}"""));
        Assert.Equal("None", (string)headless["spec"]!["clusterIPs"]![0]!);
        var dual = await Http.PostAsync(client, path, Service("d", """{"ipFamilyPolicy":"PreferDualStack","ports":[{"port":80}]}"""));
        Assert.Equal("""["IPv4","IPv6"]""", dual["spec"]!["ipFamilies"]!.ToJsonString());
        Assert.StartsWith("fd00:96::", (string)dual["spec"]!["clusterIPs"]![1]!, StringComparison.Ordinal);
        foreach (var spec in new[]
        {
            $$"""{"type":"NodePort","ports":[{"port":80,"nodePort":{{ports[0]}}}]}""", """{"type":"NodePort","ports":[{"port":80,"nodePort":80}]}""",
            $$"""{"clusterIP":"{{a["spec"]!["clusterIP"]}}","ports":[{"port":80}]}""", """{"clusterIP":"1.2.3.4","ports":[{"port":80}]}""", "{}",
            """{"ports":[{"port":80},{"port":81}]}""", """{"type":"Odd","ports":[{"port":80}]}""",
        })
            Assert.Equal(422, (await Http.SendAsync(client, HttpMethod.Post, path, Service("bad", spec))).Code);
        // A change keeps what was given; another address is refused.
        var changed = await Http.PatchAsync(client, $"{path}/b", """{"spec":{"selector":{"n":"m"}}}""");
        Assert.Equal(ports, changed["spec"]!["ports"]!.AsArray().Select(port => (int)port!["nodePort"]!));
        Assert.Equal(422, (await Http.SendAsync(client, HttpMethod.Patch, $"{path}/a", """{"spec":{"clusterIP":"10.96.200.200"}}""",
            "application/merge-patch+json")).Code);
        // What is given back may be given again.
        await Http.SendAsync(client, HttpMethod.Delete, $"{path}/b");
        await Http.PostAsync(client, path, Service("e", $$"""{"type":"NodePort","ports":[{"port":80,"nodePort":{{ports[0]}}}]}"""));
    }

    [Fact]
    public async Task A_pod_is_removed_by_its_kubelet()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        api.Apply(Manifests.Pod);
        var pod = api.Find("pods", "default", "luke")!;
        Assert.Equal(("default", "Pending"), ((string)pod["spec"]!["serviceAccountName"]!, (string)pod["status"]!["phase"]!));
        Assert.Contains(pod["spec"]!["containers"]![0]!["volumeMounts"]!.AsArray(),
            mount => (string)mount!["mountPath"]! == "/var/run/secrets/kubernetes.io/serviceaccount");
        await Http.SendAsync(client, HttpMethod.Delete, $"{Default}/pods/luke");
        pod = api.Find("pods", "default", "luke")!;
        Assert.Equal(30, (int)pod["metadata"]!["deletionGracePeriodSeconds"]!);
        var wrong = await Http.SendAsync(client, HttpMethod.Delete, $"{Default}/pods/luke", """{"preconditions":{"uid":"other"},"gracePeriodSeconds":0}""");
        Assert.Equal(409, wrong.Code);
        await Http.SendAsync(client, HttpMethod.Delete, $"{Default}/pods/luke",
            $$"""{"preconditions":{"uid":"{{pod["metadata"]!["uid"]}}"},"gracePeriodSeconds":0}""");
        Assert.Null(api.Find("pods", "default", "luke"));
    }

    [Theory]
    [InlineData("Background")]
    [InlineData("Foreground")]
    [InlineData("Orphan")]
    public async Task Dependents_follow_their_owner_as_the_policy_says(string policy)
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        api.Apply(Manifests.Deployment);
        var uid = (string)api.Find("deployments", "default", "fleet")!["metadata"]!["uid"]!;
        api.Apply($$"""
            apiVersion: v1
            kind: ConfigMap
            metadata:
              name: part
              finalizers: [rebel.io/hold]
              ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: fleet, uid: '{{uid}}', controller: true, blockOwnerDeletion: true}]
            """);
        await Http.SendAsync(client, HttpMethod.Delete, "/apis/apps/v1/namespaces/default/deployments/fleet", $$"""{"propagationPolicy":"{{policy}}"}""");
        if (policy == "Orphan")
        {
            await api.WhenAsync(one => one.Find("deployments", "default", "fleet") is null, Stop);
            var part = api.Find("configmaps", "default", "part")!;
            Assert.Null(part["metadata"]!["ownerReferences"]);
            Assert.Null(part["metadata"]!["deletionTimestamp"]);
            return;
        }
        await api.WhenAsync(one => one.Find("configmaps", "default", "part")!["metadata"]!["deletionTimestamp"] is not null, Stop);
        Assert.Equal(policy == "Foreground", api.Find("deployments", "default", "fleet") is not null);
        await Http.PatchAsync(client, $"{Default}/configmaps/part", """{"metadata":{"finalizers":null}}""");
        await api.WhenAsync(one => one.Find("deployments", "default", "fleet") is null && one.Find("configmaps", "default", "part") is null, Stop);
    }

    [Fact]
    public async Task Tokens_of_service_accounts_are_good_for_what_was_bound_and_die_with_the_account()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var admin = api.CreateClient();
        api.Apply("""
            apiVersion: v1
            kind: ServiceAccount
            metadata: {name: r2d2}
            ---
            apiVersion: rbac.authorization.k8s.io/v1
            kind: ClusterRoleBinding
            metadata: {name: r2d2}
            roleRef: {kind: ClusterRole, name: view}
            subjects: [{kind: ServiceAccount, name: r2d2, namespace: default}]
            """);
        var answer = await Http.PostAsync(admin, $"{Default}/serviceaccounts/r2d2/token", """{"spec":{"expirationSeconds":600}}""");
        var token = (string)answer["status"]!["token"]!;
        using var droid = api.CreateClient();
        droid.DefaultRequestHeaders.Authorization = new("Bearer", token);
        await Http.GetAsync(droid, "/api/v1/pods");
        Assert.Equal(403, (await Http.SendAsync(droid, HttpMethod.Get, "/api/v1/secrets")).Code);
        var review = await Http.PostAsync(admin, "/apis/authentication.k8s.io/v1/tokenreviews", $$$"""{"spec":{"token":"{{{token}}}"}}""");
        Assert.Equal("system:serviceaccount:default:r2d2", (string)review["status"]!["user"]!["username"]!);
        await Http.SendAsync(admin, HttpMethod.Delete, $"{Default}/serviceaccounts/r2d2");
        Assert.Equal(401, (await Http.SendAsync(droid, HttpMethod.Get, "/api/v1/pods")).Code);
        droid.DefaultRequestHeaders.Authorization = null;
        Assert.Equal(403, (await Http.SendAsync(droid, HttpMethod.Get, "/api/v1/pods")).Code);
        Assert.Equal(200, (await Http.SendAsync(droid, HttpMethod.Get, "/version")).Code);
    }

    [Fact]
    public async Task Wrong_requests_are_told_what_is_wrong()
    {
        await using var api = await KubeApiServer.StartAsync(stop: Stop);
        using var client = api.CreateClient();
        foreach (var (method, path, body, code) in new (HttpMethod, string, string?, int)[]
        {
            (HttpMethod.Get, $"{Default}/configmaps/none", null, 404), (HttpMethod.Get, $"{Default}/oddities", null, 404),
            (HttpMethod.Post, $"{Default}/configmaps", "{\"metadata\":{\"name\":\"a\"", 400), (HttpMethod.Post, $"{Default}/configmaps", "[]", 400),
            (HttpMethod.Post, $"{Default}/configmaps", """{"metadata":{"name":"A_b"}}""", 422),
            (HttpMethod.Post, $"{Default}/configmaps", """{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}""", 400),
            (HttpMethod.Post, $"{Default}/configmaps", """{"metadata":{"name":"a","namespace":"other"}}""", 400),
            (HttpMethod.Post, "/api/v1/namespaces/nowhere/configmaps", """{"metadata":{"name":"a"}}""", 404),
            (HttpMethod.Post, $"{Default}/configmaps", """{"metadata":{"name":"a"},"data":{"n":1}}""", 400),
            (HttpMethod.Get, $"{Default}/configmaps?limit=x", null, 400), (HttpMethod.Get, $"{Default}/configmaps?labelSelector=a%20b", null, 400),
            (HttpMethod.Get, $"{Default}/configmaps?fieldSelector=data.a%3D1", null, 400), (HttpMethod.Get, $"{Default}/configmaps?continue=!", null, 400),
            (HttpMethod.Put, $"{Default}/configmaps", "{}", 405), (HttpMethod.Delete, "/api/v1/namespaces/default", null, 403),
        })
            Assert.Equal((path, code), (path, (await Http.SendAsync(client, method, path, body)).Code));
        Assert.Equal(415, (await Http.SendAsync(client, HttpMethod.Patch, $"{Default}/configmaps/kube-root-ca.crt", "{}")).Code);
    }
}
