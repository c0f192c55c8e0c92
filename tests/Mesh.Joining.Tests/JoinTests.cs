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

    internal static async Task Eventually(Func<bool> condition, string what)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!condition())
        {
            Assert.True(TimeProvider.System.GetElapsedTime(began) < TimeSpan.FromSeconds(10), $"not in 10 s: {what}");
            await Task.Delay(10, Cancel);
        }
    }
}
