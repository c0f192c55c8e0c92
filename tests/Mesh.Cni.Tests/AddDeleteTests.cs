using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>A pod's network from ADD to DEL: real plugin, real agent, real kernel.</summary>
public sealed class AddDeleteTests : IAsyncLifetime
{
    private CniNode _node = null!;

    public async ValueTask InitializeAsync() => _node = await CniNode.StartAsync();

    public ValueTask DisposeAsync() => _node.DisposeAsync();

    [Fact]
    public async Task Two_pods_reach_each_other_until_one_is_deleted_and_nothing_is_left_of_both()
    {
        using var first = CniNode.NewContainer();
        using var second = CniNode.NewContainer();
        var one = _node.Add(first, "c1", "one");
        var two = _node.Add(second, "c2", "two");
        Assert.Equal(2, two.Addresses.Count);
        foreach (var address in two.Addresses)
            first.Shell("ping", "-c", "1", "-W", "2", address);
        Assert.Equal((2, 4), await _node.CountAsync());

        Assert.Equal(0, _node.Call("DEL", "c2", CniNode.PathOf(second)).ExitCode);
        Assert.Throws<InvalidOperationException>(() => first.Shell("ping", "-c", "1", "-W", "1", two.Addresses[0]));
        // The other one's way out is as it was.
        first.Shell("ping", "-c", "1", "-W", "2", "10.40.1.1");
        Assert.Equal(0, _node.Call("DEL", "c1", CniNode.PathOf(first)).ExitCode);
        await _node.NothingLeftAsync();
        Assert.DoesNotContain("eth0", first.Shell("ip", "link"), StringComparison.Ordinal);
        Assert.NotEqual(one.Addresses, two.Addresses);
    }
}
