using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// Another cluster: a real etcd with TLS and client certificates, without disk sync, holding what a cluster says of itself. What a
/// benchmark measures it writes itself.
/// </summary>
internal sealed class PeerCluster : IAsyncDisposable
{
    public const string Name = "osaka";
    public const uint Id = 2;
    public const string NodeAddress = "172.30.0.2";

    /// <summary>An entry that is there from the start: whoever has it has listed.</summary>
    public const string Marker = "10.2.255.254";

    private PeerCluster(EtcdServer etcd)
    {
        Etcd = etcd;
        Store = etcd.NewStore();
    }

    public EtcdServer Etcd { get; }

    public EtcdKVStore Store { get; }

    public static async Task<PeerCluster> StartAsync(CancellationToken cancellation)
    {
        var peer = new PeerCluster(await EtcdServer.StartAsync(tls: true));
        await peer.Store.WriteAsync(
        [
            new(Keys.ClusterConfig(Name), ClusterConfigCodec.Encode(ClusterConfig.SafeProfile(Id, 255))),
            new(Keys.HasClusterConfig, "true"u8.ToArray()),
            new(Keys.Heartbeat, WireTime.Now(TimeProvider.System)),
            Entry(Marker, Identity(0)),
            .. RemoteResources.OfEveryCluster.Select(resource =>
                new WriteOperation(Keys.Canary(Name, resource), WireTime.Now(TimeProvider.System))),
        ], cancellation);
        return peer;
    }

    public static uint Identity(int number) => IdentityNumbering.Max255.MinOf(Id) + 1 + (uint)number;

    /// <summary>The n-th pod address, unlike <see cref="Marker"/> for n below 65,000.</summary>
    public static IpAddr PodAddress(int number) => IpAddr.V4((10u << 24 | 2u << 16) + 1 + (uint)number);

    public static WriteOperation Entry(string address, uint identity) =>
        new(Keys.Ip(IpPrefix.Host(IpAddr.Parse(address))), Value(address, identity));

    public static byte[] Value(string address, uint identity) => IpIdentityPairCodec.Encode(new IpIdentityPair
    {
        IP = address,
        HostIP = NodeAddress,
        ID = identity,
        Metadata = $"cilium-global:{Name}:osaka-1:1",
        K8sNamespace = "default",
        K8sPodName = $"rebel-base-{address}",
    });

    /// <summary>How an agent connects: Cilium's etcd client file.</summary>
    public string HowToConnect => ClientFile.Of(Etcd.Options);

    public async ValueTask DisposeAsync()
    {
        await Store.DisposeAsync();
        await Etcd.DisposeAsync();
    }
}
