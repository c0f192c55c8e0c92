using Mesh.Kubernetes.Api;
using Xunit;

using KubeApiException = Mesh.Kubernetes.Api.KubeApiException;

namespace Mesh.Kubernetes.Tests.Api;

public sealed class KubeConfigurationTests : IDisposable
{
    private readonly string _home = Directory.CreateTempSubdirectory("mesh-kubeconfig-").FullName;

    public void Dispose() => Directory.Delete(_home, recursive: true);

    private string Write(string text, string name = "config")
    {
        var path = Path.Combine(_home, name);
        File.WriteAllText(path, text);
        return path;
    }

    private static string Config(string server, string current = "a", string context = "a") => $$"""
        apiVersion: v1
        kind: Config
        current-context: {{current}}
        clusters:
        - name: c
          cluster: { server: "{{server}}" }
        users:
        - name: u
          user: { token: t }
        contexts:
        - name: {{context}}
          context: { cluster: c, user: u, namespace: shop }
        - name: A
          context: { cluster: c, user: u }
        """;

    private const string Odd = """
        clusters: [{name: c, cluster: {server: "https://192.0.2.1", certificate-authority-data: "!"}},
          {name: f, cluster: {server: "https://192.0.2.1", certificate-authority: /nowhere/ca.crt}},
          {name: p, cluster: {server: "https://192.0.2.1"}}]
        users: [{name: u, user: {token: t}}, {name: crt, user: {client-certificate: /nowhere/u.crt}}, {name: key, user: {client-key: /nowhere/u.key}},
          {name: crt64, user: {client-certificate-data: "!"}}, {name: key64, user: {client-key-data: "!"}}]
        current-context: a
        contexts: [{name: a, context:
        """;

    [Fact]
    public void A_kubeconfig_is_read()
    {
        var read = KubeConfiguration.FromFile(Write(Config("https://192.0.2.1:6443")));
        Assert.Equal(("https://192.0.2.1:6443/", "shop", "a"), (read.Server.ToString(), read.Namespace, read.Context));
        // Names of contexts differ by case.
        Assert.Equal("default", KubeConfiguration.FromFile(Path.Combine(_home, "config"), "A").Namespace);
        Assert.Equal(["a", "A"], KubeConfiguration.Contexts(Path.Combine(_home, "config")));
    }

    [Theory]
    [InlineData("", null, "no current context: choose one of none")]
    [InlineData("config: [", null, "is no kubeconfig")]
    [InlineData("https://192.0.2.1", "b", "has no context 'b': choose one of a, A")]
    [InlineData("not a url", null, "Bad server host URL")]
    [InlineData("ftp://192.0.2.1", null, "must be a URL such as https://192.0.2.1:6443")]
    public void A_kubeconfig_that_leads_nowhere_says_why(string server, string? context, string wanted)
    {
        var path = Write(server.Length == 0 ? "apiVersion: v1\nkind: Config\n" : server.Contains('[') ? server : Config(server));
        var fault = Assert.Throws<KubeConfigurationException>(() => KubeConfiguration.FromFile(path, context));
        Assert.Contains(wanted, fault.Message, StringComparison.Ordinal);
        Assert.Contains(path, fault.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', fault.Message);
    }

    [Theory]
    [InlineData("[1]", "is no kubeconfig: it must be a map with clusters, users and contexts")]
    [InlineData("text", "is no kubeconfig: it must be a map with clusters, users and contexts")]
    [InlineData("", "is no kubeconfig: it must be a map with clusters, users and contexts")]
    [InlineData(Odd + " {cluster: d, user: u}}]", "context a: its cluster 'd' is not in the file: choose one of c, f, p")]
    [InlineData(Odd + " {cluster: f, user: v}}]", "context a: its user 'v' is not in the file: choose one of u, crt, key, crt64, key64")]
    [InlineData(Odd + " {cluster: p, user: crt}}]", "context a: client-certificate /nowhere/u.crt: there is no such file")]
    [InlineData(Odd + " {cluster: p, user: key}}]", "context a: client-key /nowhere/u.key: there is no such file")]
    [InlineData(Odd + " {cluster: p, user: crt64}}]", "context a: client-certificate-data is no base64")]
    [InlineData(Odd + " {cluster: p, user: key64}}]", "context a: client-key-data is no base64")]
    [InlineData(Odd + " {cluster: c}}]", "context a: certificate-authority-data is no base64")]
    [InlineData(Odd + " {cluster: f}}]", "context a: certificate-authority /nowhere/ca.crt: there is no such file")]
    public void What_a_kubeconfig_points_at_and_is_not_there_is_named(string text, string wanted)
    {
        var path = Write(text);
        var fault = Assert.Throws<KubeConfigurationException>(() => KubeConfiguration.FromFile(path));
        Assert.EndsWith(wanted, fault.Message, StringComparison.Ordinal);
        Assert.StartsWith(path, fault.Message, StringComparison.Ordinal);
    }

    [Theory]
    // "none", and a certificate's frame around it.
    [InlineData("bm9uZQ==", "bm9uZQ==")]
    [InlineData("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCm5vbmUKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=", "bm9uZQ==")]
    public void A_client_certificate_that_is_none_is_named_with_its_kubeconfig(string certificate, string key)
    {
        var path = Write($$"""
            clusters: [{name: c, cluster: {server: "https://192.0.2.1"} }]
            users:
            - name: u
              user:
                client-certificate-data: {{certificate}}
                client-key-data: {{key}}
            current-context: a
            contexts: [{name: a, context: {cluster: c, user: u} }]
            """);
        var fault = Assert.Throws<KubeConfigurationException>(() =>
        {
            using var client = new KubeClient(KubeConfiguration.FromFile(path));
        });
        Assert.StartsWith($"{path}, context a: its client certificate or key cannot be read: ", fault.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', fault.Message);
    }

    [Fact]
    public void A_file_that_is_not_there_is_named()
    {
        var fault = Assert.Throws<KubeConfigurationException>(() => KubeConfiguration.FromFile("/nowhere/config"));
        Assert.Equal("/nowhere/config: no such kubeconfig file: name one that exists (--kubeconfig or KUBECONFIG)", fault.Message);
    }

    [Fact]
    public async Task A_server_that_is_not_there_is_named_with_its_kubeconfig()
    {
        var path = Write(Config("http://127.0.0.1:1"));
        using var client = new KubeClient(KubeConfiguration.FromFile(path));
        var fault = await Assert.ThrowsAsync<KubeApiException>(() => client.GetVersionAsync(TestContext.Current.CancellationToken));
        Assert.Equal(KubeFault.Unreachable, fault.Fault);
        Assert.Contains("http://127.0.0.1:1/version", fault.Message, StringComparison.Ordinal);
        Assert.Contains($"{path}, context a", fault.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Another_clusters_authority_is_told_as_such()
    {
        await using var one = await Cluster.StartAsync();
        await using var other = await Cluster.StartAsync();
        var mixed = Path.Combine(_home, "mixed");
        one.Server.WriteKubeconfig(mixed, "x", server: other.Server.Url);
        using var client = new KubeClient(KubeConfiguration.FromFile(mixed));
        var fault = await Assert.ThrowsAsync<KubeApiException>(() => client.GetVersionAsync(TestContext.Current.CancellationToken));
        Assert.Contains("does the kubeconfig's certificate authority belong to this server?", fault.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("manifests:/x", "manifests:/x")]
    [InlineData("kubernetes", "kubernetes")]
    [InlineData("kubernetes:/etc/kube/config", "kubernetes:/etc/kube/config")]
    [InlineData("kubernetes:/etc/kube/config#tokyo", "kubernetes:/etc/kube/config#tokyo")]
    [InlineData("kubernetes:", null)]
    [InlineData("kubernetes:#a", null)]
    [InlineData("kubernetes:/x#", null)]
    [InlineData("manifests:", null)]
    [InlineData("", null)]
    public void The_source_flag_is_read(string text, string? wanted) => Assert.Equal(wanted, SourceAddress.TryParse(text)?.ToString());

    [Fact]
    public void Files_are_flags_and_the_command_line_wins()
    {
        foreach (var (name, value) in new[] { ("cluster-name", "tokyo\n"), ("cluster-id", "7"), ("debug", "true"), ("..data", "") })
            File.WriteAllText(Path.Combine(_home, name), value);
        var told = new List<string>();
        var known = new HashSet<string> { "--cluster-name", "--cluster-id", "--config-dir" };
        var args = FlagFiles.Expand(["run", "--config-dir", _home, "--cluster-id", "9"], 1, known, told.Add);
        Assert.Equal(["run", "--cluster-name=tokyo", "--config-dir", _home, "--cluster-id", "9"], args);
        Assert.Equal($"--config-dir {_home}: not ours, passed over: debug", Assert.Single(told));
        Assert.Contains("no such directory", Assert.Throws<IOException>(() => FlagFiles.Expand(["--config-dir=/nowhere"], 0, known, told.Add)).Message,
            StringComparison.Ordinal);
    }
}
