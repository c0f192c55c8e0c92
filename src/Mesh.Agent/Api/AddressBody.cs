using Mesh.AgentApi;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Model;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/ip and /v1/identity.</summary>
internal static class AddressBody
{
    public static IEnumerable<IPListEntry> Of(AgentView view) =>
        view.State.IPCache.Snapshot().Select(pair => pair.Value.Row).OrderBy(row => row.Prefix).Select(Entry);

    public static IEnumerable<Identity> Identities(AgentView view) =>
        NumericIdentity.Reserved.Where(reserved => reserved.Key != NumericIdentity.Unknown).OrderBy(reserved => reserved.Key)
            .Select(reserved => new Identity { Id = reserved.Key, Labels = [$"reserved:{reserved.Value}"] })
            .Concat(view.State.Identities.Snapshot().Select(pair => pair.Value.Row).OrderBy(row => row.Id).Select(Item));

    /// <summary>Null when the number is not known here.</summary>
    public static Identity? Identity(AgentView view, uint id) =>
        view.State.Identities.TryGet(id, out var row) ? Item(row) : Identities(view).FirstOrDefault(identity => identity.Id == id);

    private static Identity Item(IdentityRow row) => new() { Id = row.Id, Labels = [.. row.Labels] };

    private static IPListEntry Entry(IPCacheEntry row) => new()
    {
        Cidr = row.Prefix.ToString(),
        Identity = row.Identity,
        HostIP = row.TunnelEndpoint?.ToString(),
        EncryptKey = row.EncryptKey,
        // As a real agent answers: only what belongs to a pod carries its origin.
        Metadata = row.PodName.Length == 0
            ? null
            : new IPListEntryMetadata { Name = row.PodName, Namespace = row.Namespace, Source = Source(row.Source) },
    };

    private static string Source(IPCacheSource source) => source switch
    {
        IPCacheSource.ClusterMesh => "clustermesh",
        IPCacheSource.Local => "custom-resource",
        _ => "generated",
    };
}
