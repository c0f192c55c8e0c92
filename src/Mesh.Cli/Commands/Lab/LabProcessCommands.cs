using System.CommandLine;
using System.Net;
using Mesh.Cli.Text;
using Mesh.Lab;
using Mesh.Lab.Plan;
using Mesh.Lab.Pods;
using Mesh.Lab.Processes;

namespace Mesh.Cli.Commands.Lab;

/// <summary>What the lab's own processes are started as; hidden, because only the lab starts them.</summary>
internal static class LabProcessCommands
{
    public static Command Spawn()
    {
        var root = new Option<string>("--root") { Required = true };
        var process = new Argument<string>("PROCESS");
        var command = new Command("spawn", "Become a process of the lab.") { root, process };
        command.Hidden = true;
        command.SetAction(parsed => Mesh.Lab.Processes.Spawn.Become(LabStore.AtRoot(parsed.GetValue(root)!), parsed.GetValue(process)!));
        return command;
    }

    public static Command Keep()
    {
        var root = new Option<string>("--root") { Required = true };
        var name = new Option<string>("--as") { Required = true };
        var command = new Command("keep", "Keep the processes of a lab running.") { root, name };
        command.Hidden = true;
        command.SetAction(parsed => new Keeper(LabStore.AtRoot(parsed.GetValue(root)!), parsed.GetValue(name)!, TimeProvider.System).Run());
        return command;
    }

    public static Command Echo()
    {
        var name = new Option<string>("--name") { Required = true };
        var command = new Command("echo", "Answer every request with a name.") { name };
        command.Hidden = true;
        command.SetAction(async (parsed, cancel) =>
        {
            await new Echo(parsed.GetValue(name)!).RunAsync([LabPlanner.EchoTcpPort, LabPlanner.EchoUdpPort], cancel);
            return 0;
        });
        return command;
    }

    public static Command Insist()
    {
        var config = new Option<string>("--config") { Required = true, Description = "etcd client file" };
        var records = new Argument<string[]>("KEY=VALUE") { Arity = ArgumentArity.OneOrMore };
        var command = new Command("insist", "Write keys of an etcd again and again.") { config, records };
        command.Hidden = true;
        command.SetAction(async (parsed, cancel) =>
        {
            var writes = parsed.GetValue(records)!.Select(text => text.Split('=', 2) is [var key, var value] ? (key, value)
                : throw new CliException($"'{text}': must be KEY=VALUE")).ToList();
            await new Insistence(parsed.GetValue(config)!, writes).RunAsync(cancel);
            return 0;
        });
        return command;
    }

    public static Command Load(TextWriter output)
    {
        var targets = new Option<string[]>("--target") { Required = true, Description = "IP:PORT, in turn when there are several" };
        var udp = new Option<bool>("--udp");
        var rate = new Option<int>("--rate") { Description = "Requests per second", DefaultValueFactory = _ => 200 };
        var count = new Option<int?>("--count") { Description = "Requests in all; default: until stdin ends" };
        var timeout = new Option<string>("--timeout") { Description = "For each request", DefaultValueFactory = _ => "1s" };
        var command = new Command("load", "Ask at a steady rate and print a JSON line per request.") { targets, udp, rate, count, timeout };
        command.Hidden = true;
        command.SetAction(async (parsed, cancel) =>
        {
            var perSecond = parsed.GetValue(rate);
            if (perSecond < 1 || perSecond > Mesh.Lab.Pods.Load.PerSecondMax)
                throw new CliException($"--rate {perSecond}: must be 1 to {Mesh.Lab.Pods.Load.PerSecondMax}");
            var patience = GoText.ParseDuration(parsed.GetValue(timeout)!)
                ?? throw new CliException($"--timeout {parsed.GetValue(timeout)}: must be a duration such as 500ms or 2s");
            var addresses = parsed.GetValue(targets)!.Select(t => IPEndPoint.TryParse(t, out var target) && target.Port > 0 ? target
                : throw new CliException($"--target {t}: must be IP:PORT or [IP]:PORT")).ToList();
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancel);
            var number = parsed.GetValue(count);
            var load = new Load(addresses, parsed.GetValue(udp), perSecond, patience, output).RunAsync(number, stop.Token);
            if (number is null)
            {
                await Console.In.ReadToEndAsync(cancel);
                await stop.CancelAsync();
            }
            await load;
            return 0;
        });
        return command;
    }
}
