using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>The agent is killed and comes back; the container runtime goes on as runtimes do.</summary>
public sealed class AgentAwayTests : IAsyncLifetime
{
    private CniNode _node = null!;

    public async ValueTask InitializeAsync() => _node = await CniNode.StartAsync();

    public ValueTask DisposeAsync() => _node.DisposeAsync();

    [Fact]
    public async Task ADD_says_try_again_and_DEL_cleans_up_all_the_same()
    {
        using var gone = CniNode.NewContainer();
        using var stays = CniNode.NewContainer();
        using var late = CniNode.NewContainer();
        var pod = _node.Add(gone, "gone", "gone");
        _node.Add(stays, "stays", "stays");
        _node.Delete("nobody");
        // The control: with the agent there no note is left.
        Assert.False(Directory.Exists(_node.NotesDirectory));
        await _node.KillAgentAsync();

        var refused = _node.Call("ADD", "late", CniNode.PathOf(late), "late");
        Assert.Equal(11, refused.Code);
        Assert.Contains("the agent does not answer", refused.Message, StringComparison.Ordinal);
        Assert.DoesNotContain("eth0", late.Shell("ip", "link"), StringComparison.Ordinal);
        Assert.Equal(50, _node.Call("STATUS", "", "").Code);
        // The runtime deletes what it could not add, and a pod that has ended.
        _node.Delete("late", late);
        _node.Delete("gone", gone);
        Assert.Single(_node.Devices());
        CniNode.Reaches(stays, "10.40.1.1");

        await _node.StartAgentAsync();
        await _node.UntilAsync(async () => await _node.CountAsync() == (1, 2), () => Task.FromResult("the pod that is gone forgotten"));
        await _node.UntilAsync(() => Directory.GetFiles(_node.NotesDirectory).Length == 0, "the notes worked off");
        CniNode.Reaches(stays, "10.40.1.1");
        // Whose address is free again, and given last.
        var next = _node.Add(late, "late", "late");
        Assert.DoesNotContain(pod.Addresses[0], next.Addresses);
        CniNode.Reaches(late, "10.40.1.1");
        _node.Delete("late", late);
        _node.Delete("stays", stays);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task An_agent_killed_while_pods_are_added_and_deleted_loses_no_address()
    {
        var random = new Random(7);
        for (var round = 0; round < 4; round++)
        {
            using var one = CniNode.NewContainer();
            using var two = CniNode.NewContainer();
            _node.Add(one, "one", "one");
            using var add = _node.Start("ADD", "two", CniNode.PathOf(two), "two");
            using var delete = _node.Start("DEL", "one", CniNode.PathOf(one));
            // Somewhere within the few calls that both make.
            add.WaitForExit(random.Next(150, 450));
            await _node.KillAgentAsync();
            foreach (var plugin in new[] { add, delete })
            {
                await plugin.StandardOutput.ReadToEndAsync();
                await plugin.WaitForExitAsync();
            }
            await _node.StartAgentAsync();
            Assert.True(add.ExitCode is 0 or 1, "ADD ended by itself");
            if (add.ExitCode == 0)
                CniNode.Reaches(two, "10.40.1.1");
            else
                Assert.DoesNotContain("eth0", two.Shell("ip", "link"), StringComparison.Ordinal);
            _node.Delete("two", two);
            await _node.NothingLeftAsync();
        }
    }
}
