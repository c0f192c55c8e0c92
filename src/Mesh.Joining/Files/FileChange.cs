using System.Text.Json.Serialization;

namespace Mesh.Joining.Files;

/// <summary>When a file of a join may be written.</summary>
public enum ChangeStage
{
    /// <summary>Before the other side knows: what lets it in here.</summary>
    Grant,

    /// <summary>After the other side is ready: what makes our readers connect.</summary>
    Peer,
}

/// <summary>
/// One file before and after. Holds private keys: a journal is for its owner alone. Null content: there is no such file.
/// </summary>
/// <param name="Before">Bytes in base64, as they were when the journal was written.</param>
/// <param name="After">Bytes in base64, as they shall be.</param>
/// <param name="BeforeMode">Permission bits, 0 when there was no file.</param>
public sealed record FileChange(string Path, ChangeStage Stage, byte[]? Before, int BeforeMode, byte[]? After, int AfterMode)
{
    /// <summary>This cluster's users file is shared with other peers: undone by its entry when somebody else has changed it since.</summary>
    public string? User { get; init; }

    /// <summary>Peer files of other clusters may name it too: it is not taken away while one does.</summary>
    public bool Shared { get; init; }

    [JsonIgnore]
    public bool Changes => !(Before is null ? After is null : After is not null && Before.AsSpan().SequenceEqual(After));

    public static FileChange Of(string path, ChangeStage stage, byte[]? after, int mode)
    {
        var before = Content(path);
        return new FileChange(path, stage, before, before is null ? 0 : (int)File.GetUnixFileMode(path), after, mode);
    }

    /// <summary>Only this peer's entry of a users file is brought to what it shall be: others may have changed theirs since.</summary>
    public void Apply()
    {
        if (User is null || Content(Path) is not { } now || Same(now, Before))
            Put(After, AfterMode);
        else
            Put(After is not null && UsersFile.Has(After, User) ? UsersFile.With(now, User, Path) : UsersFile.Without(now, User, Path),
                (int)File.GetUnixFileMode(Path));
    }

    /// <returns>Null, or why the file was left as somebody else made it meanwhile.</returns>
    public string? Undo()
    {
        File.Delete(DurableFile.TemporaryName(Path));
        var now = Content(Path);
        if (Same(now, Before))
            return null;
        if (Shared && Before is null && PeerFiles.IsNamed(Path))
            return null;
        if (Same(now, After))
        {
            Put(Before, BeforeMode);
            return null;
        }
        if (User is null || now is null)
            return $"{Path} was changed by somebody else meanwhile and is left as it is";
        // Before held the entry too: then it stays.
        var had = Before is not null && UsersFile.Has(Before, User);
        if (!had)
            DurableFile.Replace(Path, UsersFile.Without(now, User, Path), (int)File.GetUnixFileMode(Path));
        return null;
    }

    private void Put(byte[]? content, int mode)
    {
        File.Delete(DurableFile.TemporaryName(Path));
        if (content is null)
            DurableFile.Delete(Path);
        else if (!Same(Content(Path), content) || (int)File.GetUnixFileMode(Path) != mode)
            DurableFile.Replace(Path, content, mode);
    }

    internal static byte[]? Content(string path)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return null;
        }
    }

    private static bool Same(byte[]? a, byte[]? b) => a is null ? b is null : b is not null && a.AsSpan().SequenceEqual(b);
}
