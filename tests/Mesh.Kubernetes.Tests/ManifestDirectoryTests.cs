using System.Diagnostics;
using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.Kubernetes.Tests;

public class ManifestDirectoryTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Every_document_of_every_manifest_at_any_depth_becomes_an_object()
    {
        await using var manifests = new Manifests(prepare: path =>
        {
            Directory.CreateDirectory(Path.Combine(path, "a", "b"));
            File.WriteAllText(Path.Combine(path, "one.yaml"), "# nothing\n---\n" + Yaml.Documents(Yaml.Service("x"), Yaml.Service("y")));
            File.WriteAllText(Path.Combine(path, "a", "b", "two.yml"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n");
            File.WriteAllText(Path.Combine(path, "three.json"),
                """
                {"apiVersion":"v1","kind":"List","items":[
                  {"apiVersion":"v1","kind":"Service","metadata":{"name":"z","namespace":"shop"},"spec":{"ports":[{"port":53,"protocol":"UDP"}]}},
                  {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"ignored"}}]}
                """);
            File.WriteAllText(Path.Combine(path, "notes.txt"), "not: [a manifest");
        });
        await manifests.UntilSynced();

        Assert.Equal("Namespace shop, Service default/x, Service default/y, Service shop/z", manifests.Objects);
        Assert.Equal("", manifests.Problems);
    }

    [Fact]
    public async Task An_empty_directory_is_an_empty_cluster()
    {
        await using var manifests = new Manifests();
        await manifests.UntilSynced();
    }

    [Fact]
    public async Task A_change_becomes_one_event_and_what_did_not_change_none()
    {
        await using var manifests = new Manifests();
        await manifests.UntilSynced();
        manifests.Write("all.yaml", Yaml.Documents(Yaml.Service("a"), Yaml.Service("b")));
        await manifests.UntilObjects("Service default/a, Service default/b");
        manifests.Write("all.yaml", Yaml.Documents(Yaml.Service("a"), Yaml.Service("b", "81")));
        await manifests.Until(() => manifests.Service("b")!.Spec.Ports![0].Port == 81, "the new port");
        manifests.Write("all.yaml", Yaml.Service("b", "81"));
        await manifests.UntilObjects("Service default/b");

        Assert.Equal("synced +Service default/a +Service default/b +Service default/b -Service default/a", manifests.History);
    }

    [Fact]
    public async Task A_file_is_not_read_while_its_writer_has_it_open()
    {
        await using var manifests = new Manifests();
        await manifests.UntilSynced();
        await using (var writer = new StreamWriter(manifests.At("slow.yaml")))
        {
            // Cut at a line's end the text is sound YAML: only the writer knows that it is not all.
            await writer.WriteAsync(Yaml.Service("first") + "---\n");
            await writer.FlushAsync(Cancellation);
            await manifests.UntilLookedAt();
            Assert.Equal("", manifests.Objects);
            await writer.WriteAsync(Yaml.Service("second"));
        }
        await manifests.UntilObjects("Service default/first, Service default/second");
    }

    [Fact]
    public async Task A_truncated_file_keeps_its_objects_until_it_is_mended()
    {
        await using var manifests = new Manifests();
        var sound = Yaml.Documents(Yaml.Service("a"), Yaml.Service("b"));
        manifests.Write("web.yaml", sound);
        await manifests.UntilObjects("Service default/a, Service default/b");

        manifests.Write("web.yaml", sound[..sound.LastIndexOf("http", StringComparison.Ordinal)]);
        await manifests.UntilProblem("web.yaml document 2, line ");
        await manifests.UntilLookedAt();
        Assert.Equal("Service default/a, Service default/b", manifests.Objects);
        Assert.Contains("what the file defined before stays", manifests.Problems, StringComparison.Ordinal);

        manifests.Write("web.yaml", Yaml.Service("a"));
        await manifests.UntilObjects("Service default/a");
        await manifests.UntilNoProblem();
    }

    [Fact]
    public async Task A_broken_object_keeps_its_previous_version_and_its_neighbours_go_on()
    {
        await using var manifests = new Manifests();
        manifests.Write("web.yaml", Yaml.Documents(Yaml.Service("a"), Yaml.Service("b"), Yaml.Service("c")));
        await manifests.UntilObjects("Service default/a, Service default/b, Service default/c");

        manifests.Write("web.yaml", Yaml.Documents(Yaml.Service("a", "81"), Yaml.Service("b", "70000")));
        await manifests.UntilProblem("Service default/b: spec.ports[0].port 70000 must be 1 to 65535; its previous version stays");
        await manifests.UntilObjects("Service default/a, Service default/b");
        Assert.Equal(81, manifests.Service("a")!.Spec.Ports![0].Port);
        Assert.Equal(80, manifests.Service("b")!.Spec.Ports![0].Port);

        manifests.Write("web.yaml", Yaml.Documents(Yaml.Service("a", "81"), Yaml.Service("b", "82")));
        await manifests.Until(() => manifests.Service("b")!.Spec.Ports![0].Port == 82, "the mended port");
        Assert.Equal("", manifests.Problems);
    }

    [Fact]
    public async Task A_problem_names_the_line_of_the_wrong_value()
    {
        await using var manifests = new Manifests();
        manifests.Write("web.yaml", Yaml.Service("a") + "---\n" +
            """
            apiVersion: v1
            kind: Service
            metadata:
              name: b
              annotations:
                service.cilium.io/shared: "false"
                service.cilium.io/global: true
            """);
        // Five lines and a separator stand before the second document; the value is in its seventh line.
        await manifests.UntilProblem("web.yaml document 2, line 13: Service default/b: metadata.annotations");
        Assert.Contains("put it in quotes", manifests.Problems, StringComparison.Ordinal);
        await manifests.UntilObjects("Service default/a");
    }

    [Fact]
    public async Task Of_two_files_with_one_object_the_first_wins_and_the_next_inherits()
    {
        await using var manifests = new Manifests();
        manifests.Write("b.yaml", Yaml.Service("web", "82"));
        await manifests.Until(() => manifests.Service("web")?.Spec.Ports![0].Port == 82, "the only definition");
        Assert.Equal("", manifests.Problems);

        manifests.Write("a.yaml", Yaml.Service("web", "81"));
        await manifests.Until(() => manifests.Service("web")!.Spec.Ports![0].Port == 81, "the first in path order");
        Assert.Equal("b.yaml: Service default/web is defined by a.yaml already, which wins: remove one of them", manifests.Problems);

        File.Delete(manifests.At("a.yaml"));
        await manifests.Until(() => manifests.Service("web")!.Spec.Ports![0].Port == 82, "the heir");
        Assert.Equal("", manifests.Problems);
        Assert.DoesNotContain("-Service", manifests.History, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_removed_file_takes_its_objects_along()
    {
        await using var manifests = new Manifests();
        manifests.Write("a.yaml", Yaml.Service("a"));
        manifests.Write("b.yaml", Yaml.Service("b"));
        await manifests.UntilObjects("Service default/a, Service default/b");
        File.Delete(manifests.At("a.yaml"));
        await manifests.UntilObjects("Service default/b");
    }

    [Fact]
    public async Task A_directory_that_vanishes_withdraws_nothing_and_is_followed_again_when_back()
    {
        await using var manifests = new Manifests();
        manifests.Write("a.yaml", Yaml.Service("a"));
        await manifests.UntilObjects("Service default/a");

        // File by file, as rm -r does.
        Directory.Delete(manifests.Path, recursive: true);
        await manifests.UntilProblem("does not exist: create it");
        Assert.Equal("Service default/a", manifests.Objects);

        Directory.CreateDirectory(manifests.Path);
        await manifests.UntilNoProblem();
        manifests.Write("b.yaml", Yaml.Service("b"));
        await manifests.UntilObjects("Service default/a, Service default/b");
        manifests.Write("a.yaml", Yaml.Service("a", "81"));
        await manifests.Until(() => manifests.Service("a")!.Spec.Ports![0].Port == 81, "the change");
        File.Delete(manifests.At("a.yaml"));
        await manifests.UntilObjects("Service default/b");
    }

    [Fact]
    public async Task A_directory_missing_at_start_is_not_an_empty_cluster()
    {
        await using var manifests = new Manifests(create: false);
        await manifests.UntilProblem("does not exist: create it");
        Assert.Equal("", manifests.History);
        Directory.CreateDirectory(manifests.Path);
        await manifests.UntilSynced();
    }

    [Fact]
    public async Task Editors_may_save_as_they_like()
    {
        await using var manifests = new Manifests();
        await manifests.UntilSynced();
        manifests.Write("web.yaml", Yaml.Service("web"));
        await manifests.UntilObjects("Service default/web");

        await File.WriteAllTextAsync(manifests.At(".web.yaml.swp"), "\0\0garbage", Cancellation);
        await File.WriteAllTextAsync(manifests.At("#web.yaml#"), "{half", Cancellation);
        await File.WriteAllTextAsync(manifests.At("4913"), "", Cancellation);
        File.Move(manifests.At("web.yaml"), manifests.At("web.yaml~"));
        await File.WriteAllTextAsync(manifests.At("web.yaml"), Yaml.Service("web", "81"), Cancellation);
        await manifests.Until(() => manifests.Service("web")!.Spec.Ports![0].Port == 81, "the saved change");

        Assert.Equal("", manifests.Problems);
        Assert.Equal("synced +Service default/web +Service default/web", manifests.History);
    }

    [Fact]
    public async Task A_mounted_ConfigMap_changes_all_its_files_at_once()
    {
        await using var manifests = new Manifests(prepare: path =>
        {
            Directory.CreateDirectory(Path.Combine(path, "..v1"));
            File.WriteAllText(Path.Combine(path, "..v1", "a.yaml"), Yaml.Service("a"));
            File.CreateSymbolicLink(Path.Combine(path, "..data"), "..v1");
            File.CreateSymbolicLink(Path.Combine(path, "a.yaml"), "..data/a.yaml");
        });
        await manifests.UntilObjects("Service default/a");

        Directory.CreateDirectory(manifests.At("..v2"));
        await File.WriteAllTextAsync(manifests.At("..v2/a.yaml"), Yaml.Service("a", "8181"), Cancellation);
        File.CreateSymbolicLink(manifests.At("..data_tmp"), "..v2");
        using var move = Process.Start("mv", ["-T", manifests.At("..data_tmp"), manifests.At("..data")]);
        await manifests.Until(() => manifests.Service("a")!.Spec.Ports![0].Port == 8181, "the new version");
    }

    [Fact]
    public async Task A_directory_moved_into_place_is_followed()
    {
        await using var manifests = new Manifests();
        var outside = Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(manifests.Path)!, "outside")).FullName;
        await File.WriteAllTextAsync(Path.Combine(outside, "a.yaml"), Yaml.Service("a"), Cancellation);
        Directory.Move(outside, manifests.At("inside"));
        await manifests.UntilObjects("Service default/a");
        manifests.Write("inside/b.yaml", Yaml.Service("b"));
        await manifests.UntilObjects("Service default/a, Service default/b");
        Directory.Delete(manifests.At("inside"), recursive: true);
        await manifests.UntilObjects("");
    }

    [Fact]
    public async Task A_late_reader_begins_with_the_present()
    {
        await using var manifests = new Manifests();
        manifests.Write("a.yaml", Yaml.Documents(Yaml.Service("a"), "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"));
        await manifests.UntilObjects("Namespace shop, Service default/a");

        await using var late = manifests.Source.WatchAsync(new HashSet<ObjectKind> { ObjectKind.Namespace }, Cancellation)
            .GetAsyncEnumerator(Cancellation);
        Assert.True(await late.MoveNextAsync());
        Assert.Equal(
            [(ObjectEventType.Upsert, "Namespace shop"), (ObjectEventType.Synced, null)],
            late.Current.Select(change => (change.Type, change.Object?.Key.ToString())));
    }

    [Theory]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {}", "metadata.name is missing")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: ../x}", "metadata.name '../x' must be")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {ports: [{port: 0}]}", "port 0 must be 1 to 65535")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {ports: [{port: \"80\"}]}", "must be a whole number without quotes")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec: {clusterIP: 10.0.0.300}", "clusterIP '10.0.0.300' is not an IP")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: x}\nspec:\n", "spec is null")]
    [InlineData("kind: Service\napiVersion: v1\nmetadata: {name: x, name: y}", "has the key 'name' twice")]
    [InlineData("kind: Service\nmetadata: {name: x}", "has no apiVersion or no kind")]
    [InlineData("- kind: Service", "is not an object")]
    [InlineData("kind: \"Service", "is not YAML")]
    [InlineData("a: &a [*a]", "before its anchor is complete")]
    [InlineData("kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x}", "addressType '' must be IPv4, IPv6 or FQDN")]
    [InlineData("kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {name: x}\naddressType: IPv4\nendpoints: [{addresses: [\"fd00::1\"]}]",
        "endpoints[0].addresses[0] 'fd00::1' is not an IPv4 address")]
    [InlineData("kind: CiliumNode\napiVersion: cilium.io/v2\nmetadata: {name: x}\nspec: {ipam: {podCIDRs: [10.1.0.0]}}", "is not an address range")]
    [InlineData("kind: CiliumIdentity\napiVersion: cilium.io/v2\nmetadata: {name: 65537}", "CiliumIdentity 65537: metadata.name must be text")]
    [InlineData("kind: CiliumIdentity\napiVersion: cilium.io/v2\nmetadata: {name: abc}", "must be the identity's number")]
    [InlineData("kind: CiliumEndpoint\napiVersion: cilium.io/v2\nmetadata: {name: x}\nstatus: {networking: {addressing: [{ipv4: x}]}}", "is not an IPv4")]
    public async Task A_faulty_document_is_named_with_its_mend(string document, string problem)
    {
        await using var manifests = new Manifests();
        manifests.Write("a.yaml", Yaml.Documents(Yaml.Service("good"), document));
        await manifests.UntilProblem(problem);
        Assert.StartsWith("a.yaml document 2, line ", manifests.Problems, StringComparison.Ordinal);
        await manifests.UntilObjects("Service default/good");
        Assert.Single(manifests.Source.Problems);
    }
}
