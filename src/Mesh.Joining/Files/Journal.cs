using System.Text.Json;

namespace Mesh.Joining.Files;

public enum JournalPhase
{
    /// <summary>Our key is made; nothing was asked of the other side, or its answer was lost.</summary>
    Begun,

    /// <summary>The other side gave our certificate; it is bound to our key.</summary>
    Answered,

    /// <summary>Every file is worked out, before and after; none is changed yet.</summary>
    Planned,

    /// <summary>The other side may read us.</summary>
    Granted,

    /// <summary>The other side is written, as far as it needs us.</summary>
    Finished,

    /// <summary>All files are written.</summary>
    Applied,

    /// <summary>Nothing is open. Kept so that it can still be taken back.</summary>
    Done,
}

/// <summary>
/// What a join or a disconnection is about to do, on disk before it is done: the file journal/PEER.json (accepted/PEER.json for a join that the
/// peer made with our token) of the join directory, mode 0600,
/// because it holds keys. Every file is there as it was and as it shall be, so that both ways, on and back, are open after any interruption.
/// </summary>
public sealed record Journal
{
    public required string Operation { get; init; }

    public required string Peer { get; init; }

    public required JournalPhase Phase { get; init; }

    public required DateTimeOffset Began { get; init; }

    public string? TokenId { get; init; }

    /// <summary>The token's text, to go on or to go back without it being given again; null once done.</summary>
    public string? Token { get; init; }

    /// <summary>PEM of our client key at the peer.</summary>
    public string? Key { get; init; }

    /// <summary>PEM of our client certificate at the peer.</summary>
    public string? Certificate { get; init; }

    /// <summary>PEM of the other side's certificate at our door.</summary>
    public string? IssuedCertificate { get; init; }

    public ClusterFacts? PeerFacts { get; init; }

    public bool Direct { get; init; }

    /// <summary>We go back, and the peer has gone back.</summary>
    public bool PeerCancelled { get; init; }

    public IReadOnlyList<FileChange> Changes { get; init; } = [];

    /// <summary>Directories that were made for the files, outermost first.</summary>
    public IReadOnlyList<string> MadeDirectories { get; init; } = [];

    public const string Connect = "connect";
    public const string Accept = "accept";
    public const string Disconnect = "disconnect";

    /// <summary>What the other side began is kept apart from what we did: both may happen at once.</summary>
    private static string DirectoryOf(string joinDirectory, bool accepted) => Path.Combine(joinDirectory, accepted ? "accepted" : "journal");

    private static string PathOf(string joinDirectory, string peer, bool accepted) =>
        Path.Combine(DirectoryOf(joinDirectory, accepted), $"{peer}.json");

    /// <param name="accepted">The journal of a join that the peer made with our token.</param>
    internal static Journal? Load(string joinDirectory, string peer, bool accepted = false)
    {
        var path = PathOf(joinDirectory, peer, accepted);
        try
        {
            return File.Exists(path) ? JsonSerializer.Deserialize(File.ReadAllBytes(path), JoinJson.Default.Journal) : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new JoinException("journal", $"{path}: {InWords.Of(e)}", e);
        }
    }

    internal static IEnumerable<Journal> All(string joinDirectory, bool accepted = false)
    {
        var directory = DirectoryOf(joinDirectory, accepted);
        if (!Directory.Exists(directory))
            yield break;
        foreach (var file in Directory.EnumerateFiles(directory, "*.json").Order(StringComparer.Ordinal))
        {
            if (!Path.GetFileName(file).StartsWith("..", StringComparison.Ordinal)
                && Load(joinDirectory, Path.GetFileNameWithoutExtension(file), accepted) is { } journal)
                yield return journal;
        }
    }

    internal void Save(string joinDirectory)
    {
        var path = PathOf(joinDirectory, Peer, Operation == Accept);
        DurableFile.MakePrivateDirectory(joinDirectory);
        DurableFile.MakePrivateDirectory(Path.GetDirectoryName(path)!);
        DurableFile.Replace(path, JsonSerializer.SerializeToUtf8Bytes(this, JoinJson.Default.Journal), DurableFile.OwnerOnly);
    }

    internal static void Remove(string joinDirectory, string peer, bool accepted = false) =>
        DurableFile.Delete(PathOf(joinDirectory, peer, accepted));

    /// <summary>Writes the files of a stage. May be run again after any interruption.</summary>
    internal void Apply(ChangeStage stage, Action<string> step)
    {
        foreach (var directory in MadeDirectories)
            Directory.CreateDirectory(directory);
        foreach (var change in Changes.Where(change => change.Stage == stage))
        {
            step($"write {change.Path}");
            change.Apply();
        }
    }

    /// <summary>Puts every file back as it was, last change first.</summary>
    /// <returns>Files that somebody else changed meanwhile and that were left alone.</returns>
    internal IReadOnlyList<string> Undo(Action<string> step)
    {
        var left = new List<string>();
        foreach (var change in Changes.Reverse())
        {
            step($"restore {change.Path}");
            if (change.Undo() is { } reason)
                left.Add(reason);
        }
        foreach (var directory in MadeDirectories.Reverse().Where(Directory.Exists))
        {
            if (!Directory.EnumerateFileSystemEntries(directory).Any())
                Directory.Delete(directory);
        }
        return left;
    }

    /// <summary>Those directories of the changes that do not exist yet, outermost first.</summary>
    internal static IReadOnlyList<string> MissingDirectories(IEnumerable<FileChange> changes)
    {
        var missing = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var change in changes.Where(change => change.After is not null))
        {
            for (var directory = Path.GetDirectoryName(change.Path); directory is not null && !Directory.Exists(directory);
                directory = Path.GetDirectoryName(directory))
                missing.Add(directory);
        }
        return [.. missing];
    }
}
