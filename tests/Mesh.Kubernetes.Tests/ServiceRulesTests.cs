using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.Kubernetes.Tests;

/// <summary>What a Service from a file must satisfy, where no API server has looked at it before.</summary>
public class ServiceRulesTests
{
    [Fact]
    public void A_service_that_uses_every_field_rightly_is_sound() => Assert.Null(ObjectRules.Check(Web(new ServiceSpec
    {
        Type = "LoadBalancer",
        ClusterIP = "10.96.0.10",
        InternalTrafficPolicy = "Cluster",
        ExternalTrafficPolicy = "Local",
        HealthCheckNodePort = 30111,
        SessionAffinity = "ClientIP",
        SessionAffinityConfig = new SessionAffinityConfig { ClientIP = new ClientIPConfig { TimeoutSeconds = 86400 } },
        ExternalIPs = ["198.51.100.7", "2001:db8::7", ""],
        LoadBalancerSourceRanges = ["192.0.2.0/24", " 2001:db8::/32 ", "0.0.0.0/0"],
        Ports =
        [
            new ServicePort { Name = "http", Port = 80, NodePort = 1 },
            new ServicePort { Name = "dns", Port = 53, Protocol = "UDP", NodePort = 65535 },
            new ServicePort { Name = "dns-tcp", Port = 53, Protocol = "TCP", NodePort = 65535 },
        ],
    }, (ServiceAnnotations.ForwardingName, "DSR"), (ServiceAnnotations.AlgorithmName, "Random")) with
    {
        Status = Ingress("203.0.113.10", null),
    }));

    public static TheoryData<string, ServiceSpec> Unsound() => new()
    {
        { "spec.type 'Clusterip' must be one of ClusterIP, NodePort, LoadBalancer, ExternalName", new ServiceSpec { Type = "Clusterip" } },
        { "spec.internalTrafficPolicy 'local' must be one of Cluster, Local", new ServiceSpec { InternalTrafficPolicy = "local" } },
        { "spec.externalTrafficPolicy 'Node' must be one of Cluster, Local", new ServiceSpec { ExternalTrafficPolicy = "Node" } },
        { "spec.sessionAffinity 'Cookie' must be one of None, ClientIP", new ServiceSpec { SessionAffinity = "Cookie" } },
        { "spec.sessionAffinityConfig.clientIP.timeoutSeconds 0 must be 1 to 86400", Timeout(0) },
        { "spec.sessionAffinityConfig.clientIP.timeoutSeconds -1 must be 1 to 86400", Timeout(-1) },
        { "spec.sessionAffinityConfig.clientIP.timeoutSeconds 86401 must be 1 to 86400", Timeout(86401) },
        { "spec.ports[0].nodePort -1 must be 1 to 65535, or 0 for none", NodePorts((-1, "TCP")) },
        { "spec.ports[1].nodePort 65536 must be 1 to 65535, or 0 for none", NodePorts((30080, "TCP"), (65536, "TCP")) },
        { "spec.ports[1].nodePort 30080 is used twice: give each port one of its own", NodePorts((30080, "TCP"), (30080, "")) },
        { "spec.healthCheckNodePort -1 must be 1 to 65535, or 0 for none", new ServiceSpec { HealthCheckNodePort = -1 } },
        { "spec.healthCheckNodePort 65536 must be 1 to 65535, or 0 for none", new ServiceSpec { HealthCheckNodePort = 65536 } },
        { "spec.externalIPs[1] 'gateway' is not an IP address", new ServiceSpec { ExternalIPs = ["198.51.100.7", "gateway"] } },
        { "spec.externalIPs[0] '0.0.0.0' is not an IP address that a service could have", new ServiceSpec { ExternalIPs = ["0.0.0.0"] } },
        { "spec.externalIPs[0] '::' is not an IP address that a service could have", new ServiceSpec { ExternalIPs = ["::"] } },
        { "spec.loadBalancerSourceRanges[0] '192.0.2.0/33' is not an address range", Ranges("192.0.2.0/33") },
        { "spec.loadBalancerSourceRanges[1] '' is not an address range", Ranges("192.0.2.0/24", "") },
        { "spec.loadBalancerSourceRanges[0] '192.0.2.0-192.0.2.9' is not an address range", Ranges("192.0.2.0-192.0.2.9") },
        { "spec.loadBalancerSourceRanges[0] '' is not an address range", Ranges([null!]) },
    };

    [Theory]
    [MemberData(nameof(Unsound))]
    public void The_first_fault_is_named_with_what_is_allowed(string fault, ServiceSpec spec) => Assert.StartsWith(fault, ObjectRules.Check(Web(spec)));

    [Theory]
    [InlineData(ServiceAnnotations.ForwardingName, "hybrid", "must be one of snat, dsr")]
    [InlineData(ServiceAnnotations.AlgorithmName, "round-robin", "must be one of maglev, random")]
    // Or a typing error would take a service out of the mesh.
    [InlineData(ServiceAnnotations.GlobalName, "ture", "must be one of true, false")]
    [InlineData(ServiceAnnotations.GlobalAlias, "yes", "must be one of true, false")]
    [InlineData(ServiceAnnotations.SharedName, "1", "must be one of true, false")]
    [InlineData(ServiceAnnotations.SharedAlias, "none", "must be one of true, false")]
    public void An_unknown_word_in_an_annotation_is_a_fault(string name, string value, string allowed) =>
        Assert.Equal($"metadata.annotations '{name}' '{value}' {allowed}", ObjectRules.Check(Web(new ServiceSpec(), (name, value))));

    [Fact]
    public void What_a_load_balancer_gave_must_be_an_address_too() => Assert.Equal(
        "status.loadBalancer.ingress[1] 'lb.example.org' is not an IP address that a service could have",
        ObjectRules.Check(Web(new ServiceSpec { Type = "LoadBalancer" }) with { Status = Ingress("203.0.113.10", "lb.example.org") }));

    [Fact]
    public void A_hostile_value_fills_no_log_and_breaks_no_line()
    {
        var fault = ObjectRules.Check(Web(new ServiceSpec { Type = "Load\nBalancer" + new string('x', 10_000) }))!;
        Assert.DoesNotContain('\n', fault);
        Assert.InRange(fault.Length, 1, 300);
    }

    [Fact]
    public async Task A_service_that_breaks_a_rule_is_told_and_those_beside_it_are_taken()
    {
        await using var manifests = new Manifests(prepare: path =>
        {
            File.WriteAllText(Path.Combine(path, "bad.yaml"), Yaml("bad", "local"));
            File.WriteAllText(Path.Combine(path, "good.yaml"), Yaml("good", "Local"));
        });
        await manifests.UntilSynced();

        Assert.Equal("Service default/good", manifests.Objects);
        Assert.Contains("spec.externalTrafficPolicy 'local' must be one of Cluster, Local", manifests.Problems);
    }

    private static string Yaml(string name, string policy) =>
        $$"""
        apiVersion: v1
        kind: Service
        metadata: {name: {{name}}, namespace: default}
        spec: {ports: [{port: 80}], externalTrafficPolicy: {{policy}}}
        """;

    private static Service Web(ServiceSpec spec, params (string Name, string Value)[] annotations) => new()
    {
        Metadata = new ObjectMeta { Name = "web", Namespace = "default", Annotations = annotations.ToDictionary(one => one.Name, one => one.Value) },
        Spec = spec,
    };

    private static ServiceSpec Timeout(int seconds) =>
        new() { SessionAffinityConfig = new SessionAffinityConfig { ClientIP = new ClientIPConfig { TimeoutSeconds = seconds } } };

    private static ServiceSpec NodePorts(params (int Number, string Protocol)[] ports) => new()
    {
        Type = "NodePort",
        Ports = [.. ports.Select((port, i) => new ServicePort { Name = $"p{i}", Port = 80 + i, Protocol = port.Protocol, NodePort = port.Number })],
    };

    private static ServiceSpec Ranges(params string[] ranges) => new() { LoadBalancerSourceRanges = ranges };

    private static ServiceStatus Ingress(params string?[] addresses) => new()
    {
        LoadBalancer = new LoadBalancerStatus { Ingress = [.. addresses.Select(address => new LoadBalancerIngress { Ip = address })] },
    };
}
