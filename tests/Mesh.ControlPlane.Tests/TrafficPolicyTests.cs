using Mesh.ControlPlane.LoadBalancing;
using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>
/// Global services under externalTrafficPolicy and internalTrafficPolicy Local: no backend of another cluster is on a node of ours, so Local
/// leaves them out, whatever affinity or order of clusters the service asks for, and where this node has none nobody is served.
/// </summary>
public sealed class TrafficPolicyTests
{
    private static readonly ServiceName Web = new("default", "web");

    private readonly World _world = new();

    [Theory]
    [InlineData(null)]
    [InlineData("local")]
    [InlineData("remote")]
    [InlineData("none")]
    public void Clients_outside_are_given_this_nodes_backends_only_whatever_the_affinity(string? affinity)
    {
        _world.Apply(Service(external: "Local", affinity: affinity), Slice("10.2.0.5 osaka-1", "10.2.0.6 osaka-2"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP"));

        foreach (var type in new[] { ServiceType.NodePort, ServiceType.LoadBalancer })
        {
            Assert.Equal("10.2.0.5", Offered(type, external: true));
            Assert.Equal("10.1.0.11 10.2.0.5 10.2.0.6", Offered(type, external: false));
        }
        // The cluster IP is for inside: the policy for outside does not concern it.
        Assert.Equal("10.1.0.11 10.2.0.5 10.2.0.6", Offered(ServiceType.ClusterIP, external: true));
    }

    [Fact]
    public void Without_a_backend_on_this_node_clients_outside_are_given_none_and_other_clusters_do_not_step_in()
    {
        _world.Apply(Service(external: "Local"), Slice("10.2.0.5 osaka-1", "10.2.0.6 osaka-2"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP"));
        _world.Apply(Slice("10.2.0.6 osaka-2"));

        Assert.Equal("", Offered(ServiceType.LoadBalancer, external: true));
        Assert.Equal("10.1.0.11 10.2.0.6", Offered(ServiceType.LoadBalancer, external: false));

        // And back: a pod that moves here serves again.
        _world.Apply(Slice("10.2.0.6 osaka-1"));
        Assert.Equal("10.2.0.6", Offered(ServiceType.LoadBalancer, external: true));
    }

    [Fact]
    public void Clients_inside_are_cut_from_other_clusters_by_their_own_policy()
    {
        _world.Apply(Service(inside: "Local"), Slice("10.2.0.5 osaka-1", "10.2.0.6 osaka-2"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP"));

        Assert.Equal("10.2.0.5", Offered(ServiceType.ClusterIP, external: false));
        Assert.Equal("10.2.0.5", Offered(ServiceType.LoadBalancer, external: false));
        Assert.Equal("10.1.0.11 10.2.0.5 10.2.0.6", Offered(ServiceType.LoadBalancer, external: true));
    }

    [Fact]
    public void A_node_of_another_cluster_with_our_nodes_name_is_not_this_node()
    {
        var service = LocalService.From(Service(external: "Local"), ControlPlane.LoadBalancing.Choice.ServiceChoice.Default);
        var address = new L3n4Addr(IpAddr.Parse("10.1.0.11"), 8080, L4Protocol.TCP);
        var rows = ServiceMerge.Merge(service, World.Osaka, [],
            [new RemoteService("tokyo", 1, 1, [new NamedBackend(address, "http", BackendState.Active, "osaka-1", "")])], _ => [], "osaka-1");

        Assert.All(rows, row => Assert.False(Assert.Single(row.Backends.Items).IsHere));
    }

    [Fact]
    public void The_decision_tells_for_which_clients_another_clusters_backend_is_cut()
    {
        _world.Apply(Service(external: "Local"), Slice("10.2.0.5 osaka-1"));
        _world.Hear("tokyo", 1, Given.Record("tokyo", 1, "web", "10.1.0.11 http:8080/TCP"));

        var frontend = _world.LoadBalancing.Decision(Web)!.Frontends.Single(one => one.Type == ServiceType.LoadBalancer);
        var tokyo = frontend.Candidates.Single(one => one.Cluster == "tokyo");
        Assert.Equal((BackendRule.TrafficPolicyLocal, BackendRule.Kept), (frontend.RuleFor(tokyo, external: true), frontend.RuleFor(tokyo, external: false)));
    }

    [Theory]
    [InlineData("LoadBalancer", "Local", 30111)]
    [InlineData("LoadBalancer", "Cluster", 0)]
    [InlineData("LoadBalancer", null, 0)]
    [InlineData("NodePort", "Local", 0)]
    [InlineData("ClusterIP", "Local", 0)]
    public void Nodes_tell_their_health_for_load_balancers_under_local_only(string type, string? external, int port)
    {
        var service = Service(external);
        _world.Apply(service with { Spec = service.Spec with { Type = type, HealthCheckNodePort = 30111 } });

        Assert.All(_world.State.Frontends.Snapshot(), pair => Assert.Equal(port, pair.Value.Row.HealthCheckNodePort));
    }

    /// <summary>Who may be given to clients of one kind.</summary>
    private string Offered(ServiceType type, bool external)
    {
        var row = _world.State.Frontends.Snapshot().Select(pair => pair.Value.Row).Single(row => row.Type == type);
        return string.Join(' ', row.Backends.Where(backend => backend.IsHere || !(external ? row.ExternalLocal : row.InternalLocal))
            .Select(backend => backend.Address.Address.ToString()).Order(StringComparer.Ordinal));
    }

    private static Service Service(string? external = null, string? inside = null, string? affinity = null)
    {
        var service = Given.Service("web", "10.96.0.10", affinity: affinity);
        return service with
        {
            Spec = service.Spec with
            {
                Type = "LoadBalancer",
                ExternalTrafficPolicy = external,
                InternalTrafficPolicy = inside,
                Ports = [service.Spec.Ports![0] with { NodePort = 30080 }],
            },
            Status = new ServiceStatus { LoadBalancer = new LoadBalancerStatus { Ingress = [new LoadBalancerIngress { Ip = "192.0.2.80" }] } },
        };
    }

    /// <param name="endpoints">Address and node.</param>
    private static EndpointSlice Slice(params string[] endpoints)
    {
        var slice = Given.Slice("web", "web-1", "http:8080/TCP", [.. endpoints.Select(text => text.Split(' ')[0])]);
        return slice with { Endpoints = [.. slice.Endpoints!.Select((one, i) => one with { NodeName = endpoints[i].Split(' ')[1] })] };
    }
}
