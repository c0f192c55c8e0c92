using System.CommandLine;
using System.Globalization;
using Mesh.Cli.Commands.Joining;
using Mesh.Cli.Text;
using Mesh.Joining;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>The flags that all of `mesh ca` have in common: whose certificates, where they are, and who has copies of them.</summary>
internal sealed class CaOptions
{
    /// <summary>Files of a cluster's own readers, as a join names them.</summary>
    private const string LocalPrefix = "local-etcd-client";

    private readonly ClusterChoice _cluster = new();

    private readonly Option<string?> _directory = new("--dir") { Description = "Directory of the certificates, instead of a cluster's" };

    private readonly Option<string[]> _copyTo = new("--copy-to")
    {
        Description = $"A directory where readers of this cluster have {LocalPrefix}{{-ca.crt,.crt,.key}}: kept up to date there, as are those "
            + "of the agents in cluster.json; may be repeated",
    };

    public void AddTo(Command command, bool copies = true)
    {
        command.Add(_directory);
        command.Add(_cluster.Context);
        command.Add(_cluster.Directory);
        if (copies)
            command.Add(_copyTo);
    }

    /// <summary>The description of the cluster; null when only a directory of certificates was given.</summary>
    public ClusterDescription? Cluster(ParseResult parsed)
    {
        if (parsed.GetValue(_directory) is null)
        {
            try
            {
                return _cluster.Read(parsed).Description;
            }
            catch (CliException e) when (parsed.GetValue(_cluster.Directory) is null && parsed.GetValue(_cluster.Context) is null)
            {
                throw new CliException($"whose certificates? give --dir DIR, --cluster-dir DIR or --context CLUSTER ({e.Message})");
            }
        }
        return parsed.GetValue(_cluster.Directory) is null && parsed.GetValue(_cluster.Context) is null ? null
            : throw new CliException("--dir and a cluster (--context, --cluster-dir) both say whose certificates: give one of them");
    }

    public string Path(ParseResult parsed) => System.IO.Path.GetFullPath(Cluster(parsed)?.Pki ?? parsed.GetValue(_directory)!);

    /// <summary>How this cluster was named, to be typed again.</summary>
    public string How(ParseResult parsed) => parsed.GetValue(_directory) is { } directory ? $"--dir {directory}"
        : parsed.GetValue(_cluster.Directory) is { } description ? $"--cluster-dir {description}"
        : parsed.GetValue(_cluster.Context) is { } context ? $"--context {context}"
        : $"--context {Contexts.Context.Find(null).Name}";

    public PkiDirectory Open(ParseResult parsed) => PkiDirectory.Open(Path(parsed));

    /// <summary>Brings the copies of the cluster's own readers up to date. What is up to date is not touched.</summary>
    public void Copy(ParseResult parsed, PkiDirectory pki, TextWriter output)
    {
        var given = parsed.GetValue(_copyTo) ?? [];
        if (given.FirstOrDefault(directory => !Directory.Exists(directory)) is { } missing)
            throw new CliException($"--copy-to {missing}: there is no such directory");
        // Agents that read no peer through the own cluster have no such files, and need none.
        var agents = (Cluster(parsed)?.AgentConfigs ?? []).Where(directory => File.Exists(ClientFiles.CertFile(directory, LocalPrefix)));
        foreach (var directory in agents.Concat(given))
        {
            if (pki.CopyClientFiles(PkiLeaf.Local, directory, LocalPrefix))
                output.WriteLine($"{ClientFiles.CertFile(directory, LocalPrefix)}, key and authorities are up to date");
        }
    }

    public static Option<string?> Lifetime(string name, string description) => new(name) { Description = $"{description}: 365d, 12h, 90s" };

    /// <exception cref="CliException">It is none.</exception>
    public static TimeSpan? ParseLifetime(ParseResult parsed, Option<string?> option)
    {
        if (parsed.GetValue(option) is not { } text)
            return null;
        TimeSpan? lifetime = text.EndsWith('d') && int.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var days)
            && days < 36500 ? TimeSpan.FromDays(days) : GoText.ParseDuration(text);
        return lifetime > TimeSpan.Zero ? lifetime : throw new CliException($"{option.Name} {text}: must be a time such as 365d, 12h or 90s");
    }

    /// <exception cref="CliException">It cannot be read.</exception>
    public static string ReadFile(string flag, string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CliException($"{flag} {path}: {InWords.Of(e)}");
        }
    }
}
