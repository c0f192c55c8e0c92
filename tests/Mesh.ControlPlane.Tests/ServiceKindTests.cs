using Mesh.ControlPlane.LoadBalancing;
using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>Every kind of Service as frontends: which addresses, for whom, and with which backends.</summary>
public class ServiceKindTests
{
    private readonly World _world = new();

    [Fact]
    public void A_load_balancer_is_reached_by_all_its_addresses_with_the_same_backends()
    {
        _world.Apply(Web("LoadBalancer", ["10.96.0.10", "fd96::10"], nodePort: 30080) with
        {
            Status = Ingress("192.0.2.80", "2001:db8::80"),
        }, Slice("10.2.0.5", "osaka-1"), Slice("fd02::5", "osaka-2"));

        Assert.Equal(
            """
            0.0.0.0:30080/TCP NodePort => 10.2.0.5:8080 here
            10.96.0.10:80/TCP ClusterIP => 10.2.0.5:8080 here
            192.0.2.80:80/TCP LoadBalancer => 10.2.0.5:8080 here
            [::]:30080/TCP NodePort => [fd02::5]:8080
            [2001:db8::80]:80/TCP LoadBalancer => [fd02::5]:8080
            [fd96::10]:80/TCP ClusterIP => [fd02::5]:8080
            """, Rows());
        Assert.Empty(_world.LoadBalancing.Conflicts);
    }

    [Fact]
    public void External_addresses_and_a_node_port_of_a_type_that_has_none()
    {
        var service = Web("ClusterIP", ["10.96.0.10"], nodePort: 30080);
        _world.Apply(service with { Spec = service.Spec with { ExternalIPs = ["198.51.100.7"] }, Status = Ingress("192.0.2.80") });

        Assert.Equal("10.96.0.10:80/TCP ClusterIP =>\n198.51.100.7:80/TCP ExternalIPs =>", Rows());
    }

    [Theory]
    [InlineData("ClusterIP", "None")]
    [InlineData("ExternalName", "10.96.0.10")]
    [InlineData("LoadBalancer", "")]
    public void Without_an_address_of_its_own_a_service_has_no_frontend(string type, string clusterIP)
    {
        _world.Apply(Web(type, [clusterIP], nodePort: 30080) with { Status = Ingress("192.0.2.80") }, Slice("10.2.0.5", "osaka-1"));

        Assert.Equal("", Rows());
    }

    [Fact]
    public void An_address_that_belongs_to_a_proxy_is_not_answered_for()
    {
        var service = Web("LoadBalancer", ["10.96.0.10"]) with
        {
            Status = new ServiceStatus
            {
                LoadBalancer = new LoadBalancerStatus { Ingress = [new LoadBalancerIngress { Ip = "192.0.2.80", IpMode = "Proxy" }] },
            },
        };
        _world.Apply(service);

        Assert.Equal("10.96.0.10:80/TCP ClusterIP =>", Rows());
    }

    [Theory]
    [InlineData(null, null, "", "")]
    [InlineData("Local", null, "", " external-local")]
    [InlineData(null, "Local", " external-local internal-local", " internal-local")]
    [InlineData("Local", "Local", " external-local internal-local", " external-local internal-local")]
    public void Traffic_policies_concern_the_clients_that_they_are_for(string? external, string? inside, string clusterIP, string nodePort)
    {
        var service = Web("NodePort", ["10.96.0.10"], nodePort: 30080);
        _world.Apply(service with { Spec = service.Spec with { ExternalTrafficPolicy = external, InternalTrafficPolicy = inside } });

        Assert.Equal($"0.0.0.0:30080/TCP NodePort{nodePort} =>\n10.96.0.10:80/TCP ClusterIP{clusterIP} =>", Rows());
    }

    [Fact]
    public void A_backend_is_here_when_it_runs_on_this_node_of_this_cluster()
    {
        _world.Apply(Web("ClusterIP", ["10.96.0.10"], global: true), Slice("10.2.0.5", "osaka-1", "a"), Slice("10.2.0.6", "osaka-2", "b"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP"));

        Assert.Equal("10.96.0.10:80/TCP ClusterIP => 10.1.0.11:8080 10.2.0.5:8080 here 10.2.0.6:8080", Rows());
    }

    [Theory]
    [InlineData(null, null, 0u)]
    [InlineData("None", 30, 0u)]
    [InlineData("ClientIP", null, 10800u)]
    [InlineData("ClientIP", 30, 30u)]
    public void Session_affinity_has_a_timeout(string? affinity, int? timeout, uint seconds)
    {
        var service = Web("ClusterIP", ["10.96.0.10"]);
        _world.Apply(service with
        {
            Spec = service.Spec with
            {
                SessionAffinity = affinity,
                SessionAffinityConfig = timeout is null ? null : new SessionAffinityConfig { ClientIP = new ClientIPConfig { TimeoutSeconds = timeout } },
            },
        });

        Assert.Equal(seconds, Assert.Single(_world.State.Frontends.Snapshot()).Value.Row.AffinitySeconds);
    }

    [Fact]
    public void Source_ranges_guard_the_addresses_of_the_load_balancer_only()
    {
        var service = Web("LoadBalancer", ["10.96.0.10"], nodePort: 30080);
        _world.Apply(service with
        {
            Spec = service.Spec with { LoadBalancerSourceRanges = ["198.51.100.0/24", " 192.0.2.0/24", "192.0.2.9/24"] },
            Status = Ingress("192.0.2.80"),
        });

        var ranges = _world.State.Frontends.Snapshot().ToDictionary(pair => pair.Value.Row.Type, pair => string.Join(' ', pair.Value.Row.SourceRanges.Items));
        Assert.Equal("192.0.2.0/24 198.51.100.0/24", ranges[ServiceType.LoadBalancer]);
        Assert.Equal(["", ""], [ranges[ServiceType.ClusterIP], ranges[ServiceType.NodePort]]);
    }

    [Fact]
    public void A_node_port_that_another_service_has_waits_and_is_told()
    {
        _world.Apply(Web("NodePort", ["10.96.0.10"], nodePort: 30080));
        _world.Apply(Web("NodePort", ["10.96.0.11"], nodePort: 30080, name: "late"));

        Assert.Equal(["Service default/late: 0.0.0.0:30080/TCP already belongs to Service default/web: give one of them another address"],
            _world.LoadBalancing.Conflicts);
        _world.Delete(Web("NodePort", ["10.96.0.10"], nodePort: 30080));
        Assert.Empty(_world.LoadBalancing.Conflicts);
        Assert.Contains("0.0.0.0:30080/TCP NodePort", Rows());
    }

    [Fact]
    public void A_node_port_outside_the_range_is_told()
    {
        _world.Apply(Web("NodePort", ["10.96.0.10"], nodePort: 8443));
        Assert.Equal("Service default/web: nodePort 8443 is not among 30000 to 32767 and is not served: choose another, or start the agents with "
            + "--node-port-range", Assert.Single(_world.LoadBalancing.Conflicts));
    }

    [Theory]
    [InlineData(19999, false)]
    [InlineData(20000, true)]
    [InlineData(20009, true)]
    [InlineData(20010, false)]
    [InlineData(30080, false)]
    public void Both_ends_of_another_range_belong_to_it(int nodePort, bool served)
    {
        var world = new World(nodePorts: (20000, 20009));
        world.Apply(Web("NodePort", ["10.96.0.10"], nodePort), Slice("10.2.0.5", "osaka-1"));

        Assert.Equal(served ? [] : [$"Service default/web: nodePort {nodePort} is not among 20000 to 20009 and is not served: choose another, or start "
            + "the agents with --node-port-range"], world.LoadBalancing.Conflicts);
        // The service itself goes on, and with another port the complaint goes.
        Assert.Contains("10.96.0.10:80/TCP default/web:http => 10.2.0.5:8080@2", world.Frontends);
        world.Apply(Web("NodePort", ["10.96.0.10"], nodePort: 20005));
        Assert.Empty(world.LoadBalancing.Conflicts);
    }

    [Fact]
    public void One_backend_too_many_is_refused_and_the_last_good_state_stays()
    {
        _world.Apply(Web("ClusterIP", ["10.96.0.10"]), Many(LoadBalancingWriter.BackendsMax));
        Assert.Equal(LoadBalancingWriter.BackendsMax, _world.State.Frontends.Snapshot()[0].Value.Row.Backends.Count);
        Assert.Empty(_world.LoadBalancing.Conflicts);

        _world.Apply(Many(LoadBalancingWriter.BackendsMax + 1));
        Assert.Equal(LoadBalancingWriter.BackendsMax, _world.State.Frontends.Snapshot()[0].Value.Row.Backends.Count);
        Assert.Contains("would have 10001 backends, at most 10000 are served: its last good state stays", Assert.Single(_world.LoadBalancing.Conflicts));

        _world.Apply(Many(3));
        Assert.Empty(_world.LoadBalancing.Conflicts);
        Assert.Equal(3, _world.State.Frontends.Snapshot()[0].Value.Row.Backends.Count);
    }

    [Fact]
    public void Sctp_to_another_port_is_told()
    {
        _world.Apply(Given.Service("sigtran", "10.96.0.10", "m3ua:2905/SCTP"), Given.Slice("sigtran", "a", "m3ua:12905/SCTP", "10.2.0.5"));
        Assert.Contains("10.2.0.5:12905/SCTP, whose other port SCTP's checksum would not survive", Assert.Single(_world.LoadBalancing.Conflicts));

        _world.Apply(Given.Slice("sigtran", "a", "m3ua:2905/SCTP", "10.2.0.5"));
        Assert.Empty(_world.LoadBalancing.Conflicts);
    }

    [Fact]
    public void A_remote_backend_that_terminates_is_drained()
    {
        _world.Apply(Web("ClusterIP", ["10.96.0.10"], global: true));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP", "10.1.0.12 http:8080/TCP") with
        {
            Conditions = new Dictionary<string, string> { ["10.1.0.12"] = "terminating" },
        });

        Assert.Equal("10.96.0.10:80/TCP default/web:http => 10.1.0.11:8080@1 10.1.0.12:8080@1 Draining", _world.Frontends);
    }

    private string Rows() => string.Join('\n', _world.State.Frontends.Snapshot().OrderBy(pair => pair.Key).Select(pair => pair.Value.Row).Select(row =>
        $"{row.Address} {row.Type}{(row.ExternalLocal ? " external-local" : "")}{(row.InternalLocal ? " internal-local" : "")} =>"
        + string.Concat(row.Backends.Items.Select(backend => $" {backend.Address.HostPort}{(backend.IsHere ? " here" : "")}"))));

    private static Service Web(string type, IReadOnlyList<string> ips, int nodePort = 0, bool global = false, string name = "web")
    {
        var service = Given.Service(name, ips[0], global: global, moreIPs: [.. ips.Skip(1)]);
        return service with
        {
            Spec = service.Spec with { Type = type, Ports = [service.Spec.Ports![0] with { NodePort = nodePort }] },
        };
    }

    private static ServiceStatus Ingress(params string[] ips) => new()
    {
        LoadBalancer = new LoadBalancerStatus { Ingress = [.. ips.Select(ip => new LoadBalancerIngress { Ip = ip })] },
    };

    private static EndpointSlice Slice(string address, string node, string? name = null)
    {
        var slice = Given.Slice("web", name ?? (address.Contains(':') ? "v6" : "v4"), "http:8080/TCP", address);
        return slice with { Endpoints = [slice.Endpoints![0] with { NodeName = node }] };
    }

    private static EndpointSlice Many(int count) =>
        Given.Slice("web", "many", "http:8080/TCP", [.. Enumerable.Range(0, count).Select(i => $"10.{16 + i / 65536}.{i / 256 % 256}.{i % 256}")]);
}
