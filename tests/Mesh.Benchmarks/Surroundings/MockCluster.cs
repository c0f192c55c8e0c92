using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>What a cluster of a given name says of itself, as its own etcd has it or as a cache of other clusters does.</summary>
internal sealed record MockCluster(string Name, uint Id, bool Cached, IdentityNumbering Numbering)
{
    public Layout Layout => Cached ? Layout.Cache(Name) : Layout.State(Name);

    /// <summary>All but the records.</summary>
    public IEnumerable<WriteOperation> Announcement()
    {
        var config = ClusterConfig.SafeProfile(Id, Numbering.MaxConnectedClusters);
        config = config with { Capabilities = config.Capabilities! with { Cached = Cached } };
        yield return new(Keys.ClusterConfig(Name), ClusterConfigCodec.Encode(config));
        foreach (var resource in RemoteResources.OfEveryCluster)
            yield return new(Layout.Canary(resource), WireTime.Now(TimeProvider.System));
    }

    public static IEnumerable<WriteOperation> Heartbeat() =>
    [
        new(Keys.HasClusterConfig, "true"u8.ToArray()),
        new(Keys.Heartbeat, WireTime.Now(TimeProvider.System)),
    ];

    public uint Identity(int number) => Numbering.MinOf(Id) + 1 + (uint)number;

    public WriteOperation Entry(IpAddr address, uint identity, IpAddr host) => new(
        Layout.Prefix(RemoteResource.IpEntries) + address,
        IpIdentityPairCodec.Encode(new IpIdentityPair
        {
            IP = address.ToString(),
            HostIP = host.ToString(),
            ID = identity,
            Metadata = $"cilium-global:{Name}:{Name}-1:1",
            K8sNamespace = "default",
            K8sPodName = $"rebel-base-{address}",
        }));
}
