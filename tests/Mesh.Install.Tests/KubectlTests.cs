using System.Diagnostics;
using Mesh.Install.Charts;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>Debian's kubectl and the API server's schemas judge what we render.</summary>
public class KubectlTests
{
    public static TheoryData<string> Shapes =>
    [
        "{}",
        "{ipv6: {enabled: true}, prometheus: {enabled: true}, operator: {prometheus: {enabled: true}, replicas: 2}, devices: [eth0]}",
        "{bpf: {autoMount: {enabled: false}}, cni: {install: false}, kubeProxyReplacement: true, k8sServiceHost: 192.0.2.1, k8sServicePort: 6443}",
        "{clustermesh: {useAPIServer: true, enableMCSAPISupport: true, apiserver: {replicas: 2, metrics: {enabled: true}, service: {type: LoadBalancer, "
            + "annotations: {a.b/c: 'true'}}, tls: {authMode: cluster}}, config: {enabled: true, clusters: [{name: osaka, ips: [192.0.2.7], port: 32379}]}}}",
        "{clustermesh: {useAPIServer: true, apiserver: {kvstoremesh: {enabled: false}, service: {type: ClusterIP}, tls: {authMode: legacy}}, "
            + "config: {enabled: true, clusters: {osaka: {ips: [192.0.2.7]}, kyoto: {address: kyoto.example, tls: {cert: QQ==, key: QQ==, caCert: QQ==}}}}}}",
    ];

    [Theory]
    [MemberData(nameof(Shapes))]
    public async Task Every_object_passes_kubectl_and_the_server(string values)
    {
        await using var world = await World.StartAsync(1);
        var file = Path.Combine(Path.GetDirectoryName(world.Kubeconfig)!, "manifest.yaml");
        await File.WriteAllTextAsync(file, Render(values).Manifest("cilium"), TestContext.Current.CancellationToken);
        var said = await KubectlAsync(world, "apply", "--dry-run=server", "-f", file);
        Assert.DoesNotContain("error", said, StringComparison.OrdinalIgnoreCase);
        Assert.Equal(Render(values).Objects.Count, said.Split('\n').Count(line => line.Contains("created (server dry run)", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("restartPolicy: Always", "restartPolicy: Never", "Unsupported value")]
    [InlineData("name: clustermesh-apiserver-local", "name: Clustermesh_local", "Invalid value")]
    [InlineData("replicas: 1", "replicas: -1", "must be greater than or equal to 0")]
    public async Task What_the_server_does_not_take_is_found_by_it(string right, string wrong, string expected)
    {
        await using var world = await World.StartAsync(1);
        var file = Path.Combine(Path.GetDirectoryName(world.Kubeconfig)!, "manifest.yaml");
        var manifest = Render("clustermesh: {useAPIServer: true}").Manifest("cilium");
        Assert.Contains(right, manifest, StringComparison.Ordinal);
        await File.WriteAllTextAsync(file, manifest.Replace(right, wrong, StringComparison.Ordinal), TestContext.Current.CancellationToken);
        var said = await KubectlAsync(world, "apply", "--dry-run=server", "-f", file);
        Assert.Contains(expected, said, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Every_field_is_one_of_the_Kubernetes_API(string values) =>
        Assert.Empty(Render(values).Objects.SelectMany(rendered => KnownFields.Unknown(rendered.Object.Body)));

    [Fact]
    public void A_misspelt_field_would_be_found()
    {
        var set = Render("{}").Find("DaemonSet", "cilium")!.Copy().Body;
        ((System.Text.Json.Nodes.JsonObject)set["spec"]!["template"]!["spec"]!)["hostNetwerk"] = true;
        Assert.Equal("DaemonSet.spec.template.spec.hostNetwerk", Assert.Single(KnownFields.Unknown(set)));
    }

    [Fact]
    public async Task The_committed_manifests_are_applied()
    {
        await using var world = await World.StartAsync(1);
        var said = await KubectlAsync(world, "apply", "-f", Path.Combine(Repository.Root, "deploy/kubernetes/clustermesh.yaml"));
        Assert.Contains("daemonset.apps/cilium created", said, StringComparison.Ordinal);
        Assert.NotNull(world.Find("deployments.apps", "clustermesh-apiserver"));
    }

    [Theory]
    [MemberData(nameof(Shapes))]
    public void Containers_are_confined(string values)
    {
        foreach (var one in Render(values).Objects.Select(rendered => rendered.Object).Where(one => one.Kind is "DaemonSet" or "Deployment"))
        {
            var pod = one.Body["spec"]!["template"]!["spec"]!;
            foreach (var container in (pod["initContainers"]?.AsArray() ?? []).Concat(pod["containers"]!.AsArray()))
            {
                var (name, context) = ((string)container!["name"]!, container["securityContext"]!);
                Assert.True((bool)context["readOnlyRootFilesystem"]!, name);
                Assert.Equal(name == "mount-bpf-fs", (bool?)context["privileged"] ?? false);
                if (name != "mount-bpf-fs")
                {
                    Assert.Equal("ALL", (string?)context["capabilities"]!["drop"]![0]);
                    Assert.False((bool)context["allowPrivilegeEscalation"]!, name);
                }
                if (one.Kind == "Deployment")
                    Assert.True((bool)pod["securityContext"]!["runAsNonRoot"]!, name);
            }
        }
    }

    [Fact]
    public void No_role_says_everything()
    {
        foreach (var role in Render(Shapes.Last().Data).Objects.Select(rendered => rendered.Object).Where(one => one.Kind is "ClusterRole" or "Role"))
            Assert.DoesNotContain("\"*\"", role.Body.ToJsonString(), StringComparison.Ordinal);
    }

    [Fact]
    public void Certificates_lead_to_the_authority_and_name_the_services()
    {
        var rendering = Render("{cluster: {name: tokyo}, clustermesh: {useAPIServer: true, apiserver: {tls: {authMode: cluster}}}}");
        var authority = Mesh.Pki.CertificateFacts.OfPem(Pem("cilium-ca", "ca.crt"));
        foreach (var (kind, name) in new[]
        {
            ("server", "clustermesh-apiserver.cilium.io"), ("admin", "admin-tokyo"), ("remote", "remote-tokyo"), ("local", "local-tokyo"),
        })
        {
            var facts = Mesh.Pki.CertificateFacts.OfPem(Pem($"clustermesh-apiserver-{kind}-cert", "tls.crt"));
            Assert.Equal(name, facts.CommonName);
            Assert.Equal(authority.KeyId, facts.IssuerKeyId);
        }
        using var server = System.Security.Cryptography.X509Certificates.X509Certificate2.CreateFromPem(Pem("clustermesh-apiserver-server-cert", "tls.crt"));
        Assert.True(server.MatchesHostname("clustermesh-apiserver-local.kube-system.svc"));
        Assert.True(server.MatchesHostname("tokyo.mesh.cilium.io"));

        string Pem(string secret, string key) => System.Text.Encoding.UTF8.GetString(Convert.FromBase64String(
            (string)rendering.Find("Secret", secret)!.Body["data"]![key]!));
    }

    private static Rendering Render(string values) =>
        ChartRenderer.Render(Chart.OfThisProgram, YamlText.ParseMap(values, "values"), new("cilium", "kube-system"), ChartEnvironment.Nowhere);

    private static async Task<string> KubectlAsync(World world, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo("kubectl", ["--kubeconfig", world.Kubeconfig, .. arguments])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return await output + await errors;
    }
}
