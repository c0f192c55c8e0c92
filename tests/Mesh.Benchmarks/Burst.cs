using System.Diagnostics;
using System.Globalization;
using System.Text;
using Mesh.Benchmarks.Surroundings;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Datapath;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.Benchmarks;

/// <summary>
/// Thousands of changes at once → the last of them in another cluster's kernel map. They are made as the API server makes them, by
/// a SyncStore with leases over a real etcd, and the clock runs from the first Set until every changed entry has been seen in the
/// maps of the real agent. Entries are looked up one by one, each until it is there; the maps of services are dumped.
/// </summary>
internal static class Burst
{
    private const int Endpoints = 5000;
    private const int Services = 100;
    private const int BackendsPerService = 50;
    private const int Rounds = 7;
    private const double AimSeconds = 1;
    private static readonly TimeSpan LeaseTtl = TimeSpan.FromMinutes(15);

    public static async Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var peer = await PeerCluster.StartAsync(cancellation);
        DeclareServices(node);
        await using var leases = new LeasePool(peer.Store, LeaseTtl);
        await using var ips = StoreFor(RemoteResource.IpEntries, peer, leases);
        await using var services = StoreFor(RemoteResource.Services, peer, leases);
        ips.Set(Keys.Ip(IpPrefix.Parse(PeerCluster.Marker + "/32")), PeerCluster.Value(PeerCluster.Marker, PeerCluster.Identity(0)));
        SetEndpoints(ips, PeerCluster.Identity(0));
        SetBackends(services, 0);
        ips.MarkSynced();
        services.MarkSynced();
        await ips.WaitForSyncedAsync(cancellation);
        await services.WaitForSyncedAsync(cancellation);

        await using var agent = AgentProcess.Start(node, peer);
        await agent.ReadyAsync(cancellation);
        await EndpointsHaveAsync(agent, PeerCluster.Identity(0), cancellation);
        await agent.UntilAsync(() => BackendsAre(node, 0), "the first backends in the kernel", cancellation);

        var endpointTimes = new List<double>();
        var backendTimes = new List<double>();
        for (var round = 1; round <= Rounds; round++)
        {
            var start = Stopwatch.GetTimestamp();
            SetEndpoints(ips, PeerCluster.Identity(round));
            await EndpointsHaveAsync(agent, PeerCluster.Identity(round), cancellation);
            endpointTimes.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);

            start = Stopwatch.GetTimestamp();
            SetBackends(services, round);
            await agent.UntilAsync(() => BackendsAre(node, round), $"the backends of round {round} in the kernel", cancellation);
            backendTimes.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
        }
        Tell(report, $"{Endpoints:N0} ip entries changed at once → last one in the kernel", endpointTimes);
        Tell(report, $"{Services * BackendsPerService:N0} backends of {Services} services at once → last one in the kernel",
            backendTimes);
    }

    private static void Tell(Report report, string what, List<double> times)
    {
        var sample = new Sample(times);
        var worst = sample.At(1) / 1e6;
        report.Add(what,
            string.Create(CultureInfo.InvariantCulture, $"p50 {sample.P50 / 1e6:0.00} s, worst {worst:0.00} s of {sample.Count}"),
            aim: $"worst ≤ {AimSeconds.ToString(CultureInfo.InvariantCulture)} s", met: worst <= AimSeconds);
    }

    private static SyncStore StoreFor(RemoteResource resource, PeerCluster peer, LeasePool leases)
    {
        var layout = Layout.State(PeerCluster.Name);
        return SyncStore.Start(peer.Store, new SyncStoreOptions
        {
            Prefix = layout.Prefix(resource),
            Leases = leases,
            CanaryKey = layout.Canary(resource),
        });
    }

    private static void SetEndpoints(SyncStore store, uint identity)
    {
        for (var i = 0; i < Endpoints; i++)
        {
            var address = PeerCluster.PodAddress(i);
            store.Set(Keys.Ip(IpPrefix.Host(address)), PeerCluster.Value(address.ToString(), identity));
        }
    }

    private static async Task EndpointsHaveAsync(AgentProcess agent, uint identity, CancellationToken cancellation)
    {
        var next = 0;
        await agent.UntilAsync(() =>
        {
            while (next < Endpoints && agent.IdentityOf(PeerCluster.PodAddress(next)) == identity)
                next++;
            return next == Endpoints;
        }, $"identity {identity} in all {Endpoints} entries", cancellation);
    }

    /// <summary>Every backend of every service gets another address in each round.</summary>
    private static void SetBackends(SyncStore store, int round)
    {
        for (var service = 0; service < Services; service++)
        {
            var ports = new Dictionary<string, WirePort> { ["http"] = new() { Protocol = "TCP", Port = 8080 } };
            var key = Keys.Service(PeerCluster.Name, new ServiceName("default", $"s{service}"));
            store.Set(key, ClusterServiceCodec.Encode(new ClusterService
            {
                Cluster = PeerCluster.Name,
                Namespace = "default",
                Name = $"s{service}",
                Shared = true,
                ClusterId = PeerCluster.Id,
                Backends = Enumerable.Range(0, BackendsPerService).ToDictionary(
                    backend => $"10.2{round % 10}.{service}.{backend + 1}", _ => (IReadOnlyDictionary<string, WirePort>)ports),
            }));
        }
    }

    private static bool BackendsAre(Node node, int round)
    {
        using var maps = PinnedMaps.Open(node.BpfRoot);
        var frontends = maps.Frontends();
        return frontends.Count == Services && frontends.All(frontend =>
            frontend.Segments is [{ Backends: { Count: BackendsPerService } backends }]
            && backends.All(backend => (backend.Address.Address.Value >> 16 & 0xff) == (uint)(20 + round % 10)));
    }

    private static void DeclareServices(Node node)
    {
        var manifest = new StringBuilder();
        for (var service = 0; service < Services; service++)
        {
            manifest.Append(CultureInfo.InvariantCulture, $$"""
                ---
                apiVersion: v1
                kind: Service
                metadata:
                  name: s{{service}}
                  namespace: default
                  annotations: {service.cilium.io/global: "true"}
                spec:
                  clusterIP: 10.96.1.{{service + 1}}
                  ports: [{name: http, port: 80}]

                """);
        }
        File.WriteAllText(Path.Combine(AgentProcess.Manifests(node), "services.yaml"), manifest.ToString());
    }
}
