using System.Text.Json.Nodes;

namespace Mesh.Cli.Reachability;

/// <summary>What stands in the clusters once everything is deployed: all that the tests are made of.</summary>
/// <param name="Clusters">Names: the source first, then, with --multi-cluster, the destination.</param>
/// <param name="Clients">client and client2.</param>
/// <param name="SameNode">echo-same-node, on the clients' node.</param>
/// <param name="OtherNode">echo-other-node: in the destination cluster, or on another node; null in a cluster of one node.</param>
/// <param name="SameService">Virtual addresses of the service echo-same-node in the source cluster.</param>
/// <param name="OtherService">Those of echo-other-node, in the source cluster too.</param>
/// <param name="NodePort">The node port of echo-same-node.</param>
/// <param name="NodeAddresses">Addresses of all nodes of the source cluster.</param>
/// <param name="KubeProxyReplacement">Node ports are ours.</param>
/// <param name="DefaultLocal">A selector that names no cluster means the own one.</param>
/// <param name="EndpointSync">Slices of headless global services are mirrored.</param>
internal sealed record KubeFacts(string Namespace, IReadOnlyList<string> Clusters, IReadOnlyList<Workload> Clients, Workload SameNode,
    Workload? OtherNode, IReadOnlyList<string> SameService, IReadOnlyList<string> OtherService, int NodePort, IReadOnlyList<string> NodeAddresses,
    bool KubeProxyReplacement, bool DefaultLocal, bool EndpointSync)
{
    public bool IsMultiCluster => Clusters.Count > 1;

    public IReadOnlyList<Workload> Echoes => OtherNode is { } other ? [SameNode, other] : [SameNode];

    public bool IsRemote(Workload one) => one.Cluster != Clusters[0];
}

/// <summary>The tests on Kubernetes: names and meanings are those of Cilium's connectivity test.</summary>
internal static class KubeSuite
{
    private const string OnlyMulti = "needs --multi-cluster";

    /// <summary>A TCP port on which the pods answer as well, and that no policy here allows.</summary>
    private const int OtherPort = 5353;

    /// <summary>Names of all tests, in their order.</summary>
    public static readonly IReadOnlyList<string> Names =
    [
        "no-policies", "no-policies-extra", "clustermesh-endpointslice-sync", "all-ingress-deny", "all-ingress-deny-knp", "client-ingress",
        "client-ingress-knp", "echo-ingress", "echo-ingress-knp", "client-egress", "client-egress-knp", "cluster-entity", "cluster-entity-multi-cluster",
    ];

    /// <param name="wanted">Names; empty for all.</param>
    /// <exception cref="CliException">One of them is no test; says which there are.</exception>
    public static void Require(IReadOnlyList<string> wanted)
    {
        if (wanted.FirstOrDefault(name => !Names.Contains(name)) is { } unknown)
            throw new CliException($"--test {unknown}: there is no such test; there are {string.Join(", ", Names)}");
    }

    public static IReadOnlyList<ConnectivityTest> Build(KubeFacts facts)
    {
        var policies = new TestPolicies(facts);
        var tests = new Dictionary<string, ConnectivityTest>();
        void Add(string name, IReadOnlyList<Scenario> scenarios, IReadOnlyList<JsonObject> under, string? skip = null) =>
            tests.Add(name, new ConnectivityTest(name, scenarios, under, skip));

        Add("no-policies",
        [
            PodToPod(facts), ClientToClient(facts), ToService(facts), ToRemoteService(facts),
            new Scenario("pod-to-headless-service", [.. Numbered(facts.Clients, (number, client) => Actions.ToAddresses(number, client,
                "service", [$"echo-same-node-headless.{facts.Namespace}.svc"], Actions.Port, Expectation.Answer(facts.SameNode.Role)))]),
        ], []);
        Add("no-policies-extra",
        [
            new Scenario("pod-to-nodeport", [.. Numbered(facts.Clients, (number, client) => Actions.ToAddresses(number, client,
                "node port of echo-same-node", facts.NodeAddresses, facts.NodePort, Expectation.Answer(facts.SameNode.Role)))]),
        ], [], facts.KubeProxyReplacement ? null : "node ports are kube-proxy's: kube-proxy-replacement is not true");
        Add("clustermesh-endpointslice-sync",
        [
            new Scenario("pod-to-headless-service", [.. Numbered(facts.Clients, (number, client) => Actions.ToAddresses(number, client,
                "service", [$"echo-other-node-headless.{facts.Namespace}.svc"], Actions.Port, Expectation.Answer(facts.OtherNode?.Role ?? "")))]),
        ], [], !facts.IsMultiCluster ? OnlyMulti : facts.EndpointSync ? null : "clustermesh-enable-endpoint-sync is not true");

        Add("all-ingress-deny", [PodToPod(facts, _ => false), ClientToClient(facts, _ => false)], [policies.AllIngressDeny()]);
        Add("all-ingress-deny-knp", [PodToPod(facts, _ => false), ClientToClient(facts, _ => false)], [policies.AllIngressDenyKnp()]);
        Add("client-ingress", [ClientToClient(facts, pair => pair.From.Role == "client2")], [policies.ClientIngress()]);
        Add("client-ingress-knp", [ClientToClient(facts, pair => pair.From.Role == "client2")], [policies.ClientIngressKnp()]);
        Add("echo-ingress", [PodToPod(facts, pair => pair.From.Role == "client2")], [policies.EchoIngress()]);
        // Kubernetes' own policies have no word for another cluster.
        Add("echo-ingress-knp", [PodToPod(facts, pair => pair.From.Role == "client2" && !(facts.DefaultLocal && facts.IsRemote(pair.To)))],
            [policies.EchoIngressKnp()]);
        Add("client-egress", [PodToPod(facts), ToAnotherPort(facts), ClientToClient(facts, _ => false)], [policies.ClientEgress()]);
        Add("client-egress-knp",
            [PodToPod(facts, pair => !(facts.DefaultLocal && facts.IsRemote(pair.To))), ToAnotherPort(facts), ClientToClient(facts, _ => false)],
            [policies.ClientEgressKnp()]);
        Add("cluster-entity", [Between("pod-to-pod", facts.Clients, [facts.SameNode], _ => true), ClientToClient(facts)], [policies.ClusterEntity()]);
        Add("cluster-entity-multi-cluster",
            [Between("pod-to-pod", facts.Clients, facts.OtherNode is { } other ? [other] : [], _ => false)], [policies.ClusterEntity()],
            facts.IsMultiCluster ? null : OnlyMulti);
        return [.. Names.Select(name => tests[name])];
    }

    private static Scenario PodToPod(KubeFacts facts, Func<(Workload From, Workload To), bool>? allowed = null) =>
        Between("pod-to-pod", facts.Clients, facts.Echoes, allowed ?? (_ => true));

    private static Scenario ClientToClient(KubeFacts facts, Func<(Workload From, Workload To), bool>? allowed = null) =>
        Between("client-to-client", facts.Clients, facts.Clients, allowed ?? (_ => true));

    private static Scenario Between(string name, IReadOnlyList<Workload> sources, IReadOnlyList<Workload> targets,
        Func<(Workload From, Workload To), bool> allowed) =>
        new(name, [.. Numbered(Pairs(sources, targets), (number, pair) => Actions.ToPod(number, pair.From, pair.To,
            allowed(pair) ? null : Expectation.Dropped))]);

    /// <summary>A port that the policy does not name stays shut, though somebody listens there.</summary>
    private static Scenario ToAnotherPort(KubeFacts facts) => new("pod-to-another-port", [.. Numbered(Pairs(facts.Clients, [facts.SameNode]),
        (number, pair) => Actions.ToPod(number, pair.From, pair.To, Expectation.Dropped, OtherPort))]);

    private static Scenario ToService(KubeFacts facts) => new("pod-to-service", [.. Numbered(facts.Clients, (number, client) =>
        Actions.ToAddresses(number, client, "service echo-same-node", facts.SameService, Actions.Port, Expectation.Answer(facts.SameNode.Role))
            .Concat(facts.OtherNode is { } other && !facts.IsMultiCluster ? Actions.ToAddresses(number + facts.Clients.Count, client,
                "service echo-other-node", facts.OtherService, Actions.Port, Expectation.Answer(other.Role)) : []))]);

    private static Scenario ToRemoteService(KubeFacts facts) => new("pod-to-remote-service", [.. Numbered(facts.Clients, (number, client) =>
        Actions.ToAddresses(number, client, "global service echo-other-node", facts.OtherService, Actions.Port,
            Expectation.Answer(facts.OtherNode?.Role ?? "")))], facts.IsMultiCluster ? null : OnlyMulti);

    private static IEnumerable<(Workload From, Workload To)> Pairs(IEnumerable<Workload> sources, IReadOnlyList<Workload> targets) =>
        from source in sources
        from target in targets
        where source.Name != target.Name
        select (source, target);

    private static IEnumerable<TestAction> Numbered<T>(IEnumerable<T> items, Func<int, T, IEnumerable<TestAction>> actions) =>
        items.SelectMany((item, number) => actions(number, item));
}
