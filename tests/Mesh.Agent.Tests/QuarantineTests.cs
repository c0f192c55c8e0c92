using System.Text;
using Mesh.AgentApi;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>What the agent says of what it refused and holds: over its socket, in its metrics, and when it is told to let go.</summary>
public sealed class QuarantineTests : IDisposable
{
    private const string Node = """
        {apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: osaka-1},
         spec: {addresses: [{type: InternalIP, ip: 172.30.2.21}], ipam: {podCIDRs: [10.2.0.0/24]}}}
        """;

    private readonly string _directory = RunningAgent.NewDirectory();
    private readonly InMemoryKVStore _store = new();

    public void Dispose() => RunningAgent.Remove(_directory);

    private async Task PutAsync(string key, string value) =>
        await _store.WriteAsync([new WriteOperation(key, Encoding.UTF8.GetBytes(value))], default);

    private Task IpAsync(string address, string host = "192.0.2.11") => PutAsync(Keys.Ip(IpPrefix.Parse(address)),
        Encoding.UTF8.GetString(IpIdentityPairCodec.Encode(new IpIdentityPair { IP = address, HostIP = host, ID = 65537 })));

    private async Task<RunningAgent> StartAsync()
    {
        await PutAsync(Keys.ClusterConfig("tokyo"), """{"id":1,"capabilities":{"syncedCanaries":true}}""");
        await PutAsync(Keys.Heartbeat, "now");
        await IpAsync("10.1.0.11");
        foreach (var resource in RemoteResources.OfEveryCluster)
            await PutAsync(Keys.Canary("tokyo", resource), "now");
        Directory.CreateDirectory(Path.Combine(_directory, "peers"));
        await File.WriteAllTextAsync(Path.Combine(_directory, "peers", "tokyo.imports.json"),
            """{"podCIDRs":["10.1.0.0/16"],"nodeCIDRs":["192.0.2.0/24"]}""");
        var agent = await RunningAgent.StartAsync(_directory, Node, _store);
        await Addresses(agent, address => address.Contains("10.1.0.11/32"));
        return agent;
    }

    private static Task<string> Addresses(RunningAgent agent, Func<string, bool> wanted) => RunningAgent.Eventually(
        async () => string.Join(' ', (await agent.Client.GetIPsAsync()).Select(entry => entry.Cidr)), wanted);

    [Fact]
    public async Task A_lost_import_file_is_told_by_every_status_while_the_peer_stays_ready()
    {
        await using var agent = await StartAsync();
        File.Delete(Path.Combine(_directory, "peers", "tokyo.imports.json"));
        var status = await RunningAgent.Eventually(() => agent.Client.GetStatusAsync(),
            status => status.ClusterMesh!.Clusters is [{ Ready: true, Problems: not null }]);
        Assert.Contains("tokyo is not pinned by any file", Assert.Single(status.ClusterMesh!.Clusters![0].Problems!));
        var fault = Assert.Single(status.Mesh!.Faults!);
        Assert.Equal(("settings", "tokyo"), (fault.Class, fault.Peer));
        Assert.False(status.Mesh.Healthy);
        await File.WriteAllTextAsync(Path.Combine(_directory, "peers", "tokyo.imports.json"), "{}");
        await RunningAgent.Eventually(() => agent.Client.GetStatusAsync(), status => status is { Mesh: { Faults: null } });
    }

    [Fact]
    public async Task A_hostile_entry_is_quarantined_and_shown_and_reaches_no_table()
    {
        await using var agent = await StartAsync();
        await IpAsync("10.9.0.1");
        await IpAsync("10.1.0.12", host: "192.0.3.66");
        await IpAsync("10.2.0.7");
        await IpAsync("10.1.0.13");
        var peer = await RunningAgent.Eventually(async () => (await agent.Client.GetQuarantineAsync()).Single(), peer => peer.Quarantined == 3);
        Assert.Equal("tokyo", peer.Name);
        Assert.Equal(["tunnel-endpoint", "address", "address"], peer.Records!.Select(record => record.Reason));
        Assert.Contains("10.2.0.7/32 is in a pod range of this cluster", peer.Records![1].Message);
        Assert.Equal((2, 1), (peer.Refused!["address"], peer.Refused["tunnel-endpoint"]));
        Assert.Equal((Keys.Ip(IpPrefix.Parse("10.9.0.1")), "ips", 1), (peer.Records[2].Key, peer.Records[2].Resource, peer.Records[2].Count));
        var addresses = await Addresses(agent, text => text.Contains("10.1.0.13/32"));
        Assert.DoesNotContain("10.9.0.1", addresses);
        Assert.DoesNotContain("10.1.0.12", addresses);
        var metrics = Metrics.MetricsPage.Of(agent.Agent.View);
        Assert.Contains("mesh_clustermesh_quarantined_records{source_cluster=\"osaka\",source_node_name=\"osaka-1\",target_cluster=\"tokyo\"} 3", metrics);
        Assert.Contains("target_cluster=\"tokyo\",reason=\"tunnel-endpoint\"} 1", metrics);
    }

    [Fact]
    public async Task A_mass_withdrawal_is_held_and_shown_until_somebody_lets_go()
    {
        await using var agent = await StartAsync();
        await _store.DeletePrefixAsync("cilium/", default);
        var peer = await RunningAgent.Eventually(async () => (await agent.Client.GetQuarantineAsync()).Single(),
            peer => peer.HeldReason?.Contains("let go when") == true);
        Assert.Equal(1, peer.Held);
        Assert.Contains("held since", (await agent.Client.GetStatusAsync()).ClusterMesh!.Clusters![0].Status);
        Assert.Contains("mesh_clustermesh_held_records{source_cluster=\"osaka\",source_node_name=\"osaka-1\",target_cluster=\"tokyo\"} 1",
            Metrics.MetricsPage.Of(agent.Agent.View));
        Assert.Contains("10.1.0.11/32", await Addresses(agent, _ => true));
        var unknown = await Assert.ThrowsAsync<AgentException>(() => agent.Client.ReleaseHeldAsync("kyoto"));
        Assert.Contains("no peer named kyoto is connected here", unknown.Message);
        await agent.Client.ReleaseHeldAsync("tokyo");
        await Addresses(agent, text => !text.Contains("10.1.0.11/32"));
    }
}
