using Mesh.Joining.Checks;
using Mesh.Joining.Tokens;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>Two clusters, two authorities, one token.</summary>
public sealed class JoinTests : IAsyncLifetime
{
    private TestCluster _tokyo = null!;
    private TestCluster _osaka = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        _tokyo = TestCluster.Create("tokyo", 1);
        _osaka = TestCluster.Create("osaka", 2);
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
    }

    [Fact]
    public async Task A_token_joins_two_clusters_in_both_directions()
    {
        var listener = _tokyo.Listen();
        var token = JoinToken.Parse(_tokyo.Token().ToString());
        var outcome = await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
        Assert.Equal(JoinState.Connected, outcome.State);
        Assert.All(outcome.Plan!.Findings, finding => Assert.True(finding.Severity == Severity.Ok, $"{finding}"));
        foreach (var (one, other) in new[] { (_tokyo, _osaka), (_osaka, _tokyo) })
        {
            var peer = other.Description.Name;
            Assert.Contains($"- name: remote-{peer}\n  role: remote\n", one.Read("etcd-config/users.yaml"));
            Assert.StartsWith($"endpoints:\n- {other.Description.DoorAddresses[0]}\ntrusted-ca-file: {one.Root}/relay/{peer}.etcd-client-ca.crt\n",
                one.Read($"relay/{peer}"));
            Assert.StartsWith($"endpoints:\n- {one.Description.DoorAddresses[0]}\ntrusted-ca-file: {one.Root}/agent/local-etcd-client-ca.crt\n",
                one.Read($"agent/{peer}"));
            Assert.Contains($"\"clusterID\": {other.Description.Id}", one.Read($"agent/{peer}.imports.json"));
        }
        Assert.Equal(1, listener.Counters.Joined);
        await Eventually(() => !listener.IsOpen, "the listener closes when its only token is used");
    }

    [Fact]
    public async Task Three_clusters_that_join_each_other_at_once_are_a_full_mesh()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        TestCluster[] all = [_tokyo, _osaka, kyoto];
        foreach (var cluster in all)
            cluster.Listen();
        var began = TimeProvider.System.GetTimestamp();
        await Task.WhenAll(new[] { (_osaka, _tokyo), (kyoto, _tokyo), (kyoto, _osaka) }
            .Select(pair => Task.Run(() => pair.Item1.Join(pair.Item2.Token()).ConnectAsync(ConnectRequest.Plain, Cancel))));
        TestContext.Current.SendDiagnosticMessage($"full mesh of three in {TimeProvider.System.GetElapsedTime(began).TotalMilliseconds:0} ms");
        foreach (var one in all)
            foreach (var other in all.Where(other => other != one))
            {
                Assert.True(one.Has($"agent/{other.Description.Name}") && one.Has($"relay/{other.Description.Name}"));
                Assert.Contains($"remote-{other.Description.Name}\n", one.Read("etcd-config/users.yaml"));
            }
    }

    [Fact]
    public async Task Agents_without_a_relay_read_the_peer_themselves_and_a_later_token_changes_the_way()
    {
        _tokyo.Listen();
        await _osaka.Join(_tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1), null, [], [], Direct: true)))
            .ConnectAsync(new ConnectRequest([], Direct: true), Cancel);
        foreach (var (one, peer) in new[] { (_tokyo, "osaka"), (_osaka, "tokyo") })
        {
            Assert.Contains($"cert-file: {one.Root}/agent/{peer}.etcd-client.crt\n", one.Read($"agent/{peer}"));
            Assert.Empty(Directory.EnumerateFiles($"{one.Root}/relay"));
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode($"{one.Root}/agent/{peer}.etcd-client.key"));
        }
        await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        Assert.Contains("local-etcd-client.crt", _osaka.Read("agent/tokyo"));
        Assert.False(_osaka.Has("agent/tokyo.etcd-client.key"));
        Assert.True(_osaka.Has("relay/tokyo.etcd-client.key"));
    }

    [Fact]
    public async Task What_an_operator_wrote_stays_limits_comments_and_users()
    {
        const string users = "# ours\nusers:\n  - name: remote-nagoya # the old one\n    role: remote\n";
        _tokyo.Listen();
        File.WriteAllText($"{_osaka.Root}/agent/tokyo.imports.json", """{"namespaces":["shop"],"quotas":{"keys":7},"clusterID":9}""");
        File.WriteAllText($"{_osaka.Root}/etcd-config/users.yaml", $"{users}# end\n");
        await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        var pins = _osaka.Read("agent/tokyo.imports.json");
        Assert.Contains("\"shop\"", pins);
        Assert.Contains("\"keys\": 7", pins);
        Assert.Contains("\"clusterID\": 1", pins);
        Assert.Equal($"{users}  - name: remote-tokyo\n    role: remote\n# end\n", _osaka.Read("etcd-config/users.yaml"));
        Disconnection.Run(_osaka.Description, "tokyo", JoinEnvironment.Default);
        Assert.Equal($"{users}# end\n", _osaka.Read("etcd-config/users.yaml"));
    }

    [Fact]
    public async Task Another_join_between_an_interruption_and_its_rerun_keeps_its_user()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        _tokyo.Listen();
        kyoto.Listen();
        var token = _tokyo.Token();
        await Assert.ThrowsAsync<InvalidOperationException>(() => _osaka.Join(token, step =>
        {
            if (step.StartsWith("write ", StringComparison.Ordinal))
                throw new InvalidOperationException(step);
        }).ConnectAsync(ConnectRequest.Plain, Cancel));
        await _osaka.Join(kyoto.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
        Assert.Contains("remote-kyoto", _osaka.Read("etcd-config/users.yaml"));
        Assert.Contains("remote-tokyo", _osaka.Read("etcd-config/users.yaml"));
    }

    [Fact]
    public async Task A_door_without_users_lets_peers_in_by_the_name_that_all_share()
    {
        _tokyo.Change(own => own with { UsersFile = null });
        _tokyo.Listen();
        await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        Assert.Equal("remote", Pki.CertificateFacts.OfPem(_osaka.Read("relay/tokyo.etcd-client.crt")).CommonName);
        Assert.Equal("remote-tokyo", Pki.CertificateFacts.OfPem(_tokyo.Read("relay/osaka.etcd-client.crt")).CommonName);
    }

    [Fact]
    public async Task Two_that_take_each_others_token_at_once_end_connected()
    {
        _tokyo.Listen();
        _osaka.Listen();
        var (forOsaka, forTokyo) = (_tokyo.Token(), _osaka.Token());
        await Task.WhenAll(
            Task.Run(() => _osaka.Join(forOsaka).ConnectAsync(ConnectRequest.Plain, Cancel)),
            Task.Run(() => _tokyo.Join(forTokyo).ConnectAsync(ConnectRequest.Plain, Cancel)));
        foreach (var (one, peer) in new[] { (_tokyo, "osaka"), (_osaka, "tokyo") })
        {
            Assert.True(Pki.CertificateRequests.IsFor(one.Read($"relay/{peer}.etcd-client.crt"), one.Read($"relay/{peer}.etcd-client.key")));
            Assert.Single(one.Read("etcd-config/users.yaml").Split('\n'), line => line.Contains($"remote-{peer}"));
        }
    }

    internal static async Task Eventually(Func<bool> condition, string what)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!condition())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(began) < TimeSpan.FromSeconds(30), $"not in 30 s: {what}");
            await Task.Delay(10, Cancel);
        }
    }
}
