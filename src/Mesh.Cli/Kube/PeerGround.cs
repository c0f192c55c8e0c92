using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Model;

namespace Mesh.Cli.Kube;

/// <summary>What two clusters must not have in common, or must: addresses of pods and nodes, and the tunnel's port. Found out before they are peers,
/// because afterwards packets only go to the wrong place.</summary>
/// <param name="Pods">Every node's pod ranges.</param>
/// <param name="Hosts">Every node's address inside its network.</param>
/// <param name="TunnelPort">UDP.</param>
internal sealed record PeerGround(
    string Cluster, IReadOnlyList<(string Node, IpPrefix Range)> Pods, IReadOnlyList<(string Node, IpAddr Address)> Hosts, string TunnelPort)
{
    private const string DefaultTunnelPort = "8472";
    private const string Mend = "install one of them anew with another ipam.operator.clusterPoolIPv4PodCIDRList, or another range of Kubernetes";

    public static async Task<PeerGround> ReadAsync(KubeCluster cluster, string name, CancellationToken cancel)
    {
        var (pods, hosts) = (new List<(string, IpPrefix)>(), new List<(string, IpAddr)>());
        foreach (var node in await cluster.Client.ListAsync(KubeResources.CiliumNodes.Raw, null, cancel))
        {
            foreach (var range in node.At("spec", "ipam", "podCIDRs") as JsonArray ?? [])
            {
                if (IpPrefix.TryParse($"{range}", out var prefix))
                    pods.Add((node.Name(), prefix));
            }
        }
        foreach (var node in await cluster.Client.ListAsync(KubeResources.Nodes.Raw, null, cancel))
        {
            foreach (var one in node.Items("status", "addresses").Where(one => one.Text("type") == "InternalIP"))
            {
                if (IpAddr.TryParse(one.Text("address") ?? "", out var address))
                    hosts.Add((node.Name(), address));
            }
        }
        return new PeerGround(name, pods, hosts, (await AccessPoint.ConfigAsync(cluster, cancel)).Text("data", "tunnel-port") ?? DefaultTunnelPort);
    }

    /// <summary>Why the two cannot be peers, one line each.</summary>
    public IEnumerable<string> FaultsWith(PeerGround other)
    {
        if (TunnelPort != other.TunnelPort)
            yield return $"{Cluster} tunnels by UDP {TunnelPort} and {other.Cluster} by UDP {other.TunnelPort}: upgrade one with --set tunnelPort";
        foreach (var (node, range) in Pods)
        {
            foreach (var (theirs, clash) in other.Pods.Where(one => range.Overlaps(one.Range)).Take(1))
                yield return $"pods of {Cluster}/{node} ({range}) and of {other.Cluster}/{theirs} ({clash}) share addresses: {Mend}";
        }
        foreach (var fault in PodsOverHosts(this, other).Concat(PodsOverHosts(other, this)))
            yield return fault;
        foreach (var (node, address) in Hosts)
        {
            foreach (var (theirs, _) in other.Hosts.Where(one => one.Address == address).Take(1))
                yield return $"nodes {Cluster}/{node} and {other.Cluster}/{theirs} both have the address {address}: they are not in one network";
        }
    }

    private static IEnumerable<string> PodsOverHosts(PeerGround pods, PeerGround hosts) =>
        from host in hosts.Hosts
        from pod in pods.Pods
        where pod.Range.Contains(host.Address)
        select $"pods of {pods.Cluster}/{pod.Node} ({pod.Range}) and node {hosts.Cluster}/{host.Node} ({host.Address}) share addresses: {Mend}";
}
