using Mesh.ClusterMesh.Wire;

namespace Mesh.ClusterMesh.Relay;

/// <summary>What a relay carries. The last two only when the peer advertises them.</summary>
public enum RelayedResource
{
    Nodes,
    Services,
    IpEntries,
    Identities,
    ServiceExports,
    EndpointSlices,
}

/// <summary>Where the resources of a cluster lie at a source and in the cache (kvstore contract §1.2, §1.3). A source that is itself a
/// cache is read there, so that relays can be chained.</summary>
internal static class RelayKeys
{
    public static readonly RelayedResource[] All = Enum.GetValues<RelayedResource>();

    public static string SourcePrefix(string cluster, bool cached, RelayedResource resource) =>
        cached ? CachePrefix(cluster, resource) : resource switch
        {
            RelayedResource.IpEntries => $"cilium/state/ip/v1/{Keys.DefaultAddressSpace}/",
            RelayedResource.Identities => "cilium/state/identities/v1/id/",
            _ => $"cilium/state/{Name(resource)}/v1/{cluster}/",
        };

    public static string CachePrefix(string cluster, RelayedResource resource) =>
        $"cilium/cache/{Name(resource)}/v1/{cluster}/{(resource == RelayedResource.Identities ? "id/" : "")}";

    public static string Canary(string cluster, bool cached, RelayedResource resource) =>
        $"{Keys.SyncedPrefix(cluster)}cilium/{(cached ? "cache" : "state")}/{Name(resource)}/v1";

    /// <summary>Prefixes that go when the cluster goes: for identities one level higher than they are read.</summary>
    public static string ClusterPrefix(string cluster, RelayedResource resource) => $"{ResourcePrefix(resource)}{cluster}/";

    /// <summary>Followed by a cluster's name.</summary>
    public static string ResourcePrefix(RelayedResource resource) => $"cilium/cache/{Name(resource)}/v1/";

    private static string Name(RelayedResource resource) => resource switch
    {
        RelayedResource.Nodes => "nodes",
        RelayedResource.Services => "services",
        RelayedResource.IpEntries => "ip",
        RelayedResource.Identities => "identities",
        RelayedResource.ServiceExports => "serviceexports",
        RelayedResource.EndpointSlices => "endpointslices",
        _ => throw new ArgumentOutOfRangeException(nameof(resource), resource, "not a resource of the mesh"),
    };
}
