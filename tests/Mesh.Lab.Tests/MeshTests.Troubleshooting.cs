using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>`mesh clustermesh troubleshoot --context`: asked from anywhere, looked at from inside the node.</summary>
public sealed partial class MeshTests
{
    private Task<(int Code, string Output, string Error)> TroubleshootAsync(params string[] more) =>
        lab.MeshAsync(["clustermesh", "troubleshoot", "--timeout", "2s", .. more]);

    [Fact]
    public async Task Troubleshoot_looks_from_inside_a_node_and_tells_what_its_relay_has_lost()
    {
        string[] osaka = ["--context", $"{LiveLab.Name}/osaka/2"];
        var door = lab.Osaka.Etcd.Endpoint["https://".Length..];
        var well = await TroubleshootAsync(osaka);
        Assert.Equal((0, ""), (well.Code, well.Error));
        Assert.StartsWith("Found 2 cluster configurations\n", well.Output, StringComparison.Ordinal);
        Assert.Equal(2, well.Output.Split("✅ No fault was found").Length - 1);
        Assert.Contains($"TLS connection successfully established to {door}\n", well.Output, StringComparison.Ordinal);
        // The control: the same files from where the door cannot be reached.
        var outside = await TroubleshootAsync("--clustermesh-config", lab.Osaka.ClusterMeshConfig, "--cluster-name", "osaka", "tokyo");
        Assert.Equal(2, outside.Code);
        Assert.DoesNotContain("No fault was found", outside.Output, StringComparison.Ordinal);

        await LabFaults.CutControlPlaneAsync(lab.Plan, lab.Tokyo, cut: true, LiveLab.Cancel);
        try
        {
            await LiveLab.UntilAsync(async () => (await TroubleshootAsync([.. osaka, "tokyo"])).Code == 2, "the relay has lost tokyo");
            var lost = await TroubleshootAsync(osaka);
            Assert.Equal((2, ""), (lost.Code, lost.Error));
            Assert.Contains("   ❌ The relay has lost tokyo", lost.Output, StringComparison.Ordinal);
            Assert.Single(lost.Output.Split('\n'), line => line.StartsWith("❌ Cause: ", StringComparison.Ordinal));
            Assert.Equal(1, lost.Output.Split("✅ No fault was found").Length - 1);
            // What only the agent knows stands behind it, and names the same peer.
            Assert.Contains("\n🧭 What the agent knows besides:\n   ❌ tokyo: ", lost.Output, StringComparison.Ordinal);
            var json = await TroubleshootAsync([.. osaka, "nagoya", "-o", "json"]);
            Assert.Contains("\"fault\": \"none\"", json.Output, StringComparison.Ordinal);
        }
        finally
        {
            await LabFaults.CutControlPlaneAsync(lab.Plan, lab.Tokyo, cut: false, CancellationToken.None);
        }
        await LiveLab.UntilAsync(async () => (await TroubleshootAsync(osaka)).Code == 0, "nothing is wrong any more");
        await lab.MeshAsync();
    }

    [Fact]
    public async Task Troubleshoot_names_the_contexts_there_are()
    {
        var wrong = await TroubleshootAsync("--context", "nowhere");
        Assert.Equal((1, ""), (wrong.Code, wrong.Output));
        Assert.Contains("there is no context 'nowhere': choose with --context one of ", wrong.Error, StringComparison.Ordinal);
    }
}
