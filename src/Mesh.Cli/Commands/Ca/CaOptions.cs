using System.CommandLine;
using System.Globalization;
using Mesh.Cli.Text;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>The flags that all of `mesh ca` have in common: where the certificates are, and who has copies of them.</summary>
internal sealed class CaOptions
{
    /// <summary>Files of a cluster's own readers, as a join names them.</summary>
    private const string LocalPrefix = "local-etcd-client";

    public Option<string?> Directory { get; } = new("--dir") { Description = "Directory of the cluster's certificates" };

    public Option<string[]> CopyTo { get; } = new("--copy-to")
    {
        Description = $"A clustermesh directory of this cluster's own readers: {LocalPrefix}{{-ca.crt,.crt,.key}} are kept up to date there",
    };

    public void AddTo(Command command, bool copies = true)
    {
        command.Add(Directory);
        if (copies)
            command.Add(CopyTo);
    }

    public string Path(ParseResult parsed) => parsed.GetValue(Directory) is { Length: > 0 } path ? System.IO.Path.GetFullPath(path)
        : throw new CliException("which certificates? give --dir DIR");

    public PkiDirectory Open(ParseResult parsed) => PkiDirectory.Open(Path(parsed));

    /// <summary>Brings the copies of the cluster's own readers up to date. What is up to date is not touched.</summary>
    public void Copy(ParseResult parsed, PkiDirectory pki, TextWriter output)
    {
        foreach (var directory in parsed.GetValue(CopyTo) ?? [])
        {
            if (!System.IO.Directory.Exists(directory))
                throw new CliException($"--copy-to {directory}: there is no such directory");
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
            throw new CliException($"{flag} {path}: {e.Message}");
        }
    }
}
