using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Tests.Wire;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>A cluster that publishes itself, record by record.</summary>
internal sealed class Producer(IKVStore store, string cluster, uint id)
{
    public uint Id { get; set; } = id;

    public string Cluster => cluster;

    public uint Identity(uint local) => IdentityNumbering.Max255.MinOf(Id) + local;

    public Task ConfigAsync(ClusterConfig? config = null) =>
        PutAsync(Keys.ClusterConfig(cluster), ClusterConfigCodec.Encode(config ?? ClusterConfig.SafeProfile(Id, 255)));

    public Task HeartbeatAsync() => PutAsync(Keys.Heartbeat, WireTime.Now(TimeProvider.System));

    public Task CanaryAsync(RemoteResource resource) => PutAsync(Keys.Canary(cluster, resource), WireTime.Now(TimeProvider.System));

    public async Task CanariesAsync()
    {
        foreach (var resource in RemoteResources.OfEveryCluster)
            await CanaryAsync(resource);
    }

    public Task NodeAsync(string name) => PutAsync(Keys.Node(cluster, name), NodeRecordCodec.Encode(
        new NodeRecord { Name = name, Cluster = cluster, ClusterID = Id }));

    public Task ServiceAsync(string name, bool shared = true, params string[] backends) => PutAsync(
        Keys.Service(cluster, new ServiceName("shop", name)), ClusterServiceCodec.Encode(new ClusterService
        {
            Cluster = cluster,
            Namespace = "shop",
            Name = name,
            Shared = shared,
            ClusterId = Id,
            Backends = backends.ToDictionary(
                address => address,
                _ => (IReadOnlyDictionary<string, WirePort>)new Dictionary<string, WirePort>
                {
                    ["http"] = new()
                    {
                        Protocol = "TCP",
                        Port = 80
                    }
                }),
        }));

    public Task ExportAsync(string name) => PutAsync(Keys.ServiceExport(cluster, new ServiceName("shop", name)), ExportedServiceCodec.Encode(new ExportedService
    {
        Cluster = cluster,
        Namespace = "shop",
        Name = name,
        Created = DateTimeOffset.UnixEpoch,
        Ports = [new("http", "TCP", 80)],
    }));

    public Task IpAsync(string address, uint local = 1) => PutAsync(Keys.Ip(IpPrefix.Parse(address)), IpValue(address, local));

    public byte[] IpValue(string address, uint local = 1) =>
        IpIdentityPairCodec.Encode(new IpIdentityPair { IP = address, HostIP = "192.0.2.1", ID = Identity(local), K8sNamespace = "shop" });

    public Task IdentityAsync(uint local = 1, string app = "cart") => PutAsync(Keys.Identity(Identity(local)), Falcon.Bytes(
        IdentityLabels.Encode([new("k8s", "app", app), new("k8s", IdentityLabels.ClusterKey, cluster)])));

    /// <summary>One record of each resource, then the canaries.</summary>
    public async Task EverythingAsync()
    {
        await ConfigAsync();
        await HeartbeatAsync();
        await RecordsAsync();
        await CanariesAsync();
    }

    public async Task RecordsAsync()
    {
        await NodeAsync("n1");
        await ServiceAsync("cart", true, $"10.{Id}.0.9");
        await IpAsync($"10.{Id}.0.9");
        await IdentityAsync();
    }

    /// <summary>What a sink holds of <see cref="RecordsAsync"/>.</summary>
    public string Records => $"{cluster}#{Identity(1)} {cluster}/n1 {cluster}:10.{Id}.0.9/32={Identity(1)} {cluster}:shop/cart";

    public Task PutAsync(string key, byte[] value) => store.WriteAsync([new WriteOperation(key, value)], default);

    public Task DeleteAsync(string key) => store.WriteAsync([new WriteOperation(key, null)], default);
}
