using Mesh.ControlPlane;
using Mesh.ControlPlane.Restored;
using Mesh.Datapath;
using Mesh.Model;
using Mesh.Policy.Engine;

namespace Mesh.Agent.Start;

/// <summary>Reads what an earlier run left in the pinned maps about other clusters.</summary>
internal static class RestoredFromPins
{
    /// <param name="bpfRoot">Empty state when nothing is pinned there yet.</param>
    public static RestoredState Read(string bpfRoot, ClusterIdentity self)
    {
        PinnedMaps maps;
        try
        {
            maps = PinnedMaps.Open(bpfRoot);
        }
        catch (DatapathException)
        {
            // No datapath has been made here: a first start.
            return RestoredState.Empty;
        }
        using (maps)
        {
            var clusterOfNode = maps.Nodes().ToDictionary(node => node.Index, node => node.ClusterId);
            return new RestoredState
            {
                NextPolicySet = maps.Policy.NextSet(),
                PolicyEndpoints = [.. maps.Policy.Endpoints().Select(word => word.Endpoint)],
                PolicyRanges =
                [
                    .. maps.IPCache().Where(entry => entry.TunnelEndpoint is null && RangeIdentities.IsRange(entry.Identity))
                        .Select(entry => KeyValuePair.Create(entry.Prefix, entry.Identity)),
                ],
                Backends =
                [
                    .. (from frontend in maps.Frontends()
                       from segment in frontend.Segments
                       from backend in segment.Backends
                       where segment.ClusterId != self.Id
                       select new RestoredBackend(frontend.Address, backend.Address, segment.ClusterId, backend.State)).Distinct(),
                ],
                Addresses =
                [
                    .. from entry in maps.IPCache()
                       let cluster = clusterOfNode.GetValueOrDefault(entry.Node)
                       // Of the entries without a tunnel only other nodes' own addresses may belong to another cluster.
                       where entry.TunnelEndpoint is null ? entry.Identity == NumericIdentity.RemoteNode : cluster != self.Id
                       select new RestoredAddress(entry.Prefix, entry.Identity, entry.TunnelEndpoint, cluster),
                ],
            };
        }
    }
}
