using System.CommandLine;
using Mesh.Cli.Text;
using Mesh.Joining;
using Mesh.Joining.Tokens;

namespace Mesh.Cli.Commands.Joining;

/// <summary>`mesh clustermesh token create|list|revoke`. What `create` prints is the token and nothing else: it can be piped.</summary>
internal static class TokenCommand
{
    private static readonly TimeSpan ListenerPatience = TimeSpan.FromSeconds(3);

    public static Command Build(TextWriter output) =>
        new("token", "Tokens by which other clusters join this one.") { Create(output), List(output), Revoke(output) };

    private static Command Create(TextWriter output)
    {
        var choice = new ClusterChoice();
        var lifetime = new Option<string>("--ttl") { Description = "How long it may be used, 1s to 168h", DefaultValueFactory = _ => "10m" };
        var taker = new Option<string?>("--for") { Description = "The only cluster that may take it" };
        var addresses = new Option<string[]>("--address")
        {
            Description = "IP:PORT of the join listener as the taker reaches it",
            DefaultValueFactory = _ => [],
        };
        var allowed = new Option<string[]>("--allow")
        {
            Description = "A finding of the taker's plan that this side puts up with",
            DefaultValueFactory = _ => [],
        };
        var direct = new Option<bool>("--direct") { Description = "Agents here read the taker's door themselves, although there is a relay" };
        var command = choice.AddTo(new Command("create", "Make a token: one line, a secret, for one join.") { lifetime, taker, addresses, allowed, direct });
        command.SetAction(async (parsed, cancel) =>
        {
            var ttl = GoText.ParseDuration(parsed.GetValue(lifetime)!)
                ?? throw new CliException($"--ttl {parsed.GetValue(lifetime)}: must be a duration such as 10m or 1h");
            var cluster = choice.Read(parsed);
            var ledger = new TokenLedger(cluster.Description.JoinDirectory, TimeProvider.System);
            var token = ledger.Create(cluster.Description, cluster.Directory, new TokenRequest(
                ttl, parsed.GetValue(taker), parsed.GetValue(addresses)!, parsed.GetValue(allowed)!, parsed.GetValue(direct)));
            if (!await ledger.WaitForListenerAsync(ListenerPatience, cancel))
            {
                ledger.Revoke(token.Id);
                throw new CliException($"nobody listens for joins of {cluster.Description.Name}, so the token was revoked again: run its API server with "
                    + $"--join-listen-addr {cluster.Description.JoinListen} --join-dir {cluster.Description.JoinDirectory}, or look at its log");
            }
            output.WriteLine(choice.Json(parsed)
                ? new TokenText($"{token}", token.Id, token.ClusterName, token.Expires, token.Taker, token.Addresses).ToJson() : $"{token}");
            return 0;
        });
        return command;
    }

    private static Command List(TextWriter output)
    {
        var choice = new ClusterChoice();
        var command = choice.AddTo(new Command("list", "Tokens that were made here; never their secrets."));
        command.SetAction(parsed =>
        {
            var now = TimeProvider.System.GetUtcNow();
            var entries = new TokenLedger(choice.Read(parsed).Description.JoinDirectory, TimeProvider.System).Tokens.Select(record => new TokenListEntry(
                record.Id, record.State == TokenState.Used ? "used" : record.Expires <= now ? "expired" : $"{record.State}".ToLowerInvariant(),
                record.Created, record.Expires, record.Taker, record.TakerFacts?.Name)).ToList();
            if (choice.Json(parsed))
            {
                output.WriteLine(TokenListEntry.ToJson(entries));
                return;
            }
            var table = new TabWriter(3);
            table.Row("ID", "STATE", "EXPIRES", "FOR", "TAKEN BY");
            foreach (var entry in entries)
                table.Row(entry.Id, entry.State, $"{entry.Expires:yyyy-MM-dd HH:mm:ss}Z", entry.Taker ?? "anyone", entry.TakenBy ?? "-");
            output.Write(table);
        });
        return command;
    }

    private static Command Revoke(TextWriter output)
    {
        var choice = new ClusterChoice();
        var id = new Argument<string>("ID");
        var command = choice.AddTo(new Command("revoke", "Make a token useless.") { id });
        command.SetAction(parsed =>
        {
            var ledger = new TokenLedger(choice.Read(parsed).Description.JoinDirectory, TimeProvider.System);
            output.WriteLine(ledger.Revoke(parsed.GetValue(id)!) ? "revoked" : "there is no usable token of that ID: nothing to revoke");
        });
        return command;
    }
}
