using CsCheck;
using Mesh.ControlPlane.IPCache;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using Mesh.StateDB;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>The writers against models that are too slow and too simple to be wrong.</summary>
public class MergePropertyTests
{
    private static readonly Gen<IpAddr> Ip = Gen.OneOf(
        IpAddr.Parse("10.0.0.1"), IpAddr.Parse("10.0.0.2"), IpAddr.Parse("10.0.0.3"), IpAddr.Parse("fd00::1"), IpAddr.Parse("fd00::2"));

    private static readonly Gen<string> PortName = Gen.OneOf("", "http", "dns");

    private static readonly Gen<L4Protocol> Protocol = Gen.OneOf(L4Protocol.TCP, L4Protocol.UDP);

    private static readonly Gen<NamedBackend> Backend =
        from ip in Ip
        from port in Gen.OneOf<ushort>(80, 81)
        from protocol in Protocol
        from name in PortName
        from state in Gen.OneOf(BackendState.Active, BackendState.Draining)
        select new NamedBackend(new L3n4Addr(ip, port, protocol), name, state, "", "");

    private static readonly Gen<LocalService> Service =
        from global in Gen.Bool
        from affinity in Gen.OneOf(ServiceAffinity.None, ServiceAffinity.Local, ServiceAffinity.Remote)
        from ports in Gen.Select(PortName, Protocol, (name, protocol) => new FrontendPort(name, 1000, protocol)).Array[0, 3]
        select new LocalService(new ServiceName("default", "s"),
            new EquatableArray<IpAddr>([IpAddr.Parse("10.96.0.1"), IpAddr.Parse("fd96::1")]),
            new EquatableArray<FrontendPort>(ports.DistinctBy(port => port.Protocol)), global, global ? affinity : ServiceAffinity.None);

    private static readonly Gen<RemoteService[]> Remotes =
        Gen.Select(Backend.Array[0, 6], Backend.Array[0, 6], Gen.Bool, (tokyo, kyoto, order) => new[]
        {
            new RemoteService("tokyo", 1, order ? 1 : 2, [.. tokyo.Select(Active)]),
            new RemoteService("kyoto", 3, order ? 2 : 1, [.. kyoto.Select(Active)]),
        });

    private static NamedBackend Active(NamedBackend backend) => backend with { State = BackendState.Active };

    [Fact]
    public void The_merge_follows_the_rules_as_a_naive_reading_of_them_does() =>
        Gen.Select(Service, Backend.Array[0, 6], Remotes).Sample((service, local, remotes) =>
            Assert.Equal(
                string.Join('\n', Naive(service, local, remotes)),
                string.Join('\n', ServiceMerge.Merge(service, World.Osaka, local, remotes, _ => []).Select(World.Text))), iter: 20000);

    /// <summary>Asks for each frontend and each address in the world: who has it, and does it answer?</summary>
    private static IEnumerable<string> Naive(LocalService service, NamedBackend[] local, RemoteService[] remotes)
    {
        var everything = local.Concat(remotes.SelectMany(remote => remote.Backends)).Select(backend => backend.Address).Distinct().ToList();
        foreach (var vip in service.ClusterIPs)
        {
            foreach (var port in service.Ports)
            {
                var found = new List<Backend>();
                foreach (var address in everything)
                {
                    var (cluster, id, claims) = ("osaka", 2u, local.Where(backend => backend.Address == address).ToList());
                    if (claims.Count == 0)
                    {
                        var last = remotes.Where(remote => remote.Backends.Any(backend => backend.Address == address)).MaxBy(remote => remote.Sequence);
                        if (last is null || !service.Global)
                            continue;
                        (cluster, id, claims) = (last.Cluster, last.ClusterId, last.Backends.Where(backend => backend.Address == address).ToList());
                    }
                    var named = port.Name == "" || claims.Any(claim => claim.PortName == "" || claim.PortName == port.Name);
                    if (!named || address.Protocol != port.Protocol || address.Address.IsV6 != vip.IsV6)
                        continue;
                    var state = claims.Any(claim => claim.State == BackendState.Active) ? BackendState.Active : BackendState.Draining;
                    var second = (service.Affinity == ServiceAffinity.Local && id != 2) || (service.Affinity == ServiceAffinity.Remote && id == 2);
                    found.Add(new Backend(address, id, cluster, "", "", state, (byte)(second ? 1 : 0)));
                }
                yield return World.Text(new Frontend(new L3n4Addr(vip, port.Port, port.Protocol), service.Name, port.Name, ServiceType.ClusterIP,
                    service.Affinity, new EquatableArray<Backend>(found.OrderBy(b => b.Tier).ThenBy(b => b.ClusterId).ThenBy(b => b.Address))));
            }
        }
    }

    private abstract record Step;

    private sealed record SetService(string Name, bool Global) : Step;

    private sealed record DropService(string Name) : Step;

    private sealed record SetSlice(string Slice, string Service, int[] Hosts) : Step;

    private sealed record DropSlice(string Slice) : Step;

    private sealed record Offer(string Cluster, string Service, int[] Hosts) : Step;

    private sealed record Drain(string Cluster) : Step;

    private static readonly Gen<string> Name = Gen.OneOf("a", "b");
    private static readonly Gen<string> Cluster = Gen.OneOf("tokyo", "kyoto");
    private static readonly Gen<int[]> Hosts = Gen.Int[1, 4].Array[0, 3];

    private static readonly Gen<Step> AnyStep = Gen.Frequency(
        (3, Gen.Select(Name, Gen.Bool, (name, global) => (Step)new SetService(name, global))),
        (1, Name.Select(name => (Step)new DropService(name))),
        (3, Gen.Select(Gen.OneOf("x", "y"), Name, Hosts, (slice, service, hosts) => (Step)new SetSlice(slice, service, hosts))),
        (1, Gen.OneOf("x", "y").Select(slice => (Step)new DropSlice(slice))),
        (4, Gen.Select(Cluster, Name, Hosts, (cluster, service, hosts) => (Step)new Offer(cluster, service, hosts))),
        (1, Cluster.Select(cluster => (Step)new Drain(cluster))));

    [Fact]
    public void Any_history_ends_in_the_table_that_its_outcome_gives_at_once() =>
        AnyStep.Array[0, 30].Sample(steps =>
        {
            var world = new World();
            var services = new Dictionary<string, SetService>();
            var slices = new Dictionary<string, SetSlice>();
            var offers = new List<Offer>();
            foreach (var step in steps)
            {
                Run(world, step);
                switch (step)
                {
                    case SetService set: services[set.Name] = set; break;
                    case DropService drop: services.Remove(drop.Name); break;
                    case SetSlice set: slices[set.Slice] = set; break;
                    case DropSlice drop: slices.Remove(drop.Slice); break;
                    case Drain drain: offers.RemoveAll(offer => offer.Cluster == drain.Cluster); break;
                    case Offer offer:
                        var same = offers.Find(other => other.Cluster == offer.Cluster && other.Service == offer.Service);
                        if (same is not null && same.Hosts.Distinct().Order().SequenceEqual(offer.Hosts.Distinct().Order()))
                            break;
                        if (same is not null)
                            offers.Remove(same);
                        offers.Add(offer);
                        break;
                }
            }
            var fresh = new World();
            foreach (var step in services.Values.Concat<Step>(slices.Values).Concat(offers))
                Run(fresh, step);
            Assert.Equal(fresh.Frontends, world.Frontends);
        }, iter: 3000);

    private static void Run(World world, Step step)
    {
        switch (step)
        {
            case SetService set: world.Apply(Given.Service(set.Name, Vip(set.Name), global: set.Global)); break;
            case DropService drop: world.Delete(Given.Service(drop.Name, Vip(drop.Name))); break;
            case SetSlice set: world.Apply(Given.Slice(set.Service, set.Slice, "http:8080/TCP", [.. set.Hosts.Select(host => $"10.9.0.{host}")])); break;
            case DropSlice drop: world.Delete(Given.Slice("a", drop.Slice, "http:8080/TCP")); break;
            case Drain drain: world.Remote.Drain(drain.Cluster, Id(drain.Cluster)); break;
            case Offer offer:
                world.Hear(offer.Cluster, Id(offer.Cluster), Given.Record(offer.Cluster, Id(offer.Cluster), offer.Service,
                    [.. offer.Hosts.Distinct().Select(host => $"10.9.0.{host} http:8080/TCP")]));
                break;
        }
    }

    private static string Vip(string service) => service == "a" ? "10.96.0.1" : "10.96.0.2";

    private static uint Id(string cluster) => cluster == "tokyo" ? 1u : 3u;

    private static readonly Gen<(int Prefix, IPCacheOrigin Origin, uint? Identity)> Word =
        from prefix in Gen.Int[0, 1]
        from source in Gen.OneOf(IPCacheSource.PodCidr, IPCacheSource.ClusterMesh, IPCacheSource.Local)
        from name in Gen.Int[0, 2]
        from identity in Gen.UInt[1, 3]
        from takeBack in Gen.Frequency((2, Gen.Const(false)), (1, Gen.Const(true)))
        select (prefix, source == IPCacheSource.ClusterMesh
            ? new IPCacheOrigin(source, $"c{name}", "")
            : new IPCacheOrigin(source, "osaka", $"n{name}"), takeBack ? null : (uint?)identity);

    [Fact]
    public void The_ipcache_believes_the_highest_source_and_then_the_last_writer() =>
        Word.Array[0, 40].Sample(words =>
        {
            var table = new Table<IpPrefix, IPCacheEntry>("ipcache");
            var writer = new IPCacheWriter(table);
            var said = new List<(int Prefix, IPCacheOrigin Origin, uint Identity)>();
            foreach (var (prefix, origin, identity) in words)
            {
                writer.Write([Change(prefix, origin, identity)]);
                var index = said.FindIndex(one => one.Prefix == prefix && one.Origin == origin);
                if (index >= 0 && said[index].Identity == identity)
                    continue;
                if (index >= 0)
                    said.RemoveAt(index);
                if (identity is { } number)
                    said.Add((prefix, origin, number));
                for (var i = 0; i < 2; i++)
                {
                    var best = said.Where(one => one.Prefix == i).Select((one, order) => (one, order))
                        .OrderBy(pair => pair.one.Origin.Source).ThenBy(pair => pair.order).Select(pair => (uint?)pair.one.Identity).LastOrDefault();
                    table.TryGet(Prefix(i), out var row);
                    Assert.Equal(best, row?.Identity);
                }
            }
        }, iter: 10000);

    private static IPCacheChange Change(int prefix, IPCacheOrigin origin, uint? identity) => new(Prefix(prefix), origin, identity is { } number
        ? new IPCacheEntry(Prefix(prefix), number, null, 0, origin.Source, origin.Cluster, 0, "", "")
        : null);

    private static IpPrefix Prefix(int index) => IpPrefix.Host(IpAddr.V4((uint)(0x0a000000 + index)));
}
