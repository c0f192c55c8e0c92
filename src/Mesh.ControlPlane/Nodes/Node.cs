using Mesh.Model;

namespace Mesh.ControlPlane.Nodes;

/// <summary>A node of this or another cluster.</summary>
/// <param name="Addresses">As published, with their types (InternalIP, CiliumInternalIP, …), in order.</param>
/// <param name="PodCidrs">Primary ranges first.</param>
/// <param name="HealthAddresses">Addresses of its health endpoint, when it has one.</param>
/// <param name="IsLocalNode">True for the node this agent runs on.</param>
public sealed record Node(
    NodeName Name,
    uint ClusterId,
    EquatableArray<NodeAddress> Addresses,
    EquatableArray<IpPrefix> PodCidrs,
    EquatableArray<IpAddr> HealthAddresses,
    bool IsLocalNode)
{
    /// <summary>Annotation of a node that says true: it answers clients that other nodes took in.</summary>
    public const string DsrAnnotation = "mesh.cilium.io/dsr";

    /// <summary>The node understands the virtual address in a packet, so that it may be forwarded by DSR.</summary>
    public bool TakesDsr { get; init; }

    /// <summary>Address other nodes send tunnel packets to: the first InternalIP of the family, else ExternalIP, else any that
    /// is not the pod-side CiliumInternalIP. Null when there is none: the node is not routable in that family.</summary>
    public IpAddr? UnderlayAddress(bool v6)
    {
        foreach (var wanted in (ReadOnlySpan<string?>)["InternalIP", "ExternalIP", null])
            foreach (var address in Addresses)
                if (address.Address.IsV6 == v6 && (wanted is null ? address.Type != "CiliumInternalIP" : address.Type == wanted))
                    return address.Address;
        return null;
    }
}

public readonly record struct NodeAddress(string Type, IpAddr Address);
