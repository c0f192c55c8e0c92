using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>CiliumEndpoint → one ip entry per address of the pod: whose it is, and behind which node. Named ports are left out, as
/// every Cilium API server does.</summary>
internal static class IpEntryConverter
{
    public static Publishable Convert(CiliumEndpoint endpoint, ClusterSelf self)
    {
        if (endpoint.Status?.Networking is not { } networking)
            return Publishable.Nothing;
        var identity = endpoint.Status.Identity?.Id ?? NumericIdentity.Unknown;
        if (identity >= NumericIdentity.FirstAllocatable && !self.Numbering.InRange(self.Id, identity))
        {
            return Publishable.Refused(
                $"status.identity.id {identity} is outside the range of cluster {self.Name} ({self.Numbering.MinOf(self.Id)} to "
                + $"{self.Numbering.MaxOf(self.Id)}): its addresses stay at home");
        }
        var records = new List<EtcdRecord>();
        foreach (var text in (networking.Addressing ?? []).SelectMany(pair => new[] { pair.Ipv4, pair.Ipv6 }))
        {
            if (!IpAddr.TryParse(text, out var address))
                continue;
            var pair = new IpIdentityPair
            {
                IP = address.ToString(),
                HostIP = networking.Node ?? "",
                ID = identity,
                Key = (byte)(endpoint.Status.Encryption?.Key ?? 0),
                K8sNamespace = endpoint.Metadata.Namespace,
                K8sPodName = endpoint.Metadata.Name,
                K8sServiceAccount = string.IsNullOrEmpty(endpoint.Status.ServiceAccount) ? null : endpoint.Status.ServiceAccount,
            };
            records.Add(new EtcdRecord(Keys.Ip(IpPrefix.Host(address)), IpIdentityPairCodec.Encode(pair)));
        }
        return new Publishable(records, null);
    }
}
