using Mesh.Cli.Contexts;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>What the cilium CLI runs in an agent's pod, argument by argument, and what it reads of it.</summary>
public sealed class CiliumWordsTests
{
    private static readonly Dictionary<string, string> Answers = new(StringComparer.Ordinal)
    {
        ["debuginfo"] = """{"cilium-version":"1.17.0-mesh.0.1.0 mesh-agent"}""",
        ["policy"] = """{"policy":"[]","revision":7}""",
        ["endpoint"] = """[{"id":3,"status":{"state":"ready","policy":{"realized":{"policy-revision":7}}}}]""",
        ["service"] = "[]",
        ["cluster/nodes"] = """{"self":"c1/n1","nodes-added":[{"name":"c1/n1"},{"name":"c2/n1"}],"nodes-removed":[]}""",
        ["healthz"] = """{"cilium":{"state":"Ok","msg":"well"}}""",
        ["config"] = """{"status":{"daemonConfigurationMap":{"BPFRoot":"/sys/fs/bpf/mesh","StateDir":"/var/run/cilium/state"}}}""",
    };

    private static Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments) => RunAsync(Answers, arguments);

    private static async Task<(int Code, string Output, string Error)> RunAsync(IReadOnlyDictionary<string, string> answers, params string[] arguments)
    {
        await using var agent = new StubAgent(answers);
        var (output, error) = (new StringWriter(), new StringWriter());
        var code = await MeshCommand.RunAsync([.. arguments, "-H", agent.Socket], output, error);
        return (code, output.ToString(), error.ToString());
    }

    [Theory]
    [InlineData("1.17.0-mesh.0.1.0\n", "version", "-o", "jsonpath={$.Daemon.Version}")]
    [InlineData("7\n", "policy", "get", "-o", "jsonpath='{.revision}'")]
    [InlineData("7\n", "policy", "get", "-o", "jsonpath={.revision}")]
    [InlineData("", "policy", "wait", "7", "--max-wait-time", "30")]
    [InlineData("", "policy", "wait", "6", "--max-wait-time", "0", "--fail-wait-time", "0", "--sleep-time", "1")]
    [InlineData("ready\n", "endpoint", "list", "-o", "jsonpath={[*].status.state}")]
    [InlineData("c1/n1 c2/n1\n", "node", "list", "-o", "jsonpath={[*].name}")]
    [InlineData("{\n  \"mode\": \"Disabled\"\n}\n", "encrypt", "status", "-o", "json")]
    [InlineData("Encryption: Disabled\n", "encrypt", "status")]
    [InlineData("Ok\n", "status", "-o", "jsonpath={.cilium.state}")]
    [InlineData("cilium:\n  msg: well\n  state: Ok\n", "status", "-o", "yaml")]
    [InlineData("OK\n", "status", "--brief", "--all-health", "--timeout", "5s")]
    [InlineData("ID   Frontend   Service Type   Backend   \n", "service", "list", "--clustermesh-affinity")]
    [InlineData("mesh 0.1.0\nagent 1.17.0-mesh.0.1.0\n", "version")]
    public async Task The_agents_pod_answers(string expected, params string[] arguments) =>
        Assert.Equal((0, expected, ""), await RunAsync(arguments));

    [Fact]
    public async Task A_version_is_told_of_both_programs()
    {
        var (code, output, error) = await RunAsync("version", "-o", "json");
        using var answer = System.Text.Json.JsonDocument.Parse(output);
        Assert.Equal((0, ""), (code, error));
        Assert.Equal("1.17.0-mesh.0.1.0", answer.RootElement.GetProperty("Client").GetProperty("Version").GetString());
        Assert.Equal("1.17.0-mesh.0.1.0", answer.RootElement.GetProperty("Daemon").GetProperty("Version").GetString());
    }

    /// <summary>An agent that has read a policy has not yet written it for every pod; both are waited for.</summary>
    [Theory]
    [InlineData("""{"policy":"[]","revision":7}""", """[{"id":3,"status":{"state":"ready","policy":{"realized":{"policy-revision":7}}}}]""",
        "the agent has read 7; ")]
    [InlineData("""{"policy":"[]","revision":8}""", """[{"id":3,"status":{"external-identifiers":{"pod-name":"a/b"},"state":"not-ready","""
        + """ "policy":{"realized":{"policy-revision":7}}}},{"id":4,"status":{"state":"ready","policy":{"realized":{"policy-revision":8}}}}]""",
        "endpoint 3 (a/b) is not-ready with 7\n")]
    public async Task A_policy_that_does_not_hold_in_time_is_told_with_who_is_late(string policy, string endpoints, string expected)
    {
        var answers = new Dictionary<string, string>(Answers, StringComparer.Ordinal) { ["policy"] = policy, ["endpoint"] = endpoints };
        var (code, output, error) = await RunAsync(answers, "policy", "wait", "8", "--max-wait-time", "0");
        Assert.Equal((1, ""), (code, output));
        Assert.Contains($"revision 8 does not hold after 0 s: {expected}", error, StringComparison.Ordinal);
        answers["policy"] = """{"policy":"[]","revision":9}""";
        answers["endpoint"] = "[]";
        Assert.Equal((0, "", ""), await RunAsync(answers, "policy", "wait", "8", "--max-wait-time", "0"));
    }

    [Fact]
    public async Task Why_a_peer_is_not_connected_is_asked_as_the_hints_say()
    {
        var (code, output, error) = await RunAsync("troubleshoot", "clustermesh", "c2", "--clustermesh-config", Path.GetTempPath());
        Assert.Equal((2, ""), (code, error));
        Assert.StartsWith("Found 1 cluster configurations\n\nCluster \"c2\":\n", output, StringComparison.Ordinal);
    }

    /// <summary>A socket is no file that can be read.</summary>
    [Fact]
    public async Task A_directory_of_something_else_is_named()
    {
        await using var other = new StubAgent(Answers);
        var directory = Path.GetDirectoryName(other.Socket)!;
        var (code, _, error) = await RunAsync("troubleshoot", "clustermesh", "--clustermesh-config", directory);
        Assert.Equal(1, code);
        Assert.StartsWith($"mesh: {directory} cannot be read: ", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Pins_are_where_the_agent_says_unless_its_settings_lie_beside_us()
    {
        await using var agent = new StubAgent(Answers);
        var settings = Directory.CreateTempSubdirectory("settings");
        try
        {
            var node = new ContextNode("", agent.Socket, null) { SettingsDirectory = settings.FullName };
            Assert.Equal(("/sys/fs/bpf/mesh", "/var/run/cilium/state"), (node.FindBpfRoot(), node.FindStateDirectory()));
            await File.WriteAllTextAsync(Path.Combine(settings.FullName, "bpf-root"), "/sys/fs/bpf/other", TestContext.Current.CancellationToken);
            Assert.Equal("/sys/fs/bpf/other", node.FindBpfRoot());
            Assert.Equal("/sys/fs/bpf/other", (node with { Socket = "/nowhere" }).FindBpfRoot());
            Assert.Contains("give its --state-dir (agent does not answer on /nowhere",
                Assert.Throws<CliException>(() => (node with { Socket = "/nowhere" }).FindStateDirectory()).Message, StringComparison.Ordinal);
        }
        finally
        {
            settings.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task A_list_of_the_kernels_maps_finds_their_pins_by_itself()
    {
        // There is nothing pinned there in this test; but that is what it says, and not that it does not know where.
        var (code, _, error) = await RunAsync("bpf", "ipcache", "list");
        Assert.Equal(1, code);
        Assert.Contains("/sys/fs/bpf/mesh", error, StringComparison.Ordinal);
    }
}
