using Mesh.Joining.Tokens;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>A join that is killed before any of its steps, on either side: run again it converges, rolled back every file is as it was.</summary>
public sealed class InterruptionTests : IAsyncLifetime
{
    private TestCluster _tokyo = null!;
    private TestCluster _osaka = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        _tokyo = TestCluster.Create("tokyo", 1);
        _osaka = TestCluster.Create("osaka", 2, own => own with { AgentConfigs = ["agent", "extra/made/by/the/join"] });
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
    }

    private string Checksums => _tokyo.Checksum() + _osaka.Checksum();

    private void Disconnect()
    {
        Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_());
        Disconnection.Run(_tokyo.Description, "osaka", _tokyo.Environment_());
    }

    /// <summary>The steps of an undisturbed join; afterwards the clusters are apart again, with what a first join leaves behind.</summary>
    private async Task<(int Taker, int Issuer)> StepsAsync()
    {
        // The first join of a cluster also writes what all its peers share.
        await using (_tokyo.Listen())
            await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        Disconnect();
        var (taker, issuer) = (0, 0);
        await using (_tokyo.Listen(step: _ => issuer++))
            await _osaka.Join(_tokyo.Token(), _ => taker++).ConnectAsync(ConnectRequest.Plain, Cancel);
        Disconnect();
        return (taker, issuer);
    }

    private static Action<string> DieAt(int step)
    {
        var count = 0;
        return name =>
        {
            if (count++ >= step)
                throw new KilledException($"before step {step}: {name}");
        };
    }

    private void AssertJoined(string when)
    {
        foreach (var (one, other) in new[] { (_tokyo, _osaka), (_osaka, _tokyo) })
        {
            var peer = other.Description.Name;
            Assert.True(one.Has($"agent/{peer}") && one.Has($"relay/{peer}") && one.Has($"relay/{peer}.etcd-client.key"), $"{when}: {one.Root}");
            Assert.Contains($"remote-{peer}", one.Read("etcd-config/users.yaml"));
            Assert.True(Pki.CertificateRequests.IsFor(one.Read($"relay/{peer}.etcd-client.crt"), one.Read($"relay/{peer}.etcd-client.key")), when);
            var authority = OwnPki.AuthoritiesPem(other.Description.Pki);
            Assert.Equal(authority, one.Read($"relay/{peer}.etcd-client-ca.crt"));
            Assert.Empty(Directory.EnumerateFiles(one.Root, "..*.mesh-new", SearchOption.AllDirectories));
        }
    }

    [Fact]
    public async Task Killed_before_any_step_of_the_taker_a_rerun_converges()
    {
        var (steps, _) = await StepsAsync();
        Assert.InRange(steps, 15, 60);
        await using var listener = _tokyo.Listen();
        for (var step = 0; step < steps; step++)
        {
            var token = _tokyo.Token();
            await Assert.ThrowsAsync<KilledException>(() => _osaka.Join(token, DieAt(step)).ConnectAsync(ConnectRequest.Plain, Cancel));
            await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
            AssertJoined($"step {step}");
            Assert.Equal(JoinState.AlreadyConnected, (await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel)).State);
            Assert.Equal(TokenState.Used, new TokenLedger(_tokyo.Description.JoinDirectory, TimeProvider.System).Tokens[^1].State);
            Disconnect();
        }
    }

    [Fact]
    public async Task Killed_before_any_step_of_the_taker_a_rollback_restores_both_sides()
    {
        var (steps, _) = await StepsAsync();
        await using var listener = _tokyo.Listen();
        var before = Checksums;
        for (var step = 1; step < steps; step++)
        {
            var token = _tokyo.Token();
            await Assert.ThrowsAsync<KilledException>(() => _osaka.Join(token, DieAt(step)).ConnectAsync(ConnectRequest.Plain, Cancel));
            var outcome = await TokenJoin.RollbackAsync(_osaka.Description, null, _osaka.Environment_(), Cancel);
            // Once the token is done with, nobody answers for it: then the other side's operator is told what to do.
            if (outcome.Notes.Count > 0)
            {
                Assert.Contains("disconnect osaka", Assert.Single(outcome.Notes));
                Disconnection.Run(_tokyo.Description, "osaka", _tokyo.Environment_());
            }
            Assert.Equal(before, Checksums);
        }
    }

    [Fact]
    public async Task Killed_while_rolling_back_a_second_rollback_restores()
    {
        await StepsAsync();
        await using var listener = _tokyo.Listen();
        var before = Checksums;
        for (var step = 0; ; step++)
        {
            var token = _tokyo.Token();
            await Assert.ThrowsAsync<KilledException>(() => _osaka.Join(token, name =>
            {
                if (name == "journal applied")
                    throw new KilledException(name);
            }).ConnectAsync(ConnectRequest.Plain, Cancel));
            try
            {
                await TokenJoin.RollbackAsync(_osaka.Description, "tokyo", _osaka.Environment_(DieAt(step)), Cancel);
                Assert.Equal(before, Checksums);
                Assert.InRange(step, 5, 60);
                return;
            }
            catch (KilledException)
            {
                await TokenJoin.RollbackAsync(_osaka.Description, "tokyo", _osaka.Environment_(), Cancel);
                Assert.False(_osaka.Has("agent/tokyo"));
                Disconnection.Run(_tokyo.Description, "osaka", _tokyo.Environment_());
                Assert.Equal(before, Checksums);
            }
        }
    }

    [Fact]
    public async Task Killed_before_any_step_of_the_issuer_it_completes_after_its_restart()
    {
        var (_, steps) = await StepsAsync();
        Assert.InRange(steps, 8, 40);
        for (var step = 0; step < steps; step++)
        {
            var token = _tokyo.Token();
            await using (_tokyo.Listen(step: DieAt(step)))
            {
                try
                {
                    await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
                }
                catch (JoinException e)
                {
                    Assert.Equal("join-interrupted", e.Code);
                }
            }
            await using (_tokyo.Listen())
                await _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
            AssertJoined($"step {step}");
            Disconnect();
        }
    }

    [Fact]
    public async Task A_disconnection_killed_before_any_step_is_completed_by_a_rerun()
    {
        await StepsAsync();
        await using var listener = _tokyo.Listen();
        var apart = Checksums;
        for (var step = 0; ; step++)
        {
            await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
            var done = false;
            try
            {
                done = Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_(DieAt(step)));
            }
            catch (KilledException)
            {
                Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_());
            }
            Disconnection.Run(_tokyo.Description, "osaka", _tokyo.Environment_());
            Assert.Equal(apart, Checksums);
            if (!done)
                continue;
            Assert.InRange(step, 5, 40);
            Assert.False(Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_()));
            return;
        }
    }

    [Fact]
    public async Task A_finished_join_can_be_taken_back_byte_by_byte_and_leaves_other_peers_alone()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        await using var listener = _tokyo.Listen();
        kyoto.Listen();
        var before = _osaka.Checksum();
        await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await TokenJoin.RollbackAsync(_osaka.Description, "tokyo", _osaka.Environment_(), Cancel);
        Assert.Equal(before, _osaka.Checksum());
        Disconnection.Run(_tokyo.Description, "osaka", _tokyo.Environment_());

        await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await _osaka.Join(kyoto.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        await TokenJoin.RollbackAsync(_osaka.Description, "tokyo", _osaka.Environment_(), Cancel);
        Assert.DoesNotContain("remote-tokyo", _osaka.Read("etcd-config/users.yaml"));
        Assert.Contains("remote-kyoto", _osaka.Read("etcd-config/users.yaml"));
        Assert.False(_osaka.Has("agent/tokyo"));
        Assert.True(_osaka.Has("agent/kyoto") && _osaka.Has("agent/local-etcd-client.crt"));
    }

    [Fact]
    public async Task A_disconnection_needs_nothing_of_the_peer()
    {
        await using (_tokyo.Listen())
            await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel);
        _tokyo.CloseDoor();
        Assert.True(Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_()));
        Assert.Empty(Directory.EnumerateFiles($"{_osaka.Root}/agent", "tokyo*"));
        Assert.Empty(Directory.EnumerateFiles($"{_osaka.Root}/relay"));
        Assert.Equal("# who may read here\nusers: []\n", _osaka.Read("etcd-config/users.yaml"));
        Assert.False(Disconnection.Run(_osaka.Description, "tokyo", _osaka.Environment_()));
    }

    private sealed class KilledException(string step) : Exception(step);
}
