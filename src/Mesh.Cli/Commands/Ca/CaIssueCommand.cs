using System.CommandLine;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>`mesh ca issue`: certificates anew, or one for a peer's own key.</summary>
internal static class CaIssueCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new CaOptions();
        var which = new Argument<string[]>("certificate")
        {
            Description = "server, local, remote, admin; all four when none is named",
            Arity = ArgumentArity.ZeroOrMore,
        };
        which.AcceptOnlyFromAmong([.. PkiLeaf.All.Select(leaf => leaf.Name)]);
        var names = new Option<string[]>("--server-name")
        {
            Description = "The names and addresses of the server from now on, instead of those it had; may be repeated",
        };
        var lifetime = CaOptions.Lifetime("--lifetime", "How long these live");
        var request = new Option<string?>("--request") { Description = "Sign this request (PEM) for a peer: its key, and nothing else of it" };
        var user = new Option<string?>("--common-name") { Description = "With --request: who the peer is, remote-CLUSTER" };
        var command = new Command("issue", "Issue certificates again, with new keys. Who reads the files shows them at its next handshake.") { which };
        options.AddTo(command);
        foreach (var option in new Option[] { names, lifetime, request, user })
            command.Add(option);
        command.SetAction(parsed =>
        {
            var pki = options.Open(parsed);
            var chosen = parsed.GetValue(which)!;
            if (parsed.GetValue(request) is { } file)
            {
                if (chosen.Length > 0 || parsed.GetValue(names) is { Length: > 0 })
                    throw new CliException("--request signs for a peer: it goes with no certificate of our own and no --server-name");
                var name = parsed.GetValue(user) ?? throw new CliException("who is it for? give --common-name remote-CLUSTER");
                RefuseOurOwn(pki, name);
                // The answer is the certificate alone, so that it can be written to a file.
                output.Write(pki.IssueForPeer(CaOptions.ReadFile("--request", file), name, CaOptions.ParseLifetime(parsed, lifetime)).CertificatePem);
                return 0;
            }
            if (parsed.GetValue(user) is not null)
                throw new CliException("--common-name goes with --request FILE");
            var leaves = PkiLeaf.All.Where(leaf => chosen.Length == 0 || chosen.Contains(leaf.Name)).ToList();
            var given = parsed.GetValue(names) is { Length: > 0 } list ? CertificateNames.Parse(list) : null;
            if (given is not null && !leaves.Contains(PkiLeaf.Server))
                throw new CliException("--server-name goes with the server certificate only");
            pki.Issue(leaves, given, CaOptions.ParseLifetime(parsed, lifetime));
            options.Copy(parsed, pki, output);
            output.Write(CaText.Format(pki.View(), DateTimeOffset.UtcNow, options.How(parsed)));
            return 0;
        });
        return command;
    }

    private static void RefuseOurOwn(PkiDirectory pki, string name)
    {
        if (!name.StartsWith("remote-", StringComparison.Ordinal) || name.Length == "remote-".Length)
            throw new CliException($"--common-name {name}: a peer's is remote-CLUSTER; others would have rights that no peer should have");
        if (name == $"remote-{pki.Settings.Cluster}")
            throw new CliException($"--common-name {name}: that is this very cluster");
    }
}
