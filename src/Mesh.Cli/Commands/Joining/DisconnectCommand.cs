using System.CommandLine;
using Mesh.Cli.Commands.Kube;
using Mesh.Cli.Kube;
using Mesh.Cli.Text;
using Mesh.Joining;

namespace Mesh.Cli.Commands.Joining;

/// <summary>`mesh clustermesh disconnect PEER`: needs nothing of the peer.</summary>
internal static class DisconnectCommand
{
    public static Command Build(TextWriter output)
    {
        var choice = new ClusterChoice();
        var peer = new Argument<string>("PEER")
        {
            Description = "Name of the cluster to leave; not with --destination-context",
            Arity = ArgumentArity.ZeroOrOne,
        };
        var wait = new Option<string>("--wait-duration")
        {
            Description = "How long to wait for agents to let go of it; 0s for not at all",
            DefaultValueFactory = _ => "30s",
        };
        var command = choice.AddTo(new Command("disconnect", "Leave a peer; it need not be reachable. Run again, it does what is left.") { peer, wait });
        var kubernetes = new PeeringFlags();
        kubernetes.AddDestination(command, endpoints: false);
        command.SetAction(async (parsed, cancel) =>
        {
            var patience = GoText.ParseDuration(parsed.GetValue(wait)!)
                ?? throw new CliException($"--wait-duration {parsed.GetValue(wait)}: must be a duration such as 30s or 0s");
            if (parsed.GetValue(kubernetes.Destination) is { } destination)
            {
                if (parsed.GetValue(peer) is not null)
                    throw new CliException("--destination-context and PEER both name the other cluster: give one of them");
                using var here = kubernetes.Cluster(parsed, parsed.GetValue(choice.Context));
                using var there = kubernetes.Cluster(parsed, destination);
                var peering = kubernetes.Peering(parsed, ConnectCommand.KubePatience, output);
                var (self, other) = (await KubePeering.NameOfAsync(here, cancel), await KubePeering.NameOfAsync(there, cancel));
                await peering.DisconnectAsync(here, other, cancel);
                await peering.DisconnectAsync(there, self, cancel);
                return 0;
            }
            var name = parsed.GetValue(peer) ?? throw new CliException("name the cluster to leave, or --destination-context on Kubernetes");
            using (var here = choice.HasDirectory(parsed) ? null : kubernetes.Find(parsed, parsed.GetValue(choice.Context)))
            {
                // The other cluster may be gone for ever: its name is enough, and only this side is changed.
                if (here is not null)
                {
                    await kubernetes.Peering(parsed, ConnectCommand.KubePatience, output).DisconnectAsync(here, name, cancel);
                    return 0;
                }
            }
            var cluster = choice.Read(parsed);
            var done = Disconnection.Run(cluster.Description, name, cluster.Environment(line => output.WriteLine(line)));
            // The peer's own agents still list us until its operator leaves us too.
            var own = cluster.Watchers(name).Where(watcher => watcher.Peer == name).ToList();
            var missing = patience == TimeSpan.Zero ? null : await PeerWait.UntilAsync(
                own, cluster.Relays(name, own: true), false, patience, line => output.WriteLine($"⌛ waiting for {line}"), choice.Json(parsed), cancel);
            if (missing is not null)
                throw new CliException($"the files of {name} are removed, but after {GoText.Duration(patience)} still waiting for {missing}");
            var left = cluster.Description.Name;
            output.WriteLine(choice.Json(parsed) ? $$"""{"cluster":"{{left}}","peer":"{{name}}","changed":{{(done ? "true" : "false")}}}"""
                : done ? $"✅ {left} has left {name}; on the other side `mesh clustermesh disconnect {left}` does the same"
                : $"✅ {left} was not connected to {name}: nothing to do");
            return 0;
        });
        return command;
    }
}
