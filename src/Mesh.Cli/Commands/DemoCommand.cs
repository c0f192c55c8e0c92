using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Mesh.AgentApi;
using Mesh.Cli.Demo;
using Mesh.Lab;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Commands;

/// <summary>`mesh demo`: a lab of its own, the story, and the lab taken away again, whatever happens in between.</summary>
internal static class DemoCommand
{
    private const string DefaultLabName = "demo";

    public static Command Build(TextWriter output)
    {
        var name = new Option<string>("--name") { Description = "Name of the lab it makes", DefaultValueFactory = _ => DefaultLabName };
        var command = new Command("demo", "What clients notice when three clusters break, measured; about a minute.") { name };
        command.SetAction((parsed, cancel) => RunAsync(parsed.GetValue(name)!, output, cancel));
        return command;
    }

    private static async Task<int> RunAsync(string name, TextWriter output, CancellationToken cancel)
    {
        var colour = ReferenceEquals(output, Console.Out) && !Console.IsOutputRedirected
            && Environment.GetEnvironmentVariable("NO_COLOR") is null;
        var tell = new Narrator(output, colour);
        var clock = Stopwatch.StartNew();
        // Left by a demo that was killed.
        await LabDown.RunAsync(name, cancel);
        tell.Step("mesh lab up: three clusters on this machine, each with etcd, an API server and two nodes");
        var plan = await LabUp.RunAsync(new LabSpec(name, 3, 2, 2), tell.Say, cancel);
        try
        {
            await new Story(plan, tell, cancel).RunAsync();
        }
        catch (Exception e) when (cancel.IsCancellationRequested)
        {
            // Ctrl-C reaches the load generator too, so the first thing to fail may be anything.
            throw new OperationCanceledException("interrupted", e, cancel);
        }
        catch (Exception e) when (e is LabException or AgentException)
        {
            tell.Check(false, e.Message);
        }
        finally
        {
            tell.Step("mesh lab down");
            await LabDown.RunAsync(plan, CancellationToken.None);
        }
        tell.Check(!Directory.Exists(plan.Root) && !Directory.Exists(plan.Cgroup), "no process, namespace, pin, cgroup or file is left");
        output.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"\n{(tell.Failures == 0 ? "Every step held" : $"{tell.Failures} steps FAILED")}, in {clock.Elapsed.TotalSeconds:0} s."));
        return tell.Failures == 0 ? 0 : 1;
    }
}
