using Mesh.AgentApi;
using Mesh.Lab.Making;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;
using Mesh.Lab.Processes;
using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>Three clusters as one mesh, end to end: what a client in osaka notices when things change and break.</summary>
[Collection("one lab at a time")]
public sealed partial class MeshTests(LiveLab lab) : IClassFixture<LiveLab>
{
    private static IEnumerable<string> Clusters(IEnumerable<LoadResult> results) =>
        results.Select(r => r.Cluster).OfType<string>().Distinct().Order(StringComparer.Ordinal);

    private static string FirstFailure(IReadOnlyList<LoadResult> results) =>
        results.FirstOrDefault(r => r.Error is not null) is { } failed
            ? $"{results.Count(r => r.Error is not null)} of {results.Count} failed, first to {failed.Target}: {failed.Error}" : "";

    public static TheoryData<string, bool> Traffic => new() { { "IPv4", false }, { "IPv6", false }, { "IPv4", true }, { "IPv6", true } };

    [Theory]
    [MemberData(nameof(Traffic))]
    public async Task Every_cluster_answers(string family, bool udp)
    {
        var port = udp ? 53 : 80;
        var target = family == "IPv4" ? $"{lab.Osaka.ServiceIPv4}:{port}" : $"[{lab.Osaka.ServiceIPv6}]:{port}";
        string[] arguments = ["--target", target, "--count", "200", "--rate", "500", .. udp ? new[] { "--udp" } : []];
        await using var load = LoadRun.Start(lab.Plan, LiveLab.Client, arguments);
        var results = await load.EndAsync(LiveLab.Cancel);
        Assert.Equal("", FirstFailure(results));
        Assert.Equal(["nagoya", "osaka", "tokyo"], Clusters(results));
    }

    [Fact]
    public async Task No_agent_rejects_a_manifest_or_a_record()
    {
        foreach (var node in lab.Plan.Nodes)
        {
            using var agent = new AgentClient(node.Socket, node.Name);
            var status = await agent.GetStatusAsync(LiveLab.Cancel);
            Assert.Empty(status.Mesh?.SourceProblems ?? []);
            Assert.Empty(status.Mesh?.ConfigProblems ?? []);
            Assert.DoesNotContain(status.Mesh?.Rejections ?? [], r => r.Rejected > 0);
        }
    }

    [Fact]
    public async Task Backends_that_leave_are_no_longer_asked_and_come_back()
    {
        await using var load = lab.Load();
        await LiveLab.UntilAsync(() => Clusters(load.Snapshot()).Contains("tokyo"), "tokyo answers");
        var change = LiveLab.Now;
        Manifests.SetBackends(lab.Tokyo, false);
        try
        {
            await LiveLab.UntilAsync(() => LiveLab.Now - change > 1000
                && !load.Snapshot().Any(r => r.Cluster == "tokyo" && r.At > LiveLab.Now - 500), "tokyo is left alone");
        }
        finally
        {
            Manifests.SetBackends(lab.Tokyo, true);
        }
        var returned = LiveLab.Now;
        await LiveLab.UntilAsync(() => load.Snapshot().Any(r => r.Cluster == "tokyo" && r.At > returned), "tokyo answers again");
        Assert.Equal("", FirstFailure(await load.StopAsync(LiveLab.Cancel)));
    }

    [Fact]
    public async Task Losing_a_control_plane_loses_no_request()
    {
        await using var load = lab.Load();
        await LiveLab.RequestsAsync(load, 50);
        await LabFaults.CutControlPlaneAsync(lab.Plan, lab.Tokyo, cut: true, LiveLab.Cancel);
        var cut = LiveLab.Now;
        try
        {
            await LiveLab.RequestsAsync(load, 600);
            Assert.Contains(load.Snapshot(), r => r.Cluster == "tokyo" && r.At > cut + 1000);
        }
        finally
        {
            await LabFaults.CutControlPlaneAsync(lab.Plan, lab.Tokyo, cut: false, CancellationToken.None);
        }
        Assert.Equal("", FirstFailure(await load.StopAsync(LiveLab.Cancel)));
        await lab.MeshAsync();
    }

    /// <summary>The control of the test above: were the data path cut too, requests would be lost, and the load would show it.</summary>
    [Fact]
    public async Task Losing_a_node_loses_the_requests_that_go_there()
    {
        await using var load = LoadRun.Start(lab.Plan, LiveLab.Client, [.. lab.HttpTargets, "--rate", "200", "--timeout", "500ms"]);
        await LiveLab.RequestsAsync(load, 50);
        Assert.Equal("", FirstFailure(load.Snapshot()));
        await LabFaults.CutNodeAsync(lab.Plan, lab.Tokyo.Nodes[0], cut: true, LiveLab.Cancel);
        try
        {
            await LiveLab.UntilAsync(() => load.Snapshot().Any(r => r.Error is not null), "a request is lost");
        }
        finally
        {
            await LabFaults.CutNodeAsync(lab.Plan, lab.Tokyo.Nodes[0], cut: false, CancellationToken.None);
        }
        await load.StopAsync(LiveLab.Cancel);
        await lab.MeshAsync();
    }

    [Theory]
    [InlineData("keeper")]
    [InlineData("keeper-twin")]
    [InlineData("tokyo-apiserver")]
    [InlineData("osaka-1-agent")]
    [InlineData("nagoya-1-rebel-base-1-1")]
    public async Task A_killed_process_runs_again(string name)
    {
        var before = lab.Running(name);
        Assert.NotNull(before);
        before.Kill();
        await LiveLab.UntilAsync(() => lab.Running(name) is { } now && now != before, $"{name} runs again");
        await lab.MeshAsync();
    }

    [Fact]
    public async Task A_killed_etcd_runs_again()
    {
        var before = LabEtcd.Process(lab.Plan, lab.Tokyo);
        Assert.NotNull(before);
        before.Kill();
        await LiveLab.UntilAsync(() => LabEtcd.Process(lab.Plan, lab.Tokyo) is { } now && now != before, "etcd runs again");
        await lab.MeshAsync();
    }

    [Fact]
    public async Task Killing_every_agent_loses_no_request()
    {
        await using var load = lab.Load();
        await LiveLab.RequestsAsync(load, 50);
        var agents = lab.Plan.Nodes.ToDictionary(n => $"{n.Name}-agent", n => lab.Running($"{n.Name}-agent"));
        foreach (var agent in agents.Values)
            agent!.Kill();
        await LiveLab.UntilAsync(() => agents.All(a => lab.Running(a.Key) is { } now && now != a.Value), "all agents run again");
        await lab.MeshAsync();
        await LiveLab.RequestsAsync(load, 100);
        Assert.Equal("", FirstFailure(await load.StopAsync(LiveLab.Cancel)));
    }

    /// <summary>With the keepers gone too, the agents stay dead: the kernel alone carries the traffic, and the maps can still be read.</summary>
    [Fact]
    public async Task With_every_agent_dead_traffic_flows_and_the_kernel_can_be_asked()
    {
        string[] dead = ["keeper", "keeper-twin", .. lab.Plan.Nodes.Select(n => $"{n.Name}-agent")];
        try
        {
            // A keeper that dies may have just sent for its twin: they are dead when none has come back for a second.
            var quietSince = LiveLab.Now;
            await LiveLab.UntilAsync(() =>
            {
                foreach (var running in dead.Select(lab.Running).OfType<ProcessReference>())
                {
                    running.Kill();
                    quietSince = LiveLab.Now;
                }
                return LiveLab.Now - quietSince > 1000;
            }, "keepers and agents are dead");
            await using var load = LoadRun.Start(lab.Plan, LiveLab.Client, [.. lab.HttpTargets, "--rate", "400", "--count", "400"]);
            var results = await load.EndAsync(LiveLab.Cancel);
            Assert.Equal("", FirstFailure(results));
            Assert.Equal(["nagoya", "osaka", "tokyo"], Clusters(results));

            var lb = await lab.MeshAsync("bpf", "lb", "list", "--context", $"{LiveLab.Name}/osaka/1");
            Assert.Equal((0, ""), (lb.Code, lb.Error));
            Assert.Contains($"{lab.Osaka.ServiceIPv4}:80/TCP", lb.Output, StringComparison.Ordinal);
            Assert.Contains($"{lab.Tokyo.Nodes[0].Pods[0].IPv4}:8080/TCP", lb.Output, StringComparison.Ordinal);
            var ipcache = await lab.MeshAsync("bpf", "ipcache", "list", "--context", $"{LiveLab.Name}/osaka/1");
            Assert.Contains($"{lab.Tokyo.Nodes[0].Pods[0].IPv6}/128", ipcache.Output, StringComparison.Ordinal);
            var tunnels = await lab.MeshAsync("bpf", "tunnel", "list", "--context", $"{LiveLab.Name}/osaka/1");
            Assert.Contains($"{lab.Tokyo.Nodes[0].Ip}:0", tunnels.Output, StringComparison.Ordinal);

            var status = await lab.MeshAsync("clustermesh", "status", "--context", $"{LiveLab.Name}/osaka");
            Assert.Equal(1, status.Code);
            Assert.Contains("unable to determine status of node \"osaka-1\"", status.Output, StringComparison.Ordinal);
        }
        finally
        {
            using var keeper = Spawn.Start(lab.Plan, lab.Plan.Processes[0], lab.Plan.Processes[0].Program);
        }
        await lab.MeshAsync();
    }

    [Fact]
    public async Task Status_says_connected_and_no_answer_holds_a_key()
    {
        var text = await lab.MeshAsync("clustermesh", "status", "--context", $"{LiveLab.Name}/osaka", "--wait", "--wait-duration", "20s");
        Assert.Equal((0, ""), (text.Code, text.Error));
        Assert.Contains("✅ All 2 nodes are connected to all clusters [min:2 / avg:2.0 / max:2]", text.Output, StringComparison.Ordinal);

        var secrets = Directory.EnumerateFiles(lab.Plan.Root, "*.key", SearchOption.AllDirectories).SelectMany(Secrets).ToList();
        Assert.NotEmpty(secrets);
        foreach (var command in new[]
        {
            $"clustermesh status --context {LiveLab.Name}/osaka -o json", $"status --context {LiveLab.Name}/osaka/1 -o json",
            $"lab info --name {LiveLab.Name} -o json", $"service list --context {LiveLab.Name}/osaka/1 -o json",
        })
        {
            var answer = await lab.MeshAsync(command.Split(' '));
            Assert.Equal((0, ""), (answer.Code, answer.Error));
            Assert.DoesNotContain(secrets, secret => answer.Output.Contains(secret, StringComparison.Ordinal));
            using var _ = System.Text.Json.JsonDocument.Parse(answer.Output);
        }

        // A line of the PEM as it is, and of the base64 that a Kubernetes secret would hold.
        static IEnumerable<string> Secrets(string file)
        {
            var pem = File.ReadAllText(file);
            yield return pem.Split('\n')[1];
            yield return Convert.ToBase64String(System.Text.Encoding.UTF8.GetBytes(pem))[40..100];
        }
    }

    [Fact]
    public async Task Exec_runs_in_the_place_and_passes_the_exit_code_through()
    {
        var (code, output, _) = await lab.MeshAsync("lab", "exec", "--name", LiveLab.Name, "osaka/1/2", "--",
            "sh", "-c", "ip -o -4 addr show eth0; tail -1 /proc/self/cgroup; exit 7");
        Assert.Equal(7, code);
        Assert.Contains(lab.Osaka.Nodes[0].Pods[1].IPv4, output, StringComparison.Ordinal);
        Assert.EndsWith($"mesh-lab-{LiveLab.Name}/osaka-1/rebel-base-1-2\n", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_lab_beside_the_first_disturbs_nobody()
    {
        await using var load = lab.Load();
        await LiveLab.RequestsAsync(load, 50);
        var second = await LabUp.RunAsync(new LabSpec("labtwo", 2, 1, 1), _ => { }, LiveLab.Cancel);
        try
        {
            await using var own = LoadRun.Start(second, "osaka/1/1", "--target", $"{second.Clusters[1].ServiceIPv4}:80", "--count", "50");
            var answers = await own.EndAsync(LiveLab.Cancel);
            Assert.Equal("", FirstFailure(answers));
            Assert.Equal(["osaka", "tokyo"], Clusters(answers));
            var ambiguous = await lab.MeshAsync("node", "list", "--context", "osaka");
            Assert.Equal(1, ambiguous.Code);
            // There may be more labs on this machine than these two.
            Assert.Contains("'osaka' is in several labs: choose with --context one of ", ambiguous.Error, StringComparison.Ordinal);
            Assert.All([LiveLab.Name, "labtwo"], name => Assert.Contains($" {name}/osaka", ambiguous.Error, StringComparison.Ordinal));
            var plain = await lab.MeshAsync("node", "list", "--context", "labtwo/osaka");
            Assert.Equal((0, ""), (plain.Code, plain.Error));
        }
        finally
        {
            await LabDown.RunAsync(second, CancellationToken.None);
        }
        Assert.Equal("", FirstFailure(await load.StopAsync(LiveLab.Cancel)));
        await lab.MeshAsync();
    }
}
