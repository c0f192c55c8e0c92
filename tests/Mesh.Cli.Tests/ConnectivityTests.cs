using System.Text.Json.Nodes;
using Mesh.Cli.Reachability;
using Mesh.Lab.Plan;
using Xunit;
using TestResult = Mesh.Cli.Reachability.TestResult;

namespace Mesh.Cli.Tests;

/// <summary>What `mesh connectivity test` says, and how it judges what came of a request.</summary>
public sealed class ConnectivityTests
{
    private static readonly Workload Client = new("client", "t/client-x", "c1", ["10.1.0.5"]);
    private static readonly Workload Client2 = new("client2", "t/client2-x", "c1", ["10.1.0.6"]);
    private static readonly Workload Same = new("echo-same-node", "t/echo-same-node-y", "c1", ["10.1.0.7", "fd00::7"]);
    private static readonly Workload Other = new("echo-other-node", "t/echo-other-node-y", "c2", ["10.2.0.7"]);

    private static readonly KubeFacts Two = new("t", ["c1", "c2"], [Client, Client2], Same, Other, ["10.96.0.1"], ["10.96.0.2"], 30001,
        ["172.30.0.1"], KubeProxyReplacement: true, DefaultLocal: true, EndpointSync: false);

    private const string Where = "all-ingress-deny/pod-to-pod:curl-ipv4-0: t/client-x (10.1.0.5) -> t/echo-other-node-y (10.2.0.7:8080)";

    private static TestAction Asking(Expectation expected) => Actions.ToPod(0, Client, Other, expected).Single();

    [Theory]
    [InlineData(0, "echo-other-node GET /\n", "", null)]
    [InlineData(0, "echo-same-node GET /\n", "", "answered by echo-same-node, must be an answer of echo-other-node")]
    [InlineData(0, "", "", "answered by nobody, must be an answer of echo-other-node")]
    [InlineData(28, "", "curl: (28) Connection timed out\n",
        "no answer within 10 s, must be an answer of echo-other-node: curl: (28) Connection timed out")]
    [InlineData(7, "", "curl: (7) Couldn't connect", "refused: nobody listens there, or the service has no backends on this node: curl: (7) Couldn't connect")]
    [InlineData(6, "", "curl: (6) no such host", "the name has no address in the cluster's DNS: curl: (6) no such host")]
    [InlineData(127, "", "curl: not found", "there is no curl in the pod's image: curl: not found")]
    public void An_answer_must_come_from_whom_was_asked(int code, string output, string errors, string? expected) =>
        Assert.Equal(expected, Curl.Judge(Asking(Expectation.Answer("echo-other-node")), new CommandOutcome(code, output, errors)));

    /// <summary>A refusal or a missing program is no drop: a policy that is not there must not pass for one.</summary>
    [Theory]
    [InlineData(28, "", null)]
    [InlineData(0, "echo-other-node GET /\n", "answered by echo-other-node, but must be dropped")]
    [InlineData(7, "", "refused, but must be dropped: it said nothing")]
    [InlineData(127, "", "ended with 127 and not by a drop: it said nothing")]
    public void A_drop_is_a_silence_and_nothing_else(int code, string output, string? expected) =>
        Assert.Equal(expected, Curl.Judge(Asking(Expectation.Dropped), new CommandOutcome(code, output, "")));

    [Fact]
    public async Task A_run_reads_like_ciliums()
    {
        var stage = new FakeStage(action => new CommandOutcome(0, "echo-other-node GET /\n", ""));
        var (text, results) = await RunAsync(stage,
        [
            new ConnectivityTest("no-policies",
                [new Scenario("pod-to-pod", [Asking(Expectation.Answer("echo-other-node"))]), new Scenario("pod-to-hostport", [], "not here")], []),
            new ConnectivityTest("other", [], [], "needs --multi-cluster"),
        ]);
        Assert.Equal(
            """
            🏃[t] Running 2 tests ...
            [=] [t] Test [no-policies] [1/2]
            [-] Scenario [no-policies/pod-to-pod]
            [.] Action [no-policies/pod-to-pod:curl-ipv4-0: t/client-x (10.1.0.5) -> t/echo-other-node-y (10.2.0.7:8080)]
            [-] Skipping scenario [no-policies/pod-to-hostport] (not here)
            [=] [t] Skipping test [other] [2/2] (needs --multi-cluster)

            ✅ [t] All 1 tests (1 actions) successful, 1 tests skipped, 1 scenarios skipped.

            """, text);
        Assert.All(results, result => Assert.Empty(result.Failures));
        Assert.Equal("curl --silent --show-error --fail --noproxy * --connect-timeout 10 --max-time 10 http://10.2.0.7:8080/", stage.Commands.Single());
    }

    [Fact]
    public async Task A_failed_action_is_told_twice_and_ends_nothing()
    {
        var policy = new TestPolicies(Two).AllIngressDeny();
        var stage = new FakeStage(_ => new CommandOutcome(0, "echo-other-node GET /\n", ""));
        var (text, results) = await RunAsync(stage,
        [
            new ConnectivityTest("all-ingress-deny", [new Scenario("pod-to-pod", [Asking(Expectation.Dropped)])], [policy]),
            new ConnectivityTest("no-policies", [new Scenario("pod-to-pod", [Asking(Expectation.Answer("echo-other-node"))])], []),
        ]);
        Assert.EndsWith(
            $"""
            📋 Test Report [t]
            ❌ [t] 1/2 tests failed (1/2 actions), 0 tests skipped, 0 scenarios skipped:
            Test [all-ingress-deny]:
              ❌ {Where}: answered by echo-other-node, but must be dropped
            📦 [t] Logs, maps and events of the failures are in DIR

            """, text, StringComparison.Ordinal);
        Assert.Single(results[0].Failures);
        // Collected while the policy still held, which went away all the same.
        Assert.Equal(["apply all-ingress-deny", "run", "collect DIR/all-ingress-deny", "withdraw all-ingress-deny", "run"], stage.Steps);
    }

    [Fact]
    public async Task Policies_that_do_not_come_into_force_fail_the_test_and_are_withdrawn()
    {
        var stage = new FakeStage(_ => throw new InvalidOperationException("must not be asked"))
        {
            ApplyFault = new CliException("not so after 120 s: c1/cilium-1: it does not know policy t/all-ingress-deny yet"),
        };
        var (_, results) = await RunAsync(stage,
        [
            new ConnectivityTest("all-ingress-deny", [new Scenario("pod-to-pod", [Asking(Expectation.Dropped)])], [new TestPolicies(Two).AllIngressDeny()]),
        ]);
        Assert.Equal("not so after 120 s: c1/cilium-1: it does not know policy t/all-ingress-deny yet", results[0].Failures.Single().Reason);
        Assert.Equal(["apply all-ingress-deny", "collect DIR/all-ingress-deny", "withdraw all-ingress-deny"], stage.Steps);
    }

    [Fact]
    public void In_two_clusters_the_entity_cluster_means_the_own_one()
    {
        var tests = KubeSuite.Build(Two).ToDictionary(test => test.Name);
        Assert.Equal(KubeSuite.Names, KubeSuite.Build(Two).Select(test => test.Name));
        var remote = tests["cluster-entity-multi-cluster"];
        Assert.Null(remote.SkipReason);
        Assert.All(remote.Scenarios.Single().Actions, action => Assert.True(action.Expected.IsDropped));
        Assert.Equal(["10.2.0.7:8080", "10.2.0.7:8080"], remote.Scenarios.Single().Actions.Select(action => action.Target));
        Assert.All(tests["cluster-entity"].Scenarios.SelectMany(scenario => scenario.Actions), action => Assert.False(action.Expected.IsDropped));
        Assert.Equal("""{"toEntities":["cluster"]}""", remote.Policies.Single()["spec"]!["egress"]![0]!.ToJsonString());
    }

    [Fact]
    public void A_selector_without_a_cluster_reaches_the_other_one_only_where_that_is_so_configured()
    {
        static IEnumerable<(string Target, bool Dropped)> Of(KubeFacts facts) => KubeSuite.Build(facts).First(test => test.Name == "client-egress-knp")
            .Scenarios.First(scenario => scenario.Name == "pod-to-pod").Actions.Where(action => action.From == Client)
            .Select(action => (action.Target, action.Expected.IsDropped));

        Assert.Equal([("10.1.0.7:8080", false), ("10.2.0.7:8080", true)], Of(Two));
        Assert.Equal([("10.1.0.7:8080", false), ("10.2.0.7:8080", false)], Of(Two with { DefaultLocal = false }));
        Assert.Contains("""{"key":"io.cilium.k8s.policy.cluster","operator":"In","values":["c1","c2"]}""",
            KubeSuite.Build(Two).First(test => test.Name == "client-egress").Policies.Single().ToJsonString(), StringComparison.Ordinal);
    }

    [Fact]
    public void In_one_cluster_what_needs_two_is_skipped_and_says_so()
    {
        var one = Two with { Clusters = ["c1"], OtherNode = null, KubeProxyReplacement = false };
        Assert.Equal(
        [
            "no-policies-extra: node ports are kube-proxy's: kube-proxy-replacement is not true",
            "clustermesh-endpointslice-sync: needs --multi-cluster", "cluster-entity-multi-cluster: needs --multi-cluster",
        ], KubeSuite.Build(one).Where(test => test.SkipReason is not null).Select(test => $"{test.Name}: {test.SkipReason}"));
        Assert.Equal("needs --multi-cluster", KubeSuite.Build(one)[0].Scenarios.First(scenario => scenario.Name == "pod-to-remote-service").SkipReason);
    }

    [Fact]
    public void Addresses_are_asked_in_the_families_that_both_sides_have()
    {
        var both = Client with { Addresses = ["10.1.0.5", "fd00::5"] };
        Assert.Equal(["curl-ipv4-3 10.1.0.7:8080", "curl-ipv6-3 [fd00::7]:8080"],
            Actions.ToPod(3, both, Same).Select(action => $"{action.Name} {action.Target}"));
        Assert.Equal("t/client-x (fd00::5) -> t/echo-same-node-y ([fd00::7]:8080)", $"{Actions.ToPod(3, both, Same).Last()}");
        Assert.Equal(["curl-ipv4-3 10.1.0.7:8080"], Actions.ToPod(3, Client, Same).Select(action => $"{action.Name} {action.Target}"));
        Assert.Equal(["curl-name-0 echo.t.svc:8080"],
            Actions.ToAddresses(0, Client, "service", ["echo.t.svc"], 8080, Expectation.Answer("e")).Select(action => $"{action.Name} {action.Target}"));
    }

    [Theory]
    [InlineData(true, "p", 7, null)]
    [InlineData(true, "q", 7, "it does not know policy t/q yet")]
    [InlineData(true, "p", 8, "its policies are still of revision 8")]
    [InlineData(false, "p", 7, "it still holds policy t/p")]
    [InlineData(false, "q", 7, null)]
    public void An_agent_holds_a_policy_by_its_list_and_a_new_revision(bool held, string name, long before, string? expected) => Assert.Equal(expected,
        PolicyState.NotYet("""{"policy":"[{\"kind\":\"CiliumNetworkPolicy\",\"namespace\":\"t\",\"name\":\"p\"}]","revision":8}""", "t", [name], held, before));

    [Theory]
    [InlineData(4, 4, "ready", null)]
    [InlineData(3, 4, "ready", "t/client-x has policies of revision 3 in the kernel, not yet 4")]
    [InlineData(4, 4, "waiting-for-identity", "t/client-x has no identity yet")]
    public void A_policy_holds_when_every_endpoint_has_it_in_the_kernel(long realized, long wanted, string state, string? expected) => Assert.Equal(expected,
        PolicyState.NotRealized(new JsonArray(new JsonObject
        {
            ["id"] = 7,
            ["status"] = new JsonObject
            {
                ["external-identifiers"] = new JsonObject { ["pod-name"] = "t/client-x" },
                ["state"] = state,
                ["policy"] = new JsonObject
                {
                    ["realized"] = new JsonObject { ["policy-revision"] = realized },
                    ["spec"] = new JsonObject { ["policy-revision"] = wanted },
                },
            },
        }).ToJsonString()));

    [Fact]
    public void A_service_waits_for_the_backend_of_the_very_pod()
    {
        const string answer = """
            [{"spec":{"id":1,"frontend-address":{"ip":"10.96.0.2","port":8080},"backend-addresses":[{"ip":"10.2.0.7","port":8080}]}}]
            """;
        Assert.Null(ServiceState.MissingBackend(answer, ["10.96.0.2"], Other));
        Assert.Equal("service 10.96.0.2:8080 has no backend t/echo-same-node-y (10.1.0.7, fd00::7) yet",
            ServiceState.MissingBackend(answer, ["10.96.0.2"], Same));
        Assert.StartsWith("what it says of its services cannot be read", ServiceState.MissingBackend("half [", ["10.96.0.2"], Other), StringComparison.Ordinal);
        Assert.Equal("it does not know t/echo-same-node-y (fd00::7) yet",
            ServiceState.UnknownAddress("""[{"cidr":"10.1.0.7/32","identity":1}]""", [Same]));
    }

    [Fact]
    public void A_pod_that_does_not_start_says_why() => Assert.Equal("client-x is ErrImagePull no such host", PodState.Why((JsonObject)JsonNode.Parse(
        """
        {"metadata":{"name":"client-x"},"status":{"phase":"Pending",
         "containerStatuses":[{"state":{"waiting":{"reason":"ErrImagePull","message":"no such host"}}}]}}
        """)!));

    [Fact]
    public void Only_nodes_that_take_pods_are_chosen() => Assert.Equal(["a", "c"], TestNode.Suitable(
        new[]
        {
            """{"metadata":{"name":"c"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}""",
            """{"metadata":{"name":"a"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}""",
            """{"metadata":{"name":"b"},"status":{"conditions":[{"type":"Ready","status":"False"}]}}""",
            """{"metadata":{"name":"d"},"spec":{"unschedulable":true},"status":{"conditions":[{"type":"Ready","status":"True"}]}}""",
            """{"metadata":{"name":"e"},"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]},"status":{"conditions":[{"type":"Ready","status":"True"}]}}""",
        }.Select(text => (JsonObject)JsonNode.Parse(text)!)).Select(node => node.Name));

    [Fact]
    public void In_a_lab_no_pod_asks_itself_and_every_cluster_may_answer_for_the_service()
    {
        var plan = LabPlanner.Plan(new LabSpec("lab", 2, 2, 2), new Programs("/bin/a", "/bin/b", "/bin/c"), "/sys/fs/cgroup");
        var scenarios = new LabStage(plan, plan.Clusters[0]).Build([plan.Clusters[1]]).Single().Scenarios;
        Assert.All(scenarios[0].Actions, action => Assert.NotEqual(action.From.Name, action.Expected.AnsweredBy.Single()));
        Assert.Equal([("pod-to-pod", 12), ("pod-to-remote-pod", 8), ("pod-to-service", 4)],
            scenarios.Select(scenario => (scenario.Name, scenario.Actions.Count)));
        Assert.Equal(8, scenarios[^1].Actions[0].Expected.AnsweredBy.Count);
    }

    [Fact]
    public void Junit_has_a_case_for_each_test()
    {
        const string numbers = "tests=\"3\" disabled=\"0\" errors=\"0\" failures=\"1\" skipped=\"1\" time=\"3.500\"";
        var path = Path.Combine(Path.GetTempPath(), $"mesh-junit-{Guid.NewGuid():N}.xml");
        try
        {
            JUnit.Write(path, "t",
            [
                new TestResult("a", 1, [], 0, null, TimeSpan.FromSeconds(1.5)),
                new TestResult("b", 1, [new Failure("pod-to-pod", Asking(Expectation.Dropped), "said \u0001 <this>")], 0, null, TimeSpan.FromSeconds(2)),
                new TestResult("c", 0, [], 0, "needs --multi-cluster", TimeSpan.Zero),
            ], DateTimeOffset.UnixEpoch);
            Assert.Equal(
                $"""
                <?xml version="1.0" encoding="utf-8"?>
                <testsuites {numbers}>
                  <testsuite name="connectivity test" id="0" package="cilium" hostname="t" timestamp="1970-01-01T00:00:00" {numbers}>
                    <testcase name="a" classname="connectivity test" status="passed" time="1.500" />
                    <testcase name="b" classname="connectivity test" status="failed" time="2.000">
                      <failure message="b failed" type="failure">{Where.Replace("all-ingress-deny", "b").Replace(">", "&gt;")}: said � &lt;this&gt;</failure>
                    </testcase>
                    <testcase name="c" classname="connectivity test" status="skipped" time="0.000">
                      <skipped message="needs --multi-cluster" />
                    </testcase>
                  </testsuite>
                </testsuites>
                """, File.ReadAllText(path));
            Assert.Equal((byte)'<', File.ReadAllBytes(path)[0]);
        }
        finally
        {
            File.Delete(path);
        }
    }

    private static async Task<(string Text, IReadOnlyList<TestResult> Results)> RunAsync(FakeStage stage, IReadOnlyList<ConnectivityTest> tests)
    {
        var output = new StringWriter();
        var results = await new SuiteRun(stage, output, "DIR", TimeProvider.System).RunAsync(tests, TestContext.Current.CancellationToken);
        return (output.ToString(), results);
    }

    /// <summary>Answers as it is told to, and remembers what was asked of it.</summary>
    private sealed class FakeStage(Func<IReadOnlyList<string>, CommandOutcome> answer) : IStage
    {
        public List<string> Steps { get; } = [];

        public List<string> Commands { get; } = [];

        public CliException? ApplyFault { get; init; }

        public string Name => "t";

        public Task<CommandOutcome> RunAsync(Workload from, IReadOnlyList<string> command, CancellationToken cancel)
        {
            Steps.Add("run");
            Commands.Add(string.Join(' ', command));
            return Task.FromResult(answer(command));
        }

        public Task ApplyAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel)
        {
            Note("apply", policies);
            return ApplyFault is null ? Task.CompletedTask : Task.FromException(ApplyFault);
        }

        public Task WithdrawAsync(IReadOnlyList<JsonObject> policies, CancellationToken cancel)
        {
            Note("withdraw", policies);
            return Task.CompletedTask;
        }

        public Task CollectAsync(string directory, CancellationToken cancel)
        {
            Steps.Add($"collect {directory}");
            return Task.CompletedTask;
        }

        private void Note(string what, IReadOnlyList<JsonObject> policies) =>
            Steps.Add($"{what} {string.Join(' ', policies.Select(policy => policy["metadata"]!["name"]))}");
    }
}
