using System.CommandLine;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh clustermesh quarantine [PEER]`: what an agent refused of its peers, and what it holds back; `mesh clustermesh
/// release PEER` lets go what is held.</summary>
internal static class QuarantineCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var peer = new Argument<string?>("PEER") { Description = "Only this peer", Arity = ArgumentArity.ZeroOrOne };
        var command = new Command("quarantine", "Records of peers that were refused, and withdrawals that wait for a proof.") { peer };
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            var peers = Chosen(await agent.GetQuarantineAsync(cancel), parsed.GetValue(peer));
            output.Write(options.IsStructured(parsed)
                ? options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(peers, AgentApiJson.Wire.IReadOnlyListPeerQuarantine))
                : Table(peers, DateTimeOffset.UtcNow));
            return 0;
        });
        return command;
    }

    public static Command BuildRelease(TextWriter output)
    {
        var options = new ContextOptions();
        var peer = new Argument<string>("PEER") { Description = "The peer whose withdrawals are to be believed" };
        var command = new Command("release", "Believes at once what the agents of a cluster hold of a peer's withdrawals.")
        {
            peer, options.Context, options.Socket,
        };
        command.SetAction(async (parsed, cancel) =>
        {
            // Every agent holds for itself.
            var nodes = options.Nodes(parsed);
            foreach (var node in nodes)
            {
                using var agent = node.Connect();
                Chosen(await agent.GetQuarantineAsync(cancel), parsed.GetValue(peer)!);
                await agent.ReleaseHeldAsync(parsed.GetValue(peer)!, cancel);
            }
            output.Write($"{parsed.GetValue(peer)}: what {nodes.Count} agents held is let go\n");
            return 0;
        });
        return command;
    }

    internal static string Table(IReadOnlyList<PeerQuarantine> peers, DateTimeOffset now)
    {
        var text = "";
        foreach (var peer in peers)
        {
            text += $"{peer.Name}: {peer.Quarantined} records in quarantine"
                + (peer.Overflow > 0 ? $", {peer.Overflow} refusals found no room" : "") + $", {peer.Held} withdrawals held\n";
            if (peer.ImportsProblem is { } problem)
                text += $"   └  import file: {problem}\n";
            if (peer.HeldReason is { } reason)
                text += $"   └  {reason}\n";
            if (peer.Records is not { Count: > 0 } records)
                continue;
            var table = new TabWriter(3);
            table.Line("   REASON\tKEY\tREVISION\tCOUNT\tFIRST SEEN\tLAST SEEN\tMESSAGE");
            foreach (var record in records)
                table.Line($"   {record.Reason}\t{Printable(record.Key)}\t{record.Revision}\t{record.Count}\t"
                    + $"{GoText.Ago(record.FirstSeen, now)}\t{GoText.Ago(record.LastSeen, now)}\t{Printable(record.Message)}");
            text += table;
        }
        return text.Length == 0 ? "no peers\n" : text;
    }

    private static IReadOnlyList<PeerQuarantine> Chosen(IReadOnlyList<PeerQuarantine> peers, string? name)
    {
        if (name is null)
            return peers;
        var chosen = peers.Where(peer => peer.Name == name).ToList();
        return chosen.Count > 0 ? chosen : throw new CliException(
            peers.Count == 0 ? $"there is no peer named {name}: this agent has no peers"
                : $"there is no peer named {name}: this agent's peers are {string.Join(", ", peers.Select(peer => peer.Name))}");
    }

    /// <summary>A peer chose this text: nothing in it may move a cursor or break a line.</summary>
    private static string Printable(string text) => string.Concat(text.Select(c => char.IsControl(c)
        || char.GetUnicodeCategory(c) == System.Globalization.UnicodeCategory.Format ? '?' : c));
}
