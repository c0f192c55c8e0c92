using System.Net;
using System.Net.Sockets;
using Mesh.Joining.Checks;
using Mesh.Joining.Listening;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;
using Mesh.Pki;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>Each fault that a join can meet is planted: plan names it, connect refuses, and nothing changes on either side. That nothing
/// is named where nothing is planted, <see cref="JoinTests"/> shows.</summary>
public sealed class PlanTests : IAsyncDisposable
{
    private readonly List<TestCluster> _clusters = [];

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        foreach (var cluster in _clusters)
            await cluster.DisposeAsync();
    }

    private TestCluster Cluster(string name, uint id, Func<ClusterDescription, ClusterDescription>? change = null, TimeProvider? time = null)
    {
        var cluster = TestCluster.Create(name, id, change, time: time);
        _clusters.Add(cluster);
        return cluster;
    }

    /// <summary>Plans, expects the finding, and that neither side changed; then the same of connect.</summary>
    private static async Task<Finding> NamesAsync(string check, string text, TestCluster tokyo, TestCluster osaka, JoinToken token,
        Severity severity = Severity.Fault, TimeProvider? osakaTime = null)
    {
        var before = tokyo.Checksum() + osaka.Checksum();
        var pki = Directory.GetLastWriteTimeUtc(tokyo.Description.Pki);
        var report = await osaka.Join(token, time: osakaTime).PlanAsync(Cancel);
        var found = report.Findings.Where(finding => finding.Check == check && finding.Severity == severity).ToList();
        Assert.True(found.Count > 0, $"{string.Join('\n', report.Findings)}\n{tokyo.Said}");
        Assert.Contains(text, string.Join('\n', found.Select(finding => finding.Text)));
        Assert.All(found, finding => Assert.NotNull(finding.Mend));
        if (severity == Severity.Fault)
        {
            var refused = await Assert.ThrowsAsync<PlanException>(() => osaka.Join(token, time: osakaTime).ConnectAsync(ConnectRequest.Plain, Cancel));
            Assert.Contains(refused.Standing, finding => finding.Check == check);
            Assert.False(osaka.Has($"join/journal/{token.ClusterName}.json"));
            Assert.DoesNotContain(new TokenLedger(tokyo.Description.JoinDirectory, TimeProvider.System).Tokens, record => record.State == TokenState.Bound);
        }
        Assert.Equal(before, tokyo.Checksum() + osaka.Checksum());
        Assert.Equal(pki, Directory.GetLastWriteTimeUtc(tokyo.Description.Pki));
        return found[0];
    }

    [Fact]
    public async Task The_same_id()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 1, own => own with { PodCIDRs = ["10.9.0.0/16"], NodeCIDRs = ["172.30.9.0/24"] }));
        tokyo.Listen();
        Assert.False((await NamesAsync("cluster-id", "tokyo have the same ID 1", tokyo, osaka, tokyo.Token())).CanBeForced);
    }

    [Fact]
    public async Task The_same_name()
    {
        var (tokyo, other) = (Cluster("tokyo", 1), Cluster("tokyo", 2));
        tokyo.Listen();
        await NamesAsync("cluster-name", "tokyo and tokyo have the same name", tokyo, other, tokyo.Token());
    }

    [Fact]
    public async Task The_id_of_a_peer_of_the_other_side()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        var kyoto = Cluster("kyoto", 2, own => own with { PodCIDRs = ["10.3.0.0/16"], NodeCIDRs = ["172.30.3.0/24"] });
        tokyo.Listen();
        await osaka.Join(tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await NamesAsync("cluster-id", "kyoto and osaka (a peer of tokyo) have the same ID 2", tokyo, kyoto, tokyo.Token());
    }

    [Fact]
    public async Task The_name_and_range_of_an_own_peer()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        var (kyoto, second) = (Cluster("kyoto", 3), Cluster("osaka", 4));
        tokyo.Listen();
        kyoto.Listen();
        await osaka.Join(tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await second.Join(kyoto.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await NamesAsync("cluster-name", "osaka (a peer of kyoto) and osaka (a peer of tokyo) have the same name and different IDs",
            tokyo, kyoto, tokyo.Token());
    }

    [Fact]
    public async Task Another_number_of_clusters()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2, own => own with { MaxConnectedClusters = 511 }));
        tokyo.Listen();
        await NamesAsync("max-connected-clusters", "made for 511 clusters and tokyo for 255", tokyo, osaka, tokyo.Token());
    }

    [Theory]
    [InlineData("10.1.128.0/17", "172.30.2.0/24", "pod-cidr", "pods of osaka (10.1.128.0/17) and pods of tokyo (10.1.0.0/16)")]
    [InlineData("10.2.0.0/16", "172.30.1.7/32", "node-cidr", "nodes of osaka (172.30.1.7/32) and nodes of tokyo (172.30.1.0/24)")]
    [InlineData("172.30.0.0/16", "192.168.2.0/24", "pod-cidr", "pods of osaka (172.30.0.0/16) and nodes of tokyo (172.30.1.0/24)")]
    [InlineData("10.2.0.0/16", "10.1.9.0/24", "pod-cidr", "pods of tokyo (10.1.0.0/16) and nodes of osaka (10.1.9.0/24)")]
    public async Task Addresses_that_two_want(string pods, string nodes, string check, string text)
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2, own => own with { PodCIDRs = [pods], NodeCIDRs = [nodes] }));
        tokyo.Listen();
        await NamesAsync(check, text, tokyo, osaka, tokyo.Token());
    }

    [Fact]
    public async Task An_overlap_passes_when_both_sides_say_so_and_not_when_one_does()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2, own => own with { NodeCIDRs = ["172.30.0.0/16"] }));
        tokyo.Listen();
        var alone = tokyo.Token();
        var e = await Assert.ThrowsAsync<JoinException>(() => osaka.Join(alone).ConnectAsync(new ConnectRequest(["node-cidr"]), Cancel));
        Assert.Equal("refused", e.Code);
        Assert.Contains("--allow node-cidr", e.Message);
        var both = tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1), null, [], ["node-cidr"]));
        Assert.Equal(JoinState.Connected, (await osaka.Join(both).ConnectAsync(new ConnectRequest(["node-cidr"]), Cancel)).State);
    }

    [Fact]
    public async Task A_listener_of_another_authority_never_sees_the_secret()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        var listener = tokyo.Listen();
        var token = tokyo.Token();
        Directory.Delete(tokyo.Description.Pki, recursive: true);
        PkiDirectory.Init(tokyo.Description.Pki, new PkiSettings { Cluster = "tokyo", ServerNames = [$"{tokyo.Address}"] });
        await NamesAsync("join-listener", "not signed by the authority", tokyo, osaka, token);
        Assert.Empty(listener.Counters.Refused);
    }

    [Fact]
    public async Task A_door_of_another_authority()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        tokyo.Listen();
        using var other = CertificateAuthority.Create("somebody else", TimeSpan.FromDays(1));
        var issued = other.Issue("clustermesh-apiserver.cilium.io", [], [osaka.Address], TimeSpan.FromDays(1));
        File.Delete($"{osaka.Root}/pki/server.crt");
        File.Delete($"{osaka.Root}/pki/server.key");
        File.WriteAllText($"{osaka.Root}/pki/server.crt", issued.CertificatePem);
        File.WriteAllText($"{osaka.Root}/pki/server.key", issued.KeyPem);
        await NamesAsync("own-certificates", "not signed by the authority in ca.crt", tokyo, osaka, tokyo.Token());
        await NamesAsync("own-door", "not signed by the authority", tokyo, osaka, tokyo.Token());
    }

    [Fact]
    public async Task An_expired_certificate_of_the_other_side()
    {
        var longAgo = new FakeTimeProvider(DateTimeOffset.UtcNow - TimeSpan.FromDays(400));
        var (tokyo, osaka) = (Cluster("tokyo", 1, time: longAgo), Cluster("osaka", 2));
        tokyo.Listen();
        await NamesAsync("join-listener", "the certificate expired at", tokyo, osaka, tokyo.Token());
    }

    [Fact]
    public async Task An_expired_certificate_of_this_side()
    {
        var longAgo = new FakeTimeProvider(DateTimeOffset.UtcNow - TimeSpan.FromDays(400));
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2, time: longAgo));
        tokyo.Listen();
        await NamesAsync("own-certificates", "server certificate has expired", tokyo, osaka, tokyo.Token());
        await NamesAsync("own-door", "the certificate expired at", tokyo, osaka, tokyo.Token());
    }

    [Theory]
    [InlineData(600, Severity.Fault, "600.0 s ahead")]
    [InlineData(-600, Severity.Fault, "600.0 s behind")]
    [InlineData(60, Severity.Warning, "60.0 s ahead")]
    public async Task A_clock_that_is_wrong(int seconds, Severity severity, string text)
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        var time = new Shifted(TimeSpan.FromSeconds(seconds));
        tokyo.Listen(time);
        var token = tokyo.Token(new TokenRequest(TimeSpan.FromHours(1)), time);
        // A tenth of a second may pass between two looks at a clock.
        await NamesAsync("clock", text.Split('.')[0][..^1], tokyo, osaka, token, severity);
    }

    [Fact]
    public async Task A_door_that_is_shut()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        tokyo.Listen();
        tokyo.CloseDoor();
        await NamesAsync("door-of-peer", "connection refused", tokyo, osaka, tokyo.Token());
        osaka.CloseDoor();
        await NamesAsync("own-door", "connection refused", tokyo, osaka, tokyo.Token());
    }

    [Fact]
    public async Task A_listener_that_is_not_there()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        await NamesAsync("join-listener", "connection refused", tokyo, osaka, tokyo.Token());
    }

    /// <summary>One after the other they would take nine seconds before the one that answers is asked.</summary>
    [Fact]
    public async Task Dead_addresses_of_a_token_cost_a_moment_each()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        tokyo.Listen();
        var silent = new List<Socket>();
        try
        {
            for (var i = 0; i < 3; i++)
            {
                silent.Add(new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
                silent[i].Bind(new IPEndPoint(tokyo.Address, 0));
                silent[i].Listen();
            }
            var token = tokyo.Token();
            token = token with { Addresses = [.. silent.Select(socket => $"{socket.LocalEndPoint}"), .. token.Addresses] };
            var began = TimeProvider.System.GetTimestamp();
            await using (var client = await JoinClient.ConnectAsync(token, Sockets.Open, TimeProvider.System, Cancel))
                Assert.Equal(token.Addresses[^1], $"{client.Remote}");
            Assert.InRange(TimeProvider.System.GetElapsedTime(began).TotalSeconds, 0.7, 7);
            token = token with { Addresses = [.. token.Addresses.Take(3)] };
            var e = await Assert.ThrowsAsync<JoinException>(() => JoinClient.ConnectAsync(token, Sockets.Open, TimeProvider.System, Cancel));
            Assert.EndsWith($"(tried {string.Join(", ", token.Addresses)})", e.Message);
        }
        finally
        {
            silent.ForEach(socket => socket.Dispose());
        }
    }

    [Fact]
    public async Task A_tunnel_port_that_somebody_holds_is_not_called_proven()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2));
        tokyo.Listen();
        using var held = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        held.Bind(new IPEndPoint(tokyo.Address, tokyo.Description.TunnelPort));
        await NamesAsync("udp-to-peer", "not proven", tokyo, osaka, tokyo.Token(), Severity.Warning);
    }

    [Fact]
    public async Task Another_tunnel_port()
    {
        var (tokyo, osaka) = (Cluster("tokyo", 1), Cluster("osaka", 2, own => own with { TunnelPort = 18473 }));
        tokyo.Listen();
        await NamesAsync("tunnel-port", "osaka tunnels by UDP 18473 and tokyo by UDP 18472", tokyo, osaka, tokyo.Token());
    }

    [Theory]
    [InlineData("0.3.0", "1.14", "1.20", Severity.Warning)]
    [InlineData("2.0.0", "1.30", "1.32", Severity.Fault)]
    public void A_version_far_away(string version, string oldest, string newest, Severity severity)
    {
        var one = Cluster("tokyo", 1).Description.Facts();
        var other = Cluster("osaka", 2).Description.Facts() with { Version = version, Profile = new WireProfile(oldest, newest) };
        Assert.Equal(severity, MeshChecks.Compare(one, other).Single(finding => finding.Check == "version").Severity);
    }

    private sealed class Shifted(TimeSpan by) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => System.GetUtcNow() + by;
    }
}
