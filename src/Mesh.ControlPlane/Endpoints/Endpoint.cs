using Mesh.Model;

namespace Mesh.ControlPlane.Endpoints;

/// <summary>A pod on this node, as the datapath must know it to deliver packets.</summary>
/// <param name="Id">1 to 65535, unique on the node, stable over agent restarts.</param>
/// <param name="InterfaceName">Host side of the pod's veth.</param>
/// <param name="InterfaceIndex">Its index in the node's network namespace.</param>
/// <param name="PodMac">Address of the pod side, 6 bytes in the low 48 bits, first byte highest.</param>
/// <param name="HostMac">Address of the host side, which the pod sees as its gateway.</param>
/// <param name="Identity">0 until the CiliumEndpoint object names it.</param>
public sealed record Endpoint(
    ushort Id,
    string Namespace,
    string PodName,
    string InterfaceName,
    int InterfaceIndex,
    ulong PodMac,
    ulong HostMac,
    EquatableArray<IpAddr> Addresses,
    uint Identity);
