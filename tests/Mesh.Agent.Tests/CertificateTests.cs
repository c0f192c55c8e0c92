using System.Text;
using Mesh.Agent.Metrics;
using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>What an agent tells of the certificates towards a peer that it reads over real TLS.</summary>
public sealed class CertificateTests : IAsyncLifetime
{
    private readonly string _directory = RunningAgent.NewDirectory();
    private EtcdServer _etcd = null!;
    private EtcdOptions _options = null!;
    private EtcdKVStore _tokyo = null!;
    private RunningAgent _agent = null!;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync(tls: true);
        await using (var writer = _etcd.NewStore())
        {
            var lines = await File.ReadAllLinesAsync(Path.Combine(AppContext.BaseDirectory, "golden", "cilium-1.13.2", "etcd-dump.txt"));
            await writer.WriteAsync([.. lines.Chunk(2).Select(pair => new WriteOperation(pair[0], Encoding.UTF8.GetBytes(pair[1])))],
                TestContext.Current.CancellationToken);
        }
        _options = _etcd.OptionsFor("remote-osaka") with { CertificateCheckInterval = TimeSpan.Zero };
        _tokyo = new EtcdKVStore(_options);
        _agent = await RunningAgent.StartAsync(_directory, tokyo: _tokyo);
        await RunningAgent.Eventually(() => _agent.Client.GetStatusAsync(), status => status.Mesh?.Certificates is [{ ServerNotAfter.Year: > 1 }]);
    }

    public async ValueTask DisposeAsync()
    {
        await _agent.DisposeAsync();
        await _tokyo.DisposeAsync();
        await _etcd.DisposeAsync();
        RunningAgent.Remove(_directory);
    }

    [Fact]
    public async Task Status_and_metrics_have_the_ends_of_all_three_and_warn_of_what_ends_soon()
    {
        var status = await _agent.Client.GetStatusAsync();
        var one = Assert.Single(status.Mesh!.Certificates!);
        Assert.Equal("tokyo", one.Name);
        Assert.Equal("remote-osaka", one.ClientName);
        Assert.All([one.ClientNotAfter, one.ServerNotAfter, one.AuthorityNotAfter],
            end => Assert.InRange(end, DateTimeOffset.UtcNow.AddHours(23), DateTimeOffset.UtcNow.AddHours(25)));
        Assert.Contains("warning: our client certificate remote-osaka expires within a day", one.Expiry, StringComparison.Ordinal);
        Assert.Null(one.Problem);
        var page = MetricsPage.Of(_agent.Agent.View);
        foreach (var (certificate, end) in new[] { ("client", one.ClientNotAfter), ("server", one.ServerNotAfter), ("authority", one.AuthorityNotAfter) })
        {
            var labels = $"target_cluster=\"tokyo\",certificate=\"{certificate}\"";
            Assert.Contains($"mesh_clustermesh_certificate_not_after{{{labels}}} {end.ToUnixTimeSeconds()}\n", page, StringComparison.Ordinal);
        }
        Assert.Contains("mesh_clustermesh_certificate_problem{target_cluster=\"tokyo\"} 0\n", page, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_broken_file_is_an_alarm_while_the_peer_stays_connected_until_it_is_mended()
    {
        var good = await File.ReadAllTextAsync(_options.KeyFile!);
        await File.WriteAllTextAsync(_options.KeyFile!, "not a key");
        var broken = await RunningAgent.Eventually(() => _agent.Client.GetStatusAsync(), status => status.Mesh!.Certificates![0].Problem is not null);
        Assert.Contains(_options.KeyFile!, broken.Mesh!.Certificates![0].Problem, StringComparison.Ordinal);
        Assert.True(broken.ClusterMesh!.Clusters![0].Connected);
        Assert.Contains("mesh_clustermesh_certificate_problem{target_cluster=\"tokyo\"} 1\n", MetricsPage.Of(_agent.Agent.View), StringComparison.Ordinal);
        await File.WriteAllTextAsync(_options.KeyFile!, good);
        await RunningAgent.Eventually(() => _agent.Client.GetStatusAsync(), status => status.Mesh!.Certificates![0].Problem is null);
    }

    [Fact]
    public void A_change_is_one_line_and_no_change_is_none()
    {
        var lines = new List<string>();
        var sink = new LoggingSink(new Deaf(), lines.Add);
        var status = new RemoteClusterStatus { Name = "tokyo", Status = "", Tls = new TlsStatus("remote-osaka", null, null, null, null, null) };
        sink.StatusChanged(status);
        lines.Clear();
        sink.StatusChanged(status with { CertificateExpiry = "warning: 12 days" });
        sink.StatusChanged(status with { CertificateExpiry = "warning: 12 days" });
        Assert.Equal(["cluster tokyo: warning: 12 days"], lines);
        sink.StatusChanged(status with { CertificateExpiry = "error: expired" });
        sink.StatusChanged(status with { CertificateExpiry = "error: expired", Tls = status.Tls with { Problem = "no key" } });
        sink.StatusChanged(status);
        Assert.Equal(["cluster tokyo: error: expired", "cluster tokyo: error: no key", "cluster tokyo: no certificate expires soon",
            "cluster tokyo: the certificate files are in order again"], lines[1..]);
    }

    private sealed class Deaf : IRemoteClusterSink
    {
        public void Apply(RemoteChanges changes)
        {
        }

        public void Drain(string cluster, uint clusterId)
        {
        }

        public void StatusChanged(RemoteClusterStatus status)
        {
        }
    }
}
