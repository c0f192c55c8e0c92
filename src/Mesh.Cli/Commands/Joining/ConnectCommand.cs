using System.CommandLine;
using System.Globalization;
using Mesh.Cli.Commands.Kube;
using Mesh.Cli.Text;
using Mesh.Joining;

namespace Mesh.Cli.Commands.Joining;

/// <summary>`mesh clustermesh connect TOKEN`: plan, join, and wait until relays and agents see the peer. `--rollback` takes the last one back.</summary>
internal static class ConnectCommand
{
    /// <summary>Rollouts on both sides.</summary>
    internal static readonly TimeSpan KubePatience = TimeSpan.FromMinutes(5);

    public static Command Build(TextWriter output)
    {
        var choice = new ClusterChoice();
        var token = new TokenArgument();
        var forced = new Option<string[]>("--force") { Description = "A fault of the plan that shall not stop it, by its name", DefaultValueFactory = _ => [] };
        var direct = new Option<bool>("--direct") { Description = "Agents here read the peer's door themselves, although there is a relay" };
        var rollback = new Option<bool>("--rollback")
        {
            Description = "Put every file back as it was before the join of --peer, or of the only interrupted one",
        };
        var peer = new Option<string?>("--peer") { Description = "With --rollback: whose join" };
        var wait = new Option<string>("--wait-duration")
        {
            Description = "How long to wait for relays and agents to see the peer; 0s for not at all",
            DefaultValueFactory = _ => "1m",
        };
        var command = choice.AddTo(new Command("connect", "Join the cluster that made a token. Run again after an interruption, it goes on where it ended.")
        {
            forced, direct, rollback, peer, wait,
        });
        token.AddTo(command);
        var kubernetes = new PeeringFlags();
        kubernetes.AddDestination(command, endpoints: true);
        command.SetAction(async (parsed, cancel) =>
        {
            var patience = GoText.ParseDuration(parsed.GetValue(wait)!)
                ?? throw new CliException($"--wait-duration {parsed.GetValue(wait)}: must be a duration such as 30s or 0s");
            if (parsed.GetValue(kubernetes.Destination) is { } destination)
            {
                if (token.IsGiven(parsed) || parsed.GetValue(rollback))
                    throw new CliException("--destination-context changes both clusters on Kubernetes: it goes with no token and no --rollback");
                using var here = kubernetes.Cluster(parsed, parsed.GetValue(choice.Context));
                using var there = kubernetes.Cluster(parsed, destination);
                var most = patience > KubePatience ? patience : KubePatience;
                await kubernetes.Peering(parsed, most, output).ConnectAsync(
                    here, there, parsed.GetValue(kubernetes.SourceEndpoints)!, parsed.GetValue(kubernetes.DestinationEndpoints)!, cancel);
                return 0;
            }
            if (!token.IsGiven(parsed) && !parsed.GetValue(rollback) && !choice.HasDirectory(parsed))
            {
                using var here = kubernetes.Find(parsed, parsed.GetValue(choice.Context));
                if (here is not null)
                    throw new CliException($"name the cluster that {here.Name} is to be connected to: --destination-context CONTEXT");
            }
            var cluster = choice.Read(parsed);
            var environment = cluster.Environment(line => output.WriteLine($"ℹ️  {line}"));
            if (parsed.GetValue(rollback))
            {
                if (token.IsGiven(parsed))
                    throw new CliException("--rollback needs no token: name the peer with --peer, or nothing for the interrupted one");
                var back = await TokenJoin.RollbackAsync(cluster.Description, parsed.GetValue(peer), environment, cancel);
                output.WriteLine($"✅ {back.Cluster} is as it was before {back.Peer}");
                foreach (var note in back.Notes)
                    output.WriteLine($"⚠️  {note}");
                return back.Notes.Count == 0 ? 0 : 1;
            }
            if (parsed.GetValue(peer) is not null)
                throw new CliException("--peer goes with --rollback: a token says itself whose it is");
            try
            {
                var outcome = await new TokenJoin(cluster.Description, token.Read(parsed), environment)
                    .ConnectAsync(new ConnectRequest(parsed.GetValue(forced)!, parsed.GetValue(direct)), cancel);
                return await ToldAsync(output, choice.Json(parsed), cluster, outcome, patience, cancel);
            }
            catch (PlanException e)
            {
                output.Write(choice.Json(parsed) ? e.Plan.ToJson() + "\n" : PlanCommand.Format(e.Plan));
                var force = e.Standing.Where(finding => finding.CanBeForced).Select(finding => $"--force {finding.Check}").Distinct().ToList();
                throw new CliException($"{e.Plan.Cluster} and {e.Plan.Peer} were not connected, nothing was changed: mend "
                    + string.Join(", ", e.Standing.Select(finding => finding.Check).Distinct())
                    + (force.Count > 0 ? $" (or, knowing better, {string.Join(' ', force)})" : ""));
            }
        });
        return command;
    }

    private static async Task<int> ToldAsync(
        TextWriter output, bool json, ChosenCluster cluster, JoinOutcome outcome, TimeSpan patience, CancellationToken cancel)
    {
        var watchers = cluster.Watchers(outcome.Peer);
        var relays = cluster.Relays(outcome.Peer);
        if (!json)
        {
            foreach (var finding in outcome.Plan?.Findings.Where(finding => finding.Mend is not null) ?? [])
                output.WriteLine($"⚠️  {finding.Check}: {finding.Text}");
            var seconds = outcome.Took.TotalSeconds.ToString("0.00", CultureInfo.InvariantCulture);
            output.WriteLine(outcome.State == JoinState.AlreadyConnected
                ? $"✅ {outcome.Cluster} and {outcome.Peer} were connected by this token already"
                : $"✅ {outcome.Cluster} ⇄ {outcome.Peer}: written on both sides in {seconds} s");
            if (watchers.Count == 0)
                output.WriteLine($"ℹ️  no agent can be asked from here: see `mesh clustermesh status` on both sides");
            if (relays.Count == 0 && cluster.Description.RelayConfig is not null && patience > TimeSpan.Zero)
                output.WriteLine($"ℹ️  the relay cannot be asked from here: give its relayApi in {ClusterDescription.FileName}, or run "
                    + "`clustermesh-apiserver kvstoremesh-dbg status` where it runs");
        }
        var missing = patience == TimeSpan.Zero ? null : await PeerWait.UntilAsync(
            watchers, relays, true, patience, line => output.WriteLine($"⌛ waiting for {line}"), json, cancel);
        if (json)
            output.WriteLine(outcome.Plan?.ToJson() ?? "{}");
        else if (missing is null && watchers.Count + relays.Count > 0 && patience > TimeSpan.Zero)
            output.WriteLine(relays.Count == 0 ? $"✅ {watchers.Count} agents see the other side"
                : $"✅ {relays.Count} relays are connected and {watchers.Count} agents see the other side");
        return missing is null ? 0 : throw new CliException($"the files are written, but after {GoText.Duration(patience)} still waiting for {missing}: "
            + $"see `mesh clustermesh status`, or take the join back with `mesh clustermesh connect --rollback --peer {outcome.Peer}`");
    }
}
