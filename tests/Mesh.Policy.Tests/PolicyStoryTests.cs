using Mesh.Kubernetes.Policies;
using Mesh.Model;
using Mesh.Policy.Rules;
using static Mesh.Policy.Tests.PolicyWorld;

namespace Mesh.Policy.Tests;

public sealed class PolicyStoryTests
{
    private const string WebFromClient = """
        {"endpointSelector": {"matchLabels": {"app": "web"}},
         "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}]}]}
        """;

    [Fact]
    public void Without_policy_everything_passes_and_costs_no_row()
    {
        var world = new PolicyWorld();

        Assert.True(world.Passes(RemoteOther, "22/TCP"));
        Assert.Equal([PolicyKey.Endpoint(WebEndpoint)], world.Kernel.Keys);
    }

    [Fact]
    public void A_policy_lets_in_whom_it_names_and_nobody_else_until_it_goes()
    {
        var world = new PolicyWorld();
        world.Policy(WebFromClient);

        Assert.True(world.Passes(Client, "80/TCP"));
        Assert.False(world.Passes(Client, "81/TCP"));
        Assert.False(world.Passes(Client, "80/UDP"));
        Assert.False(world.Passes(Web, "80/TCP"));
        Assert.False(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.True(world.Passes(Client, "80/TCP", PolicyDirection.Egress));

        world.Remove();
        Assert.True(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.Equal([PolicyKey.Endpoint(WebEndpoint)], world.Kernel.Keys);
    }

    [Fact]
    public void A_selector_without_a_cluster_means_the_own_one_unless_told_otherwise()
    {
        var local = new PolicyWorld();
        var everywhere = new PolicyWorld(defaultLocal: false);
        local.Policy(WebFromClient);
        everywhere.Policy(WebFromClient);

        Assert.False(local.Passes(RemoteClient, "80/TCP"));
        Assert.True(everywhere.Passes(RemoteClient, "80/TCP"));
        Assert.False(everywhere.Passes(RemoteOther, "80/TCP"));
    }

    [Fact]
    public void A_selector_may_name_another_cluster_or_all()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {"matchLabels": {"app": "web"}},
             "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "client", "io.cilium.k8s.policy.cluster": "osaka"}}]}]}
            """);
        Assert.True(world.Passes(RemoteClient, "80/TCP"));
        Assert.False(world.Passes(Client, "80/TCP"));

        world.Policy("""
            {"endpointSelector": {"matchLabels": {"app": "web"}},
             "ingress": [{"fromEndpoints": [{"matchExpressions": [{"key": "k8s:io.cilium.k8s.policy.cluster", "operator": "Exists"}]}]}]}
            """);
        Assert.True(world.Passes(RemoteClient, "80/TCP"));
        Assert.True(world.Passes(Client, "80/TCP"));
        Assert.False(world.Passes(RemoteOther, "80/TCP"));
    }

    [Fact]
    public void The_entity_cluster_is_the_own_cluster_and_the_nodes()
    {
        var world = new PolicyWorld();
        world.Policy("""{"endpointSelector": {}, "egress": [{"toEntities": ["cluster"]}]}""");

        Assert.True(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
        Assert.True(world.Passes(NumericIdentity.RemoteNode, "80/TCP", PolicyDirection.Egress));
        Assert.False(world.Passes(RemoteClient, "80/TCP", PolicyDirection.Egress));
        Assert.False(world.Passes(NumericIdentity.World, "80/TCP", PolicyDirection.Egress));
    }

    [Fact]
    public void A_deny_rule_wins_over_every_allow_rule_on_its_ports_only()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {"matchLabels": {"app": "web"}},
             "ingress": [{"fromEntities": ["all"]}],
             "ingressDeny": [{"fromEndpoints": [{"matchLabels": {"app": "client"}}],
               "toPorts": [{"ports": [{"port": "8000", "endPort": 8010, "protocol": "TCP"}]}]}]}
            """);

        Assert.True(world.Passes(Client, "7999/TCP"));
        Assert.False(world.Passes(Client, "8000/TCP"));
        Assert.False(world.Passes(Client, "8010/TCP"));
        Assert.True(world.Passes(Client, "8011/TCP"));
        Assert.True(world.Passes(Client, "8005/UDP"));
        Assert.True(world.Passes(0xabcdef, "8005/TCP"));
    }

    [Fact]
    public void Deny_rules_alone_may_leave_the_rest_open()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {}, "enableDefaultDeny": {"ingress": false},
             "ingressDeny": [{"fromEntities": ["world"]}]}
            """);

        Assert.False(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.True(world.Passes(Client, "80/TCP"));
        Assert.True(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
    }

    [Theory]
    [InlineData("""{"endpointSelector": {}, "ingress": [{}]}""")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"fromEndpoints": []}]}""")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"fromEntities": ["none"]}]}""")]
    [InlineData("""{"endpointSelector": {}, "enableDefaultDeny": {"ingress": true}}""")]
    public void An_empty_rule_allows_nobody(string spec)
    {
        var world = new PolicyWorld();
        world.Policy(spec);

        Assert.False(world.Passes(Client, "80/TCP"));
        Assert.False(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.True(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
    }

    [Fact]
    public void Ports_alone_are_open_to_everybody()
    {
        var world = new PolicyWorld();
        world.Policy("""{"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "53"}]}]}]}""");

        foreach (var protocol in new[] { "TCP", "UDP", "SCTP" })
            Assert.True(world.Passes(0xabcdef, $"53/{protocol}"));
        Assert.False(world.Passes(Client, "54/UDP"));
        Assert.False(world.Passes(Client, "8/ICMP"));
    }

    [Fact]
    public void Address_ranges_with_exceptions_mean_only_what_lies_outside_the_mesh()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {}, "egress": [
              {"toCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}]},
              {"toCIDR": ["2001:db8::/32", "192.0.2.200/32"]}]}
            """);

        Assert.True(world.Passes(world.Address("192.0.2.5"), "80/TCP", PolicyDirection.Egress));
        Assert.False(world.Passes(world.Address("192.0.2.130"), "80/TCP", PolicyDirection.Egress));
        Assert.True(world.Passes(world.Address("192.0.2.200"), "80/TCP", PolicyDirection.Egress));
        Assert.True(world.Passes(world.Address("2001:db8::9"), "80/TCP", PolicyDirection.Egress));
        Assert.False(world.Passes(world.Address("198.51.100.1"), "80/TCP", PolicyDirection.Egress));
        Assert.False(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
    }

    [Fact]
    public void A_range_of_one_policy_is_still_the_world_for_another()
    {
        var world = new PolicyWorld();
        world.Policy("""{"endpointSelector": {}, "ingress": [{"fromEntities": ["world"]}]}""", "world");
        world.Policy("""{"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24"]}]}""", "range");
        var range = world.Address("192.0.2.5");

        Assert.NotEqual(NumericIdentity.World, range);
        Assert.True(world.Passes(range, "80/TCP"));
        // The verdicts come before the range may be shown.
        var changes = world.Changes.Select(change => change.Key).ToList();
        Assert.True(changes.FindLastIndex(key => key.Kind == PolicyKeyKind.Verdict) < changes.IndexOf(PolicyKey.Range(range)));
    }

    [Fact]
    public void A_range_keeps_its_number_over_a_restart_and_a_while_after_its_last_rule()
    {
        var range = IpPrefix.Parse("192.0.2.0/24");
        var world = new PolicyWorld(ranges: [new(range, 0x01000007)]);
        world.Policy("""{"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24", "198.51.100.0/24"]}]}""");
        Assert.Equal(0x01000007u, world.Address("192.0.2.1"));

        world.Remove();
        Assert.Contains(PolicyKey.Range(0x01000007), world.Kernel.Keys);
        Assert.Empty(world.Engine.Ranges);
        world.Time.Advance(TimeSpan.FromSeconds(11));
        world.Turn();
        Assert.DoesNotContain(PolicyKey.Range(0x01000007), world.Kernel.Keys);
    }

    [Fact]
    public void Ping_is_allowed_by_type_and_family()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"],
              "icmps": [{"fields": [{"type": "EchoRequest", "family": "IPv4"}, {"type": 128, "family": "IPv6"}]}]}]}
            """);

        Assert.True(world.Passes(Client, "8/ICMP"));
        Assert.True(world.Passes(Client, "128/ICMPv6"));
        Assert.False(world.Passes(Client, "13/ICMP"));
        Assert.False(world.Passes(Client, "8/TCP"));
    }

    [Fact]
    public void A_network_policy_reads_an_absent_list_as_everybody()
    {
        var world = new PolicyWorld();
        world.NetworkPolicy("""{"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}, {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]}""");

        Assert.True(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.False(world.Passes(NumericIdentity.World, "80/UDP"));
        Assert.True(world.Passes(Client, "9/UDP"));
        Assert.False(world.Passes(RemoteClient, "9/UDP"));

        world.NetworkPolicy("""{"podSelector": {}, "policyTypes": ["Egress"]}""", "egress");
        Assert.False(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
    }

    [Fact]
    public void Namespaces_are_selected_by_their_labels_also_where_identities_do_not_carry_them()
    {
        var world = new PolicyWorld();
        world.Pod(0x10005, "tokyo", "front", "client");
        world.NetworkPolicy("""{"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "front"}}}]}]}""");
        Assert.False(world.Passes(0x10005, "80/TCP"));

        world.Engine.SetNamespace("front", new Dictionary<string, string> { ["team"] = "front" });
        world.Turn();
        Assert.True(world.Passes(0x10005, "80/TCP"));
        Assert.False(world.Passes(Client, "80/TCP"));

        world.Engine.SetNamespace("front", null);
        world.Turn();
        Assert.False(world.Passes(0x10005, "80/TCP"));
    }

    [Fact]
    public void A_clusterwide_policy_selects_pods_of_every_namespace()
    {
        var world = new PolicyWorld(defaultLocal: false);
        world.Clusterwide("""{"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}]}]}""");

        Assert.True(world.Passes(Client, "80/TCP"));
        Assert.True(world.Passes(RemoteOther, "80/TCP"));
        Assert.False(world.Passes(NumericIdentity.World, "80/TCP"));
        Assert.False(world.Passes(NumericIdentity.RemoteNode, "80/TCP"));
    }

    [Fact]
    public void A_new_identity_writes_one_row_of_the_sets_that_mean_it()
    {
        var world = new PolicyWorld();
        world.Policy(WebFromClient);
        world.Policy("""{"endpointSelector": {}, "egress": [{"toEntities": ["all"]}]}""", "out");
        world.Pod(0x10009, "tokyo", "shop", "client");
        world.Turn();

        var (key, _) = Assert.Single(world.Changes);
        Assert.Equal(0x10009u, key.Id);
        Assert.True(world.Passes(0x10009, "80/TCP"));
        world.Pod(0x1000a, "tokyo", "shop", "stranger");
        world.Turn();
        Assert.Empty(world.Changes);
    }

    [Fact]
    public void Endpoints_with_equal_policy_share_their_rows_and_a_changed_policy_is_a_new_set()
    {
        var world = new PolicyWorld();
        world.Engine.SetEndpoint(8, Web);
        world.Policy(WebFromClient);
        var word = (EndpointPolicyRow)world.Kernel[PolicyKey.Endpoint(7)];
        Assert.Equal(word, world.Kernel[PolicyKey.Endpoint(8)]);

        world.Policy(WebFromClient.Replace("80", "81", StringComparison.Ordinal));
        var next = (EndpointPolicyRow)world.Kernel[PolicyKey.Endpoint(7)];
        Assert.NotEqual(word.Ingress, next.Ingress);
        var order = world.Changes.Select(change => (change.Key.Kind, Gone: change.Value is null, change.Key.Set)).ToList();
        Assert.True(order.FindLastIndex(one => one.Set == next.Ingress) < order.FindIndex(one => one.Kind == PolicyKeyKind.Endpoint));
        Assert.True(order.FindLastIndex(one => one.Kind == PolicyKeyKind.Endpoint) < order.FindIndex(one => one.Gone));
        Assert.DoesNotContain(world.Kernel.Keys, key => key.Set == word.Ingress);
    }

    [Fact]
    public void A_pod_whose_labels_are_not_known_is_shut_off_as_soon_as_there_is_a_policy()
    {
        var world = new PolicyWorld();
        world.Engine.SetEndpoint(9, 0x10077);
        world.Turn();
        Assert.True(world.Passes(Client, "80/TCP", endpoint: 9));

        world.Policy(WebFromClient);
        Assert.False(world.Passes(Client, "80/TCP", endpoint: 9));
        world.Pod(0x10077, "tokyo", "shop", "stranger");
        world.Turn();
        Assert.True(world.Passes(Client, "80/TCP", endpoint: 9));
    }

    [Fact]
    public void A_pod_that_runs_has_its_flows_learnt_before_its_first_rules_and_a_new_one_is_judged_at_once()
    {
        var world = new PolicyWorld(learning: TimeSpan.FromSeconds(2));
        world.Policy(WebFromClient);
        Assert.Equal(new EndpointPolicyRow(EndpointPolicyRow.Learning, EndpointPolicyRow.Unenforced, false), world.Kernel[PolicyKey.Endpoint(WebEndpoint)]);
        world.Engine.SetEndpoint(8, Web);
        world.Turn();
        Assert.False(world.Passes(Web, "80/TCP", endpoint: 8));

        // Changing the policy meanwhile does not begin anew.
        world.Time.Advance(TimeSpan.FromSeconds(1));
        world.Policy(WebFromClient.Replace("80", "81", StringComparison.Ordinal));
        Assert.True(world.Passes(Web, "80/TCP"));
        Assert.NotNull(world.Engine.NextDue);
        world.Time.Advance(TimeSpan.FromSeconds(1));
        world.Turn();
        Assert.False(world.Passes(Web, "80/TCP"));
        Assert.True(world.Passes(Client, "81/TCP"));
        Assert.Null(world.Engine.NextDue);

        // Rules that follow rules hold at once.
        world.Policy(WebFromClient);
        Assert.False(world.Passes(Client, "81/TCP"));
    }

    [Fact]
    public void A_trace_names_the_rule_that_decides()
    {
        var world = new PolicyWorld();
        world.Policy(WebFromClient);

        var allowed = PolicyTraceOf(Client, 80);
        var denied = PolicyTraceOf(Web, 80);
        Assert.Equal("allowed by CiliumNetworkPolicy shop/policy spec.ingress[0]", allowed.Reason);
        Assert.Equal(Client, allowed.RowIdentity);
        Assert.Equal("no rule allows it", denied.Reason);
        Assert.Equal((false, true), (denied.Considered[0].MeansPeer, denied.Considered[0].MeansPort));

        Engine.PolicyDecision PolicyTraceOf(uint peer, ushort port) =>
            Engine.PolicyTrace.Trace(world.Engine, PolicyDirection.Ingress, WebEndpoint, peer, 6, port)!;
    }

    [Fact]
    public void A_named_port_means_what_the_pod_itself_calls_so_and_follows_it()
    {
        var world = new PolicyWorld();
        world.Engine.SetEndpoint(8, Web, "shop/web-2");
        world.NamedPorts("shop/web-1", "http:8080/TCP", "http:5353/UDP");
        world.NamedPorts("shop/web-2", "http:9090/TCP", "metrics:8080/TCP");
        world.Policy("""{"endpointSelector": {}, "ingress": [{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}]}""");

        Assert.Empty(Assert.Single(world.Engine.Policies).Unsupported);
        Assert.Equal((true, false, false), (world.Passes(Client, "8080/TCP"), world.Passes(Client, "9090/TCP"), world.Passes(Client, "5353/UDP")));
        Assert.Equal((false, true), (world.Passes(Client, "8080/TCP", endpoint: 8), world.Passes(Client, "9090/TCP", endpoint: 8)));
        var trace = Engine.PolicyTrace.Trace(world.Engine, PolicyDirection.Ingress, WebEndpoint, Client, 6, 8080)!;
        Assert.Equal("http(8080)/TCP", Assert.Single(trace.Rule!.Ports!).ToString());

        // The pod says otherwise, then nothing: the name allows nothing.
        world.NamedPorts("shop/web-1", "http:8081/TCP");
        Assert.Equal((false, true), (world.Passes(Client, "8080/TCP"), world.Passes(Client, "8081/TCP")));
        world.NamedPorts("shop/web-1");
        Assert.False(world.Passes(Client, "8081/TCP"));
        Assert.True(world.Passes(Client, "9090/TCP", endpoint: 8));
    }

    [Fact]
    public void Where_a_pod_speaks_a_named_port_means_what_any_pod_calls_so()
    {
        var world = new PolicyWorld();
        world.Policy("""{"endpointSelector": {}, "egress": [{"toEntities": ["all"], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}]}""");
        Assert.False(world.Passes(Client, "8080/TCP", PolicyDirection.Egress));
        world.NamedPorts("shop/client-1", "http:8080/TCP");
        world.NamedPorts("other/client-2", "http:9090/TCP");
        Assert.Equal((true, true, false), (world.Passes(Client, "8080/TCP", PolicyDirection.Egress), world.Passes(Client, "9090/TCP", PolicyDirection.Egress),
            world.Passes(Client, "80/TCP", PolicyDirection.Egress)));
        world.NamedPorts("shop/client-1");
        Assert.False(world.Passes(Client, "8080/TCP", PolicyDirection.Egress));
    }

    [Fact]
    public void A_named_port_that_nobody_has_is_denied_to_others_as_every_port_and_to_oneself_as_none()
    {
        var world = new PolicyWorld();
        world.Policy("""
            {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}], "egress": [{"toEntities": ["all"]}],
             "ingressDeny": [{"fromEntities": ["all"], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}],
             "egressDeny": [{"toEntities": ["all"], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}]}
            """);
        Assert.True(world.Passes(Client, "80/TCP"));
        Assert.Equal((false, true), (world.Passes(Client, "80/TCP", PolicyDirection.Egress), world.Passes(Client, "80/UDP", PolicyDirection.Egress)));
        world.NamedPorts("shop/web-1", "http:8080/TCP");
        Assert.Equal((true, false), (world.Passes(Client, "80/TCP"), world.Passes(Client, "8080/TCP")));
        Assert.Equal((true, false), (world.Passes(Client, "80/TCP", PolicyDirection.Egress), world.Passes(Client, "8080/TCP", PolicyDirection.Egress)));
    }

    [Theory]
    [InlineData("""{"ingress": []}""", "spec.endpointSelector is missing")]
    [InlineData("""{"endpointSelector": {}, "ingres": []}""", "spec.ingres is not known")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"fromEndpoint": []}]}""", "spec.ingress[0].fromEndpoint is not known")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"fromCIDR": ["10.0.0.0/40"]}]}""", "fromCIDR[0] '10.0.0.0/40' is not an address range")]
    [InlineData("""{"endpointSelector": {}, "egress": [{"toCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]}]}""", "must lie within 10.0.0.0/8")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"fromEntities": ["wrold"]}]}""", "spec.ingress[0].fromEntities[0] 'wrold' must be one of")]
    [InlineData("""{"endpointSelector": {}, "egress": [{"toPorts": [{"ports": [{"port": "70000"}]}]}]}""", "toPorts[0].ports[0].port 70000 must be 1 to 65535")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "80", "endPort": 79}]}]}]}""", "endPort 79 must be 80 to 65535")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "80", "protocol": "TPC"}]}]}]}""", "protocol 'TPC' must be")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"toPorts": [{}]}]}""", "spec.ingress[0].toPorts[0].ports is empty")]
    [InlineData("""{"endpointSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}""", "operator 'Is' must be In, NotIn, Exists or DoesNotExist")]
    [InlineData("""{"endpointSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "other"}}}""", "selects another namespace")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "web http"}]}]}]}""",
        "port 'web http' must be 1 to 65535, or the name")]
    [InlineData("""{"endpointSelector": {}, "ingress": [{"toPorts": [{"ports": [{"port": "http", "endPort": 90}]}]}]}""",
        "endPort needs a number to begin with, not the name 'http'")]
    [InlineData("""{"nodeSelector": {}}""", "spec.nodeSelector: policies for nodes are not done")]
    public void A_policy_that_cannot_be_one_is_refused_by_field(string spec, string message) =>
        Assert.Contains(message, Assert.Throws<PolicyFaultException>(() => PolicyReading.Of(Cilium(spec))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("""{"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{}]}}]}""", "spec.ingress[0].toPorts[0].rules")]
    [InlineData("""{"fromEndpoints": [{}], "authentication": {"mode": "required"}}""", "spec.ingress[0].authentication")]
    [InlineData("""{"fromRequires": [{}], "fromEndpoints": [{}]}""", "spec.ingress[0].fromRequires")]
    [InlineData("""{"fromGroups": [{}]}""", "spec.ingress[0].fromGroups")]
    [InlineData("""{"fromCIDRSet": [{"cidrGroupRef": "x"}]}""", "spec.ingress[0].fromCIDRSet[0].cidrGroupRef")]
    public void What_is_not_done_is_told_and_allows_nothing(string rule, string field)
    {
        var world = new PolicyWorld();
        world.Policy($$"""{"endpointSelector": {}, "ingress": [{{rule}}]}""");

        Assert.Contains(field, Assert.Single(Assert.Single(world.Engine.Policies).Unsupported), StringComparison.Ordinal);
        Assert.False(world.Passes(Client, "80/TCP"));
    }

    [Theory]
    [InlineData("""{"toServices": [{}]}""")]
    [InlineData("""{"toCIDRSet": [{"cidrGroupRef": "x"}], "toPorts": [{"ports": [{"port": "80"}]}]}""")]
    public void What_is_not_done_in_a_deny_rule_denies_everybody(string rule)
    {
        var world = new PolicyWorld();
        world.Policy($$"""{"endpointSelector": {}, "egress": [{"toEntities": ["all"]}], "egressDeny": [{{rule}}]}""");

        Assert.Single(Assert.Single(world.Engine.Policies).Unsupported);
        Assert.False(world.Passes(Client, "80/TCP", PolicyDirection.Egress));
    }
}
