using System.CommandLine;
using Mesh.Cli.Text;
using Mesh.Joining;

namespace Mesh.Cli.Commands.Joining;

/// <summary>`mesh clustermesh disconnect PEER`: needs nothing of the peer.</summary>
internal static class DisconnectCommand
{
    public static Command Build(TextWriter output)
    {
        var choice = new ClusterChoice();
        var peer = new Argument<string>("PEER") { Description = "Name of the cluster to leave" };
        var wait = new Option<string>("--wait-duration")
        {
            Description = "How long to wait for agents to let go of it; 0s for not at all",
            DefaultValueFactory = _ => "30s",
        };
        var command = choice.AddTo(new Command("disconnect", "Leave a peer; it need not be reachable. Run again, it does what is left.") { peer, wait });
        command.SetAction(async (parsed, cancel) =>
        {
            var patience = GoText.ParseDuration(parsed.GetValue(wait)!)
                ?? throw new CliException($"--wait-duration {parsed.GetValue(wait)}: must be a duration such as 30s or 0s");
            var cluster = choice.Read(parsed);
            var name = parsed.GetValue(peer)!;
            var done = Disconnection.Run(cluster.Description, name, cluster.Environment(line => output.WriteLine(line)));
            // The peer's own agents still list us until its operator leaves us too.
            var own = cluster.Watchers(name).Where(watcher => watcher.Peer == name).ToList();
            var missing = patience == TimeSpan.Zero ? null : await PeerWait.UntilAsync(
                own, cluster.Relays(name, own: true), false, patience, line => output.WriteLine($"⌛ waiting for {line}"), choice.Json(parsed), cancel);
            if (missing is not null)
                throw new CliException($"the files of {name} are removed, but after {GoText.Duration(patience)} still waiting for {missing}");
            var self = cluster.Description.Name;
            output.WriteLine(choice.Json(parsed) ? $$"""{"cluster":"{{self}}","peer":"{{name}}","changed":{{(done ? "true" : "false")}}}"""
                : done ? $"✅ {self} has left {name}; on the other side `mesh clustermesh disconnect {self}` does the same"
                : $"✅ {self} was not connected to {name}: nothing to do");
            return 0;
        });
        return command;
    }
}
