using System.Text.Json.Nodes;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Xunit;

using KubeApiException = Mesh.Kubernetes.Api.KubeApiException;

namespace Mesh.Kubernetes.Tests.Api;

public sealed class KubeClientTests
{
    private const string Web = """
        {"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"default"},
         "spec":{"selector":{"app":"web"},"ports":[{"name":"http","port":80}]}}
        """;

    private static CancellationToken Stop => TestContext.Current.CancellationToken;

    private static JsonObject ConfigMap(string name, string value) =>
        new() { ["metadata"] = new JsonObject { ["name"] = name }, ["data"] = new JsonObject { ["key"] = value } };

    [Fact]
    public async Task An_object_lives_from_create_to_delete()
    {
        await using var cluster = await Cluster.StartAsync();
        var maps = KubeResources.ConfigMaps.Raw;
        var made = await cluster.Client.CreateAsync(maps, "default", ConfigMap("one", "a"), Stop);
        Assert.Equal("ConfigMap", made["kind"]!.GetValue<string>());
        made["data"]!["key"] = "b";
        var updated = await cluster.Client.UpdateAsync(maps, "default", "one", made, Stop);
        var patched = await cluster.Client.PatchAsync(maps, "default", "one",
            KubePatch.Merge(new JsonObject { ["data"] = new JsonObject { ["other"] = "c" } }), Stop);
        Assert.Equal("""{"key":"b","other":"c"}""", patched["data"]!.ToJsonString());
        var replaced = await cluster.Client.PatchAsync(maps, "default", "one",
            KubePatch.Json([new JsonObject { ["op"] = "remove", ["path"] = "/data/other" }]), Stop);
        Assert.Equal("""{"key":"b"}""", replaced["data"]!.ToJsonString());
        // What was read before is no longer what is there.
        var conflict = await Assert.ThrowsAsync<KubeApiException>(() => cluster.Client.UpdateAsync(maps, "default", "one", updated, Stop));
        Assert.Equal(KubeFault.Conflict, conflict.Fault);
        Assert.True(await cluster.Client.DeleteAsync(maps, "default", "one", Stop));
        Assert.False(await cluster.Client.DeleteAsync(maps, "default", "one", Stop));
        Assert.Null(await cluster.Client.FindAsync(maps, "default", "one", Stop));
    }

    [Fact]
    public async Task A_model_is_read_and_written()
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.Server.Apply(Web);
        var web = await cluster.Client.GetAsync(KubeResources.Services, "default", "web", Stop);
        Assert.Equal("http", web.Spec.Ports![0].Name);
        Assert.NotNull(web.Metadata.Uid);
        Assert.NotNull(web.Metadata.CreationTimestamp);
        var copy = await cluster.Client.CreateAsync(KubeResources.Services, "default",
            new Service { Metadata = new ObjectMeta { Name = "copy" }, Spec = web.Spec with { ClusterIP = null, ClusterIPs = null } }, Stop);
        Assert.NotEqual(web.Spec.ClusterIP, copy.Spec.ClusterIP);
    }

    [Fact]
    public async Task A_list_comes_in_pages_of_one_moment()
    {
        await using var cluster = await Cluster.StartAsync();
        for (var i = 0; i < 25; i++)
            await cluster.Client.CreateAsync(KubeResources.ConfigMaps.Raw, "kube-public", ConfigMap($"m{i:00}", "x"), Stop);
        var sizes = new List<int>();
        var versions = new HashSet<string>();
        await foreach (var page in cluster.Client.ListPagesAsync(KubeResources.ConfigMaps.Raw, "kube-public", new KubeSelection { PageSize = 10 }, Stop))
        {
            sizes.Add(page.Items.Count(item => item.Name.Name.StartsWith('m')));
            versions.Add(page.ResourceVersion);
            await cluster.Client.DeleteAsync(KubeResources.ConfigMaps, "kube-public", "m24", Stop);
        }
        Assert.Equal(25, sizes.Sum());
        Assert.Equal(3, sizes.Count);
        Assert.Single(versions);
    }

    [Fact]
    public async Task Apply_owns_its_fields_and_says_whose_the_others_are()
    {
        await using var cluster = await Cluster.StartAsync();
        var maps = KubeResources.ConfigMaps.Raw;
        await cluster.Client.ApplyAsync(maps, "default", "one", ConfigMap("one", "a"), "first", Stop, force: false);
        var conflict = await Assert.ThrowsAsync<KubeApiException>(() =>
            cluster.Client.ApplyAsync(maps, "default", "one", ConfigMap("one", "b"), "second", Stop, force: false));
        Assert.Equal(KubeFault.Conflict, conflict.Fault);
        Assert.Contains("first", conflict.ServerMessage + string.Join(' ', conflict.Causes), StringComparison.Ordinal);
        var taken = await cluster.Client.ApplyAsync(maps, "default", "one", ConfigMap("one", "b"), "second", Stop);
        Assert.Equal("b", taken["data"]!["key"]!.GetValue<string>());
        await cluster.Client.ApplyAsync(maps, "default", "two", ConfigMap("two", "b"), "second", Stop, dryRun: true);
        Assert.Null(await cluster.Client.FindAsync(maps, "default", "two", Stop));
    }

    [Theory]
    [InlineData("get", KubeFault.NotFound)]
    [InlineData("create", KubeFault.AlreadyExists)]
    [InlineData("invalid", KubeFault.Invalid)]
    [InlineData("forbidden", KubeFault.Forbidden)]
    [InlineData("stranger", KubeFault.Unauthorized)]
    [InlineData("precondition", KubeFault.Conflict)]
    public async Task Refusals_have_their_kind(string what, KubeFault wanted)
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.Server.Apply(Web);
        using var guest = cluster.ClientOf("guest");
        Func<Task> act = what switch
        {
            "get" => () => cluster.Client.GetAsync(KubeResources.Services, "default", "nobody", Stop),
            "create" => () => cluster.Client.CreateAsync(KubeResources.Services.Raw, "default", JsonNode.Parse(Web)!.AsObject(), Stop),
            "invalid" => () => cluster.Client.PatchAsync(KubeResources.Services.Raw, "default", "web",
                KubePatch.Merge(new JsonObject { ["spec"] = new JsonObject { ["ports"] = new JsonArray(new JsonObject { ["port"] = 700000 }) } }), Stop),
            "forbidden" => () => guest.ListAsync(KubeResources.Services, null, Stop),
            "precondition" => () => cluster.Client.DeleteAsync(KubeResources.Services, "default", "web", Stop, new KubeDelete { Uid = "another" }),
            _ => async () =>
            {
                using var fault = cluster.Server.Faults.Add(new Fault(FaultKind.Unauthorized));
                await cluster.Client.ListAsync(KubeResources.Services, null, Stop);
            }
            ,
        };
        var refusal = await Assert.ThrowsAsync<KubeApiException>(act);
        Assert.Equal(wanted, refusal.Fault);
        Assert.Contains(cluster.Server.Url.ToString().TrimEnd('/'), refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_throttles_is_obeyed()
    {
        await using var cluster = await Cluster.StartAsync();
        using var fault = cluster.Server.Faults.Add(new Fault(FaultKind.TooManyRequests) { Verb = "list", RetryAfterSeconds = 1, Times = 1 });
        var begun = TimeProvider.System.GetTimestamp();
        await cluster.Client.ListAsync(KubeResources.Services, null, Stop);
        Assert.Equal(1, fault.Met);
        Assert.InRange(TimeProvider.System.GetElapsedTime(begun), TimeSpan.FromSeconds(0.9), Cluster.Patience);
    }

    [Theory]
    [InlineData(FaultKind.InternalError, KubeFault.ServerError)]
    [InlineData(FaultKind.BadGateway, KubeFault.ServerError)]
    [InlineData(FaultKind.HalfBody, KubeFault.Unreachable)]
    [InlineData(FaultKind.Disconnect, KubeFault.Unreachable)]
    [InlineData(FaultKind.Hang, KubeFault.Timeout)]
    public async Task A_server_that_misbehaves_is_named_with_what_it_did(FaultKind kind, KubeFault wanted)
    {
        await using var cluster = await Cluster.StartAsync();
        cluster.Server.Apply(Web);
        using var client = cluster.NewClient(TimeSpan.FromSeconds(1));
        await client.ListAsync(KubeResources.Services, null, Stop);
        using (cluster.Server.Faults.Add(new Fault(kind) { Verb = "list" }))
        {
            var failure = await Assert.ThrowsAsync<KubeApiException>(() => client.ListAsync(KubeResources.Services, null, Stop));
            Assert.True(failure.Fault == wanted || (kind == FaultKind.HalfBody && failure.Fault == KubeFault.BadAnswer), failure.Message);
            Assert.True(failure.IsTransient);
            Assert.DoesNotContain('\n', failure.Message);
        }
        Assert.NotEmpty(await client.ListAsync(KubeResources.Services, null, Stop));
    }

    [Fact]
    public async Task The_server_tells_its_version_and_its_resources()
    {
        await using var cluster = await Cluster.StartAsync();
        Assert.StartsWith("v1.", (await cluster.Client.GetVersionAsync(Stop)).GitVersion, StringComparison.Ordinal);
        Assert.Null(await cluster.Client.ResolveAsync("example.com/v1", "Widget", Stop));
        Assert.Empty(await cluster.Client.DiscoverAsync("example.com/v1", Stop));
        var slices = await cluster.Client.DiscoverAsync("discovery.k8s.io/v1", Stop);
        Assert.Contains(slices, resource => resource is { Plural: "endpointslices", Kind: "EndpointSlice", Namespaced: true });
    }
}
