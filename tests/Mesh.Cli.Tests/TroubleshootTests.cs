using System.Text;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh clustermesh troubleshoot` against a real etcd: the first real cause, its class, the mend, and the exit code.</summary>
public sealed class TroubleshootTests : IAsyncLifetime
{
    private const string Peer = "kyoto";
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-troubleshoot-").FullName;
    private EtcdServer _etcd = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => _etcd = await EtcdServer.StartAsync(tls: true);

    public async ValueTask DisposeAsync()
    {
        await _etcd.DisposeAsync();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public async Task A_healthy_peer_in_the_layout_people_know()
    {
        await PublishAsync();
        var (code, text) = await RunAsync(_etcd.Endpoint);
        Assert.True(code == 0, text);
        var port = new Uri(_etcd.Endpoint).Port;
        Assert.StartsWith($"""
            Found 1 cluster configurations

            Cluster "kyoto":
            📄 Configuration path: {_directory}/kyoto

            🔌 Endpoints:
               - https://127.0.0.1:{port}
                 ✅ TCP connection successfully established to 127.0.0.1:{port}
                 ✅ TLS connection successfully established to 127.0.0.1:{port}
                 ℹ️  Negotiated TLS version: TLS 1.3, ciphersuite TLS_
            """, text, StringComparison.Ordinal);
        foreach (var line in new[]
        {
            "     ℹ️  Etcd server version: 3.4", "🔑 Digital certificates:\n   ✅ TLS Root CA certificates:\n      - Serial number:       ",
            "        Subject:             CN=root\n", "⚙️ Etcd client:\n   ✅ Etcd connection successfully established\n   ℹ️  Etcd cluster ID: ",
            "   ✅ Heartbeat: ", "   ✅ Configuration: cluster-id=7, kvstoremesh=false, sync-canaries=true\n",
            "   ✅ Canaries: all four resources are written\n",
            "   ✅ Data: 1 nodes, 0 services, 0 endpoints, 0 identities\n", "✅ No fault was found\n",
        })
            Assert.Contains(line, text, StringComparison.Ordinal);
        Assert.DoesNotContain("❌", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("dns")]
    [InlineData("connection-refused")]
    [InlineData("tls-unknown-authority")]
    [InlineData("certificate-expired")]
    [InlineData("certificate-refused")]
    [InlineData("certificate-unusable")]
    [InlineData("access-denied")]
    [InlineData("config-missing")]
    [InlineData("wrong-cluster-id")]
    [InlineData("not-synced")]
    [InlineData("clock-skew")]
    [InlineData("heartbeat-stale")]
    [InlineData("frozen")]
    public async Task A_fault_is_named_with_its_mend(string fault)
    {
        await PublishAsync(fault);
        var (endpoint, user, authority) = (_etcd.Endpoint, "root", (string?)null);
        switch (fault)
        {
            case "dns":
                endpoint = "https://no-such-host.invalid:2379";
                break;
            case "connection-refused":
                endpoint = $"https://127.0.0.1:{EtcdServer.FreePort()}";
                break;
            case "tls-unknown-authority":
                using (var stranger = CertificateAuthority.Create("stranger", TimeSpan.FromDays(1)))
                    await File.WriteAllTextAsync(authority = Path.Combine(_directory, "stranger.crt"), stranger.CertificatePem, Cancellation);
                break;
            case "certificate-expired":
                _etcd.ReissueServer(TimeSpan.FromSeconds(1));
                await Task.Delay(1100, Cancellation);
                break;
            case "certificate-refused":
                using (var stranger = CertificateAuthority.Create("stranger", TimeSpan.FromDays(1)))
                {
                    var issued = stranger.Issue("root", [], [], TimeSpan.FromDays(1));
                    await File.WriteAllTextAsync(Path.Combine(_etcd.WorkDirectory, "foreign.crt"), issued.CertificatePem, Cancellation);
                    await File.WriteAllTextAsync(Path.Combine(_etcd.WorkDirectory, "foreign.key"), issued.KeyPem, Cancellation);
                }
                user = "foreign";
                break;
            case "certificate-unusable":
                await File.WriteAllTextAsync(Path.Combine(_etcd.WorkDirectory, "broken.crt"), "no certificate", Cancellation);
                await File.WriteAllTextAsync(Path.Combine(_etcd.WorkDirectory, "broken.key"), "no key", Cancellation);
                user = "broken";
                break;
            case "access-denied":
                await _etcd.EtcdctlAsync("user", "add", "root", "--no-password");
                await _etcd.EtcdctlAsync("user", "grant-role", "root", "root");
                await _etcd.EtcdctlAsync("user", "add", "nobody", "--no-password");
                await _etcd.EtcdctlAsync("auth", "enable");
                user = "nobody";
                break;
            case "frozen":
                _etcd.Pause();
                break;
        }
        var (code, text) = await RunAsync(endpoint, user, authority);
        Assert.Contains($"\n❌ Cause: {fault}: ", text, StringComparison.Ordinal);
        Assert.Contains("\n💡 ", text, StringComparison.Ordinal);
        Assert.DoesNotContain("No fault was found", text, StringComparison.Ordinal);
        Assert.Equal(2, code);
        var (jsonCode, json) = await RunAsync(endpoint, user, authority, "-o", "json");
        Assert.Equal(2, jsonCode);
        Assert.Contains($"\"fault\": \"{fault}\"", json, StringComparison.Ordinal);
    }

    /// <summary>Behind a relay the store that answers is not the peer's: what the relay has lost is told in its words.</summary>
    [Fact]
    public async Task A_relay_that_lost_its_source_says_so_and_one_that_did_not_does_not()
    {
        await PublishAsync();
        var trouble = Keys.SourceTrouble(Peer);
        await using (var store = _etcd.NewStore())
            await store.WriteAsync(
            [
                Put($"cilium/cluster-config/{Peer}", """{"id":7,"capabilities":{"cached":true,"syncedCanaries":true}}"""),
                .. new[] { "nodes", "services", "ip", "identities" }.Select(resource => Put($"cilium/synced/{Peer}/cilium/cache/{resource}/v1", "now")),
                Put(trouble, "connection-refused since 2026-01-31T08:15:00Z: etcd https://192.0.2.1:2379: Connection refused"),
            ], Cancellation);
        var (code, text) = await RunAsync(_etcd.Endpoint);
        Assert.Equal(2, code);
        Assert.Contains("   ❌ The relay has lost kyoto since 2026-01-31 08:15:00", text, StringComparison.Ordinal);
        Assert.Contains("\n❌ Cause: connection-refused: etcd https://192.0.2.1:2379: Connection refused\n💡 ", text, StringComparison.Ordinal);
        // Words that are none of our relay's are a lost source all the same.
        await using (var store = _etcd.NewStore())
            await store.WriteAsync([Put(trouble, "no sign of life")], Cancellation);
        (code, text) = await RunAsync(_etcd.Endpoint);
        Assert.Equal(2, code);
        Assert.Contains("\n❌ Cause: source-lost: no sign of life\n💡 ", text, StringComparison.Ordinal);
        // The control: the same relay with nothing to complain of.
        await using (var store = _etcd.NewStore())
            await store.WriteAsync([new WriteOperation(trouble, null)], Cancellation);
        (code, text) = await RunAsync(_etcd.Endpoint);
        Assert.True(code == 0, text);
        Assert.Contains("kvstoremesh=true", text, StringComparison.Ordinal);
    }

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));

    [Fact]
    public async Task A_peer_without_a_file()
    {
        var (code, text) = await RunAsync(_etcd.Endpoint, arguments: ["nara"]);
        Assert.Equal(2, code);
        Assert.Contains("❌ Configuration not found", text, StringComparison.Ordinal);
    }

    private async Task PublishAsync(string fault = "")
    {
        await using var store = _etcd.NewStore();
        var clock = fault switch { "clock-skew" => TimeSpan.FromMinutes(10), "heartbeat-stale" => TimeSpan.FromMinutes(-10), _ => default };
        await PublishedCluster.WriteAsync(store, fault == "config-missing" ? "nara" : Peer, fault == "wrong-cluster-id" ? 2u : 7u,
            canaries: fault != "not-synced", clock: clock, cancellation: Cancellation);
    }

    private async Task<(int Code, string Text)> RunAsync(string endpoint, string user = "root", string? authority = null, params string[] arguments)
    {
        var options = _etcd.OptionsFor(user);
        await File.WriteAllTextAsync(Path.Combine(_directory, Peer),
            $"endpoints:\n- {endpoint}\ntrusted-ca-file: {authority ?? options.TrustedCaFile}\n"
            + $"cert-file: {options.CertFile}\nkey-file: {options.KeyFile}\n", Cancellation);
        var (output, error) = (new StringWriter(), new StringWriter());
        var code = await MeshCommand.RunAsync(
            ["clustermesh", "troubleshoot", .. arguments, "--clustermesh-config", _directory, "--timeout", "2s", "--cluster-id", "2"], output, error);
        Assert.Equal("", error.ToString());
        return (code, output.ToString());
    }
}
