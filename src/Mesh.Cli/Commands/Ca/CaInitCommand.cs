using System.CommandLine;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>`mesh ca init`.</summary>
internal static class CaInitCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new CaOptions();
        var cluster = new Option<string?>("--cluster-name") { Description = "Name of the cluster" };
        var names = new Option<string[]>("--server-name")
        {
            Description = "A DNS name or address that the API server is reached by, besides *.mesh.cilium.io and loopback; may be repeated",
        };
        var authority = CaOptions.Lifetime("--ca-lifetime", "How long the authority lives (default 1095d)");
        var leaf = CaOptions.Lifetime("--lifetime", "How long certificates live (default 365d)");
        var certificate = new Option<string?>("--ca-cert") { Description = "Take over this authority; behind it in the file, those between it and its root" };
        var key = new Option<string?>("--ca-key") { Description = "Its private key" };
        var bundle = new Option<string?>("--ca-bundle") { Description = "Its root, when it is not its own" };
        var command = new Command("init", "Make an authority and the four certificates of a cluster. Run again, it changes nothing.");
        options.AddTo(command);
        foreach (var option in new Option[] { cluster, names, authority, leaf, certificate, key, bundle })
            command.Add(option);
        command.SetAction(parsed =>
        {
            var settings = new PkiSettings
            {
                Cluster = Name(parsed.GetValue(cluster), options.Cluster(parsed)?.Name),
                ServerNames = parsed.GetValue(names) ?? [],
            };
            settings = settings with
            {
                AuthorityLifetime = CaOptions.ParseLifetime(parsed, authority) ?? settings.AuthorityLifetime,
                LeafLifetime = CaOptions.ParseLifetime(parsed, leaf) ?? settings.LeafLifetime,
            };
            var pki = PkiDirectory.Init(options.Path(parsed), settings, TakeOver(parsed.GetValue(certificate), parsed.GetValue(key), parsed.GetValue(bundle)));
            options.Copy(parsed, pki, output);
            output.Write(CaText.Format(pki.View(), DateTimeOffset.UtcNow, options.How(parsed)));
            return 0;
        });
        return command;
    }

    private static string Name(string? given, string? described) => given is null || described is null || given == described
        ? given ?? described ?? throw new CliException("whose certificates? give --cluster-name NAME")
        : throw new CliException($"--cluster-name {given}: the cluster's own description calls it {described}");

    private static PkiAuthorityFiles? TakeOver(string? certificate, string? key, string? bundle)
    {
        if (certificate is null && key is null)
            return bundle is null ? null : throw new CliException("--ca-bundle goes with --ca-cert and --ca-key");
        if (certificate is null || key is null)
            throw new CliException($"--ca-cert and --ca-key go together: {(certificate is null ? "--ca-cert" : "--ca-key")} is missing");
        var pem = CaOptions.ReadFile("--ca-cert", certificate);
        return new PkiAuthorityFiles(pem, CaOptions.ReadFile("--ca-key", key), bundle is null ? pem : CaOptions.ReadFile("--ca-bundle", bundle));
    }
}
