using Xunit;

namespace Mesh.Cluster.Tests;

/// <summary>What a newcomer is told of a node that cannot run the mesh, before anything is changed. Nodes that can are in the same cluster.</summary>
public sealed class PreflightTests
{
    [Fact]
    public async Task A_node_where_the_BPF_file_system_cannot_be_mounted_is_named_with_the_mend_and_nothing_is_changed()
    {
        await using var world = new KubeWorld.KubeWorld();
        var person = new Person(world);
        var cluster = await world.AddClusterAsync("tokyo", 2, TestContext.Current.CancellationToken,
            withheld: node => node == "tokyo-2" ? "sys_admin" : null);
        var before = Traces.Of(cluster, person);

        var (code, said) = person.Mesh("install", "--context", "tokyo", "--set", "cluster.name=tokyo", "--set", "cluster.id=1",
            "--set", "k8sServiceHost=172.30.1.100", "--set", "k8sServicePort=6443");

        TestContext.Current.TestOutputHelper?.WriteLine(said);
        Assert.NotEqual(0, code);
        Assert.Contains("✅ tokyo-1 (kernel", said, StringComparison.Ordinal);
        Assert.Contains("❌ tokyo-2 (kernel", said, StringComparison.Ordinal);
        Assert.Contains("✗ bpffs: not mounted at /sys/fs/bpf, and it cannot be:", said, StringComparison.Ordinal);
        Assert.Contains("💡 mount it on the node (mount -t bpf bpf /sys/fs/bpf;", said, StringComparison.Ordinal);
        Assert.Contains("Nothing was changed", said, StringComparison.Ordinal);
        var after = Traces.Of(cluster, person);
        Assert.True(after.SequenceEqual(before), $"more than before: {string.Join('\n', after.Except(before))}");
        Assert.Empty(cluster.Problems);
    }
}
