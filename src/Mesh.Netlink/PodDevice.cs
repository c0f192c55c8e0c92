using Mesh.Model;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Netlink;

/// <summary>
/// A pod's device: a veth pair, one end in the pod's network namespace with its addresses and routes, the other in the node's, where the
/// datapath takes over. What the datapath expects of it is written here and nowhere else:
///
///   pod: NAME, single addresses (/32, /128), gateway on the link, default route over it   ═ veth ═   node: HOSTNAME, no address, no IPv6
/// </summary>
public sealed record PodDevice
{
    /// <summary>In the pod, such as eth0; at most 15 bytes.</summary>
    public required string Name { get; init; }

    /// <summary>In the node; at most 15 bytes.</summary>
    public required string HostName { get; init; }

    /// <summary>Written beside the host end's name, for people and for whoever tidies up; at most 255 bytes.</summary>
    public required string Alias { get; init; }

    public required LinkAddress Address { get; init; }

    public required LinkAddress HostAddress { get; init; }

    /// <summary>Largest packet in bytes.</summary>
    public required uint Mtu { get; init; }

    /// <summary>The pod's addresses, each with the node's router of the same family; at least one.</summary>
    public required IReadOnlyList<(IpAddr Address, IpAddr Gateway)> Addresses { get; init; }

    /// <summary>Makes it. The calling thread must be in the node's namespace.</summary>
    /// <param name="space">The pod's network namespace.</param>
    /// <param name="spaceName">For messages.</param>
    /// <exception cref="NetlinkException">It could not be made; nothing of it is left.</exception>
    public void Create(SafeFileHandle space, string spaceName)
    {
        using var node = new LinkRequests();
        using var pod = NamespaceThread.Run(space, spaceName, () => new LinkRequests());
        if (pod.Find(Name) is not null)
            throw new NetlinkException($"device {Name} exists already in {spaceName}: delete the pod's network (DEL), then add it again");
        if (!node.AddVeth(HostName, HostAddress, Name, Address, space, Mtu))
            throw new NetlinkException($"device {HostName} exists already on the node: delete the pod's network (DEL), then add it again");
        try
        {
            NamespaceThread.Run(space, spaceName, () =>
            {
                ConfigurePod(pod);
                return true;
            });
            Sysctl($"ipv6/conf/{HostName}/disable_ipv6", "1", isNeeded: false);
            node.SetUp(Existing(node, HostName).Index, Alias);
        }
        catch (Exception)
        {
            node.Delete(HostName);
            throw;
        }
    }

    /// <summary>Removes a pod's device by the name of its host end; the other end goes with it.</summary>
    /// <returns>False when there was none.</returns>
    public static bool Delete(string hostName)
    {
        using var node = new LinkRequests();
        return node.Delete(hostName);
    }

    /// <summary>On a thread inside the pod's namespace, whose settings /proc/sys/net shows.</summary>
    private void ConfigurePod(LinkRequests pod)
    {
        var index = Existing(pod, Name).Index;
        if (Addresses.Any(pair => pair.Address.IsV6))
        {
            // Runtimes make namespaces with IPv6 off. An address of ours is nobody else's, and no router speaks on this link.
            Sysctl($"ipv6/conf/{Name}/disable_ipv6", "0", isNeeded: true);
            Sysctl($"ipv6/conf/{Name}/accept_dad", "0", isNeeded: false);
            Sysctl($"ipv6/conf/{Name}/accept_ra", "0", isNeeded: false);
        }
        pod.SetUp(index);
        foreach (var (address, gateway) in Addresses)
        {
            pod.AddAddress(index, address);
            pod.AddRoute(IpPrefix.Host(gateway), null, null, index);
            pod.AddRoute(new IpPrefix(gateway.IsV6 ? IpAddr.V6(0) : IpAddr.V4(0), 0), gateway, address, index);
        }
    }

    private static LinkState Existing(LinkRequests requests, string name) =>
        requests.Find(name) ?? throw new NetlinkException($"device {name} vanished as soon as it was made");

    private static void Sysctl(string key, string value, bool isNeeded)
    {
        var path = $"/proc/sys/net/{key}";
        try
        {
            if (File.ReadAllText(path).Trim() != value)
                File.WriteAllText(path, value);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            if (isNeeded)
                throw new NetlinkException($"cannot set {path} to {value}: {e.Message}");
        }
    }
}
