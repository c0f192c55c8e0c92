using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>The plugin is killed at whatever moment, on a node with hardly any address: what it leaves would be felt at once.</summary>
public sealed class KilledPluginTests : IAsyncLifetime
{
    private CniNode _node = null!;

    /// <summary>Six addresses, one of them the router's.</summary>
    public async ValueTask InitializeAsync() => _node = await CniNode.StartAsync("10.40.2.0/29");

    public ValueTask DisposeAsync() => _node.DisposeAsync();

    [Fact]
    public async Task Killed_anywhere_in_ADD_it_leaves_nothing_after_DEL()
    {
        for (var round = 0; round < 10; round++)
        {
            using var space = CniNode.NewContainer();
            using (var plugin = _node.Start("ADD", $"killed-{round}", CniNode.PathOf(space), $"killed-{round}"))
            {
                plugin.WaitForExit(80 + 40 * round);
                plugin.Kill();
                await plugin.WaitForExitAsync();
            }
            _node.Delete($"killed-{round}", space);
        }
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task A_full_range_is_named_and_a_pod_that_ends_makes_room()
    {
        var spaces = Enumerable.Range(0, 6).Select(_ => CniNode.NewContainer()).ToList();
        for (var i = 0; i < 5; i++)
            _node.Add(spaces[i], $"full-{i}", $"full-{i}");
        var refused = _node.Call("ADD", "full-5", CniNode.PathOf(spaces[5]), "full-5");
        Assert.Equal(100, refused.Code);
        Assert.Contains("pod range 10.40.2.0/29 of node node is exhausted: 5 pods, 0 reserved, 1 of the node itself, of 6", refused.Message,
            StringComparison.Ordinal);
        var status = _node.Call("STATUS", "", "");
        Assert.Equal(50, status.Code);
        Assert.Contains("10.40.2.0/29", status.Message, StringComparison.Ordinal);

        var freed = (await _node.Client.GetEndpointsAsync()).Single(pod => pod.Status!.ExternalIdentifiers!.K8sPodName == "full-2")
            .Status!.Networking!.Addressing![0].Ipv4!;
        _node.Delete("full-2", spaces[2]);
        Assert.Equal([freed], _node.Add(spaces[5], "full-5", "full-5").Addresses);
        CniNode.Reaches(spaces[5], "10.40.2.1");
        for (var i = 0; i < 6; i++)
            _node.Delete($"full-{i}", spaces[i]);
        await _node.NothingLeftAsync();
        foreach (var space in spaces)
            space.Dispose();
    }
}
