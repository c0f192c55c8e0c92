namespace Mesh.Cli.Demo;

/// <summary>Why a pod is given the backends that it is given: told by the maps, and the same with the agent dead.</summary>
internal sealed partial class Story
{
    private async Task DecisionIsExplainedAsync()
    {
        tell.Step("A decision is explained: every backend, the rule that kept or cut it, and its entry in the kernel");
        var node = _osaka.Nodes[0];
        string[] command = ["explain", node.Pods[0].Name, "rebel-base:80", "--context", $"{plan.Name}/{_osaka.Name}/{node.Name}"];
        tell.Say($"$ mesh {string.Join(' ', command)}");
        var (code, output, error) = await RunMeshAsync(command);
        // One family is enough to see.
        tell.Say(output.Split("\n\n") is [var head, var first, ..] ? $"{head}\n{first}" : output);
        tell.Check(code == 0, "map and intention agree for every virtual address", $"exit code {code}: {LastLine(output)} {error}".TrimEnd());
    }
}
