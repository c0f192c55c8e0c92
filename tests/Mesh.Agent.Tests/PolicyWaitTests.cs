using System.Globalization;
using Xunit;

namespace Mesh.Agent.Tests;

/// <summary>
/// What Cilium's connectivity test does around each of its policies, with an agent that runs: the revision, so many changes, and waiting for the
/// revision that is higher by as many. Changes that come together must count one by one, or it waits for ever.
/// </summary>
public sealed class PolicyWaitTests
{
    [Fact]
    public async Task Policies_that_come_and_go_together_count_one_by_one()
    {
        var directory = Directory.CreateTempSubdirectory("mesh-policy-wait-").FullName;
        await using var agent = await RunningAgent.StartAsync(directory);
        var before = long.Parse((await RunAsync(agent, "get", "-o", "jsonpath='{.revision}'")).Trim('\'', '\n'), CultureInfo.InvariantCulture);

        await WriteAsync(directory, "---\n" + string.Join("---\n", Policy("a"), Policy("b"), Policy("c")));
        Assert.Equal("", await RunAsync(agent, "wait", Number(before + 3), "--max-wait-time", "60"));

        await WriteAsync(directory, Policy("b"));
        Assert.Equal("", await RunAsync(agent, "wait", Number(before + 5), "--max-wait-time", "60"));
        RunningAgent.Remove(directory);
    }

    private static string Number(long revision) => revision.ToString(CultureInfo.InvariantCulture);

    private static string Policy(string name) =>
        $"{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: {name}, namespace: shop}}, "
        + "spec: {endpointSelector: {}, egress: [{}]}}\n";

    private static async Task WriteAsync(string directory, string manifests)
    {
        var written = Path.Combine(directory, "written");
        await File.WriteAllTextAsync(written, manifests, TestContext.Current.CancellationToken);
        File.Move(written, Path.Combine(directory, "manifests", "all.yaml"), overwrite: true);
    }

    private static async Task<string> RunAsync(RunningAgent agent, params string[] words)
    {
        var (output, error) = (new StringWriter(), new StringWriter());
        var code = await Cli.MeshCommand.RunAsync(["policy", .. words, "-H", agent.SocketPath], output, error);
        Assert.Equal((0, ""), (code, error.ToString()));
        return output.ToString();
    }
}
