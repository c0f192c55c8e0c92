using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>The whole agent on a real kernel, with the etcd contents of a real cluster as its peer.</summary>
public sealed class KernelRestartTests
{
    private const string Manifests = """
        {apiVersion: v1, kind: Service, metadata: {name: rebel-base, namespace: default, annotations: {service.cilium.io/global: "true"}},
         spec: {clusterIP: 10.96.121.196, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}
        ---
        {apiVersion: cilium.io/v2, kind: CiliumNode, metadata: {name: osaka-1}, spec: {ipam: {podCIDRs: [10.2.0.0/24]},
         addresses: [{type: InternalIP, ip: 172.30.0.21}, {type: CiliumInternalIP, ip: 10.2.0.139}]}}
        """;

    private const string Programmed = """
        10.96.121.196:53/UDP => 10.1.0.11:5353@1 10.1.0.12:5353@1
        10.96.121.196:80/TCP => 10.1.0.11:8080@1 10.1.0.12:8080@1
        10.1.0.0/24 2 192.0.2.11
        10.1.0.1/32 6 192.0.2.11
        10.1.0.11/32 65537 192.0.2.11
        10.1.0.200/32 4 192.0.2.11
        10.2.0.0/24 2
        10.2.0.139/32 1
        172.30.0.21/32 1
        192.0.2.11/32 6
        fd01::b/128 65537 192.0.2.11
        clusters up: 1 2
        """;

    private const string WithoutTokyo = """
        10.96.121.196:53/UDP => 
        10.96.121.196:80/TCP => 
        10.2.0.0/24 2
        10.2.0.139/32 1
        172.30.0.21/32 1
        clusters up: 2
        """;

    [Fact]
    public async Task A_restart_while_the_peer_is_out_of_reach_withdraws_nothing_until_the_peer_is_removed()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root: network namespaces and BPF");
        await using var node = await KernelNode.CreateAsync(Manifests);
        await node.StartTokyoAsync(await File.ReadAllLinesAsync(Path.Combine(AppContext.BaseDirectory, "golden", "cilium-1.13.2", "etcd-dump.txt")));
        node.StartAgent();
        await node.SettledAsync(status => status.ClusterMesh!.Clusters is [{ Ready: true }]);
        Assert.Equal(Programmed, node.Kernel());

        await node.KillTokyoAsync();
        await node.KillAgentAsync();
        Assert.Equal(Programmed, node.Kernel());

        node.StartAgent();
        var status = await node.SettledAsync(answer => answer.ClusterMesh!.Clusters is [{ NumFailures: > 0 }],
            meanwhile: () => Assert.Equal(Programmed, node.Kernel()));
        Assert.Contains(1, status.Mesh!.Unconfirmed!);
        Assert.Contains("Connection refused", status.ClusterMesh!.Clusters![0].Status);
        Assert.Equal(Programmed, node.Kernel());

        // The control: the same state goes when it must.
        node.RemovePeer();
        await RunningAgent.Eventually(() => Task.FromResult(node.Kernel()), kernel => kernel == WithoutTokyo, TimeSpan.FromSeconds(30));
        Assert.Null((await node.Client.GetStatusAsync()).Mesh!.Unconfirmed);
    }
}
