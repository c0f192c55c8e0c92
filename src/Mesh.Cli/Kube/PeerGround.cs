using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Kubernetes.Api;
using Mesh.Model;

namespace Mesh.Cli.Kube;

/// <summary>What two clusters must not have in common, or must: addresses of pods and nodes, and the tunnel's port. Found out before they are peers,
/// because afterwards packets only go to the wrong place.</summary>
/// <param name="Pods">Every node's pod ranges.</param>
/// <param name="Hosts">Every node's address inside its network.</param>
/// <param name="TunnelPort">UDP.</param>
/// <param name="Of">The cluster whose peer this one is, and whose agents told it; null when it was asked itself.</param>
internal sealed record PeerGround(string Cluster, IReadOnlyList<(string Node, IpPrefix Range)> Pods, IReadOnlyList<(string Node, IpAddr Address)> Hosts,
    string TunnelPort, string? Of = null)
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

    /// <summary>Peers of this cluster as one of its agents has them, by name; without those that no agent asked has reached.</summary>
    public async Task<IReadOnlyList<PeerGround>> PeersAsync(KubeCluster cluster, CancellationToken cancel)
    {
        foreach (var pod in (await KubeClusterMesh.PodsAsync(cluster, "k8s-app=cilium", cancel)).Take(KnownPeers.AgentsAsked))
        {
            if (await KubeClusterMesh.NodesAsync(cluster, pod, cancel) is not { } nodes)
                continue;
            return [.. nodes.Select(node => (Name: (node.Name ?? "").Split('/', 2), Node: node))
                .Where(one => one.Name.Length == 2 && one.Name[0] != Cluster).GroupBy(one => one.Name[0], StringComparer.Ordinal)
                .OrderBy(peer => peer.Key, StringComparer.Ordinal)
                .Select(peer => new PeerGround(peer.Key,
                    [.. peer.SelectMany(one => Families(one.Node).Select(family => (one.Name[1], family.AllocRange))).SelectMany(one =>
                        IpPrefix.TryParse(one.AllocRange ?? "", out var range) ? new[] { (one.Item1, range) } : [])],
                    [.. peer.SelectMany(one => Families(one.Node).Select(family => (one.Name[1], family.Ip))).SelectMany(one =>
                        IpAddr.TryParse(one.Ip ?? "", out var address) ? new[] { (one.Item1, address) } : [])],
                    TunnelPort, Cluster))];
        }
        return [];
    }

    private static IEnumerable<NodeAddressingElement> Families(NodeElement node) =>
        node.PrimaryAddress is { } addresses ? [addresses.Ipv4, addresses.Ipv6] : [];

    /// <summary>Why the two, with the peers that they have, cannot be one mesh, one line each. Whoever is connected to two clusters, as each of the two
    /// will be to the other and to its own peers, can send to an address of both only to one of them.</summary>
    public static IEnumerable<string> Faults(PeerGround one, IReadOnlyList<PeerGround> onesPeers, PeerGround other, IReadOnlyList<PeerGround> othersPeers)
    {
        if (one.TunnelPort != other.TunnelPort)
        {
            yield return $"{one.Cluster} tunnels by UDP {one.TunnelPort} and {other.Cluster} by UDP {other.TunnelPort}: "
                + "upgrade one with --set tunnelPort";
        }
        var pairs = othersPeers.Where(peer => peer.Cluster != one.Cluster).Select(peer => (one, peer))
            .Concat(onesPeers.Where(peer => peer.Cluster != other.Cluster).Select(peer => (peer, other)));
        foreach (var (a, b) in pairs.Prepend((one, other)))
        {
            foreach (var fault in a.AddressesOf(b))
                yield return fault;
        }
    }

    private string Named(string node) => Of is null ? $"{Cluster}/{node}" : $"{Of}'s peer {Cluster}/{node}";

    private IEnumerable<string> AddressesOf(PeerGround other)
    {
        foreach (var (node, range) in Pods)
        {
            foreach (var (theirs, clash) in other.Pods.Where(one => range.Overlaps(one.Range)).Take(1))
                yield return $"pods of {Named(node)} ({range}) and of {other.Named(theirs)} ({clash}) share addresses: {Mend}";
        }
        foreach (var fault in PodsOverHosts(this, other).Concat(PodsOverHosts(other, this)))
            yield return fault;
        foreach (var (node, address) in Hosts)
        {
            foreach (var (theirs, _) in other.Hosts.Where(one => one.Address == address).Take(1))
                yield return $"nodes {Named(node)} and {other.Named(theirs)} both have the address {address}: they are not in one network";
        }
    }

    private static IEnumerable<string> PodsOverHosts(PeerGround pods, PeerGround hosts) =>
        from host in hosts.Hosts
        from pod in pods.Pods
        where pod.Range.Contains(host.Address)
        select $"pods of {pods.Named(pod.Node)} ({pod.Range}) and node {hosts.Named(host.Node)} ({host.Address}) share addresses: {Mend}";
}
