using System.CommandLine;
using Mesh.Cli.Hosts;
using Mesh.Cli.Text;
using Mesh.Lab.Native;
using Mesh.Lab.Pods;
using Mesh.Model;

namespace Mesh.Cli.Commands.Host;

/// <summary>`mesh pod run`: a command as a pod of a node that has an agent and no Kubernetes.</summary>
internal static class PodCommand
{
    public static Command Build() => new("pod", "Pods on machines without Kubernetes.") { Run(), Enter() };

    private static Command Run()
    {
        var directory = HostCommand.Directory();
        var node = new Option<string>("--node") { Required = true, Description = "The node it runs on; this machine must be it" };
        var space = new Option<string>("--namespace") { Description = "Its Kubernetes namespace", DefaultValueFactory = _ => "default" };
        var name = new Option<string>("--name") { Required = true, Description = "a-z, 0-9 and -; its CiliumEndpoint has the same name" };
        var addresses = new Option<string[]>("--ip") { Required = true, Description = "Its address in the node's pod range; one of each family" };
        var patience = new Option<string>("--wait") { Description = "For the agent to be there", DefaultValueFactory = _ => "1m" };
        var words = new Argument<string[]>("COMMAND") { Description = "What to run in it, behind --", Arity = ArgumentArity.OneOrMore };
        var command = new Command("run", "Run a command as a pod; it goes when the command ends.") { directory, node, space, name, addresses, patience, words };
        command.SetAction((parsed, cancel) =>
        {
            var pod = parsed.GetValue(name)!;
            if (pod.Length > 63 || !pod.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-'))
                throw new CliException($"--name {pod}: a-z, 0-9 and - are allowed, at most 63");
            var wait = GoText.ParseDuration(parsed.GetValue(patience)!)
                ?? throw new CliException($"--wait {parsed.GetValue(patience)}: must be a duration such as 30s");
            var host = new HostDirectory(parsed.GetValue(directory)!);
            var ips = parsed.GetValue(addresses)!
                .Select(text => IpAddr.TryParse(text, out var ip) ? ip : throw new CliException($"--ip {text}: must be an address")).ToList();
            if (ips.Count > 2 || ips.Select(ip => ip.IsV6).Distinct().Count() != ips.Count)
                throw new CliException("--ip: one address of each family at most");
            return new HostPod(host.Socket(parsed.GetValue(node)!), parsed.GetValue(space)!, pod, ips)
                .RunAsync(Environment.ProcessPath!, parsed.GetValue(words)!, wait, cancel);
        });
        return command;
    }

    private static Command Enter()
    {
        var name = new Argument<string>("POD");
        var words = new Argument<string[]>("COMMAND") { Description = "What to run there, behind --", Arity = ArgumentArity.OneOrMore };
        var command = new Command("enter", "Run a command inside a pod that runs on this machine.") { name, words };
        command.SetAction(parsed =>
        {
            if (!NetworkNamespace.Exists($"mesh-pod-{parsed.GetValue(name)}"))
                throw new CliException($"no pod {parsed.GetValue(name)} runs on this machine");
            HostPod.Become(parsed.GetValue(name)!, parsed.GetValue(words)!);
            return 1;
        });
        return command;
    }
}
