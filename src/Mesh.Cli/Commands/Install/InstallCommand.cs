using System.CommandLine;
using Mesh.Install;
using Mesh.Install.Applying;
using Mesh.Install.Charts;
using Mesh.Install.Preflight;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Commands.Install;

/// <summary>`mesh install` and `mesh upgrade`: plan, look at every node, apply, wait; or everything as it was.</summary>
internal static class InstallCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new InstallOptions();
        var command = new Command("install", "Install the mesh on a Kubernetes cluster.");
        options.AddCluster(command);
        options.AddValues(command);
        options.AddChange(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var client = options.Connect(parsed);
            var plan = await new Planner(client, options.Target(parsed), TimeProvider.System).InstallAsync(options.Values(parsed), cancel);
            await CarryOutAsync(client, plan, options, parsed, output, cancel);
            return 0;
        });
        return command;
    }

    public static Command BuildUpgrade(TextWriter output)
    {
        var options = new InstallOptions();
        var reset = new Option<bool>("--reset-values") { Description = "Forget the values of before, except what cannot change under running pods" };
        var reuse = new Option<bool>("--reuse-values") { Description = "Keep the values of before; the default" };
        var command = new Command("upgrade", "Bring an installed mesh to this version, or to other values.") { reset, reuse };
        options.AddCluster(command);
        options.AddValues(command);
        options.AddChange(command);
        command.SetAction(async (parsed, cancel) =>
        {
            if (parsed.GetValue(reset) && parsed.GetValue(reuse))
                throw new CliException("--reset-values and --reuse-values contradict each other: give one");
            using var client = options.Connect(parsed);
            var planner = new Planner(client, options.Target(parsed), TimeProvider.System);
            var plan = await planner.UpgradeAsync(options.Values(parsed), reuse: !parsed.GetValue(reset), cancel);
            await CarryOutAsync(client, plan, options, parsed, output, cancel);
            return 0;
        });
        return command;
    }

    /// <summary>What both do, and whoever changes values: `mesh config set`.</summary>
    internal static async Task CarryOutAsync(KubeClient client, InstallPlan plan, InstallOptions options, ParseResult parsed, TextWriter output,
        CancellationToken cancellation)
    {
        if (parsed.GetValue(options.DryRun))
        {
            // Ready to be given to kubectl: what people read is in comments.
            foreach (var line in Lines(plan))
                output.WriteLine($"# {line}");
            output.Write(plan.Manifest);
            return;
        }
        foreach (var line in Lines(plan))
            output.WriteLine(line);
        var narrator = new Narrator(output.WriteLine);
        var wait = options.Wait(parsed);
        if (!parsed.GetValue(options.SkipPreflight))
            await PreflightAsync(client, plan, narrator, wait, output, cancellation);
        await new Installer(client, narrator, wait, InstallOptions.DefineAsync) { KeepsWhatFailed = parsed.GetValue(options.NoRollback) }
            .RunAsync(plan, cancellation);
        output.WriteLine(plan.Former is null
            ? $"✅ Installed as cluster {plan.Values.At("cluster.name")} (ID {plan.Values.At("cluster.id")}). Look: mesh status"
            : $"✅ Revision {plan.Revision} is in place");
    }

    private static async Task PreflightAsync(KubeClient client, InstallPlan plan, Narrator narrator, WaitOptions wait, TextWriter output,
        CancellationToken cancellation)
    {
        narrator.Say("🔍 Looking at every node before anything is changed");
        var nodes = ClusterPreflight.Nodes(plan.Cluster.Nodes, plan.Values);
        if (nodes.Count == 0)
            throw new InstallException($"no node has the labels {Tree.Print(plan.Values.At("nodeSelector"))} of nodeSelector: nothing would run");
        var verdicts = await ClusterPreflight.RunAsync(client, plan.Target.Namespace, nodes, plan.Values, narrator, wait,
            Chart.OfThisProgram.AppVersion, cancellation);
        output.Write(PreflightText.Format(verdicts, all: false));
        var unfit = verdicts.Count(verdict => !verdict.IsFit);
        if (unfit > 0)
            throw new InstallException($"{unfit} of {verdicts.Count} nodes cannot run the mesh yet: mend what is named above. Nothing was changed");
    }

    private static IEnumerable<string> Lines(InstallPlan plan)
    {
        yield return $"🔮 {plan.Cluster.Flavor} cluster, Kubernetes {plan.Cluster.Version}, {plan.Cluster.Nodes.Count} nodes";
        foreach (var pick in plan.Picked)
            yield return $"   {pick.Name}={Tree.Print(pick.Value)}  ({pick.Reason})";
        foreach (var left in plan.Left)
            yield return $"   {left} is there already and is used as it is";
    }
}
