using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Mesh.Pki;

/// <summary>
/// Files of a directory that change together or not at all, whatever is killed when: the way Kubernetes mounts a Secret. The content
/// lies in a directory of its own, ..NAME.000007; the symbolic link ..NAME points at it; each file is a link through that one.
/// A new content is a new directory, complete and on disk before one rename makes it the present one.
/// <para>
/// Files that were put there by hand are taken over as they are. One writer at a time, by a lock; readers need none, but one that
/// opens two files may meet the rename in between: <see cref="Read"/> does not.
/// </para>
/// </summary>
public sealed partial class FileSet(string directory, string name)
{
    private static readonly TimeSpan LockPatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan LockPause = TimeSpan.FromMilliseconds(20);

    private const UnixFileMode PublicMode = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const UnixFileMode SecretMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>Called before each change of the file system; a test ends the writer there.</summary>
    internal Action<string> Step { get; init; } = _ => { };

    private string Link => Path.Combine(directory, ".." + name);

    /// <summary>Held while a new content is worked out from the old one and written.</summary>
    /// <exception cref="PkiException">Somebody else works there for longer than ten seconds, or the directory cannot be written.</exception>
    public IDisposable Lock()
    {
        var path = Link + ".lock";
        var deadline = DateTime.UtcNow + LockPatience;
        while (true)
        {
            try
            {
                Directory.CreateDirectory(directory);
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (Exception e) when (e is UnauthorizedAccessException or DirectoryNotFoundException or FileNotFoundException)
            {
                throw new PkiException($"{directory} cannot be written: {e.Message}", e);
            }
            catch (IOException e) when (DateTime.UtcNow > deadline)
            {
                throw new PkiException($"{path}: another command is at work there ({e.Message}): wait for it to end, then try again", e);
            }
            catch (IOException)
            {
                Task.Delay(LockPause).GetAwaiter().GetResult();
            }
        }
    }

    /// <summary>The files that there are of those named, all of one moment.</summary>
    public IReadOnlyDictionary<string, string> Read(IEnumerable<string> files)
    {
        var wanted = files.ToList();
        for (var attempt = 0; ; attempt++)
        {
            var before = Target();
            var found = new Dictionary<string, string>(StringComparer.Ordinal);
            foreach (var file in wanted)
            {
                try
                {
                    found[file] = File.ReadAllText(Path.Combine(directory, file));
                }
                catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
                {
                    // Absent is an answer.
                }
            }
            if (before == Target() || attempt == 10)
                return found;
        }
    }

    /// <summary>Replaces the whole set. Hold the <see cref="Lock"/>.</summary>
    /// <param name="known">Every file name that ever belongs to the set: those not in the content are removed.</param>
    /// <param name="isSecret">Files that only the owner may read.</param>
    public void Write(IReadOnlyDictionary<string, string> content, IReadOnlyCollection<string> known, Func<string, bool> isSecret)
    {
        try
        {
            Sweep();
            // Files that are not ours yet become links to copies of themselves: nothing changes for a reader.
            var present = Read(known.Union(content.Keys));
            if (present.Keys.Any(file => !IsOurs(file)))
                Swap(present, isSecret);
            foreach (var file in content.Keys)
                PointThrough(file);
            Swap(content, isSecret);
            Finish(known);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new PkiException($"{directory} cannot be written, its files are as they were: {e.Message}", e);
        }
    }

    /// <summary>Does what a writer that was killed behind its change had left to do: files that the present content lacks, and earlier
    /// contents, in which there may be keys of an authority that is to be no more. Hold the <see cref="Lock"/>.</summary>
    /// <param name="known">Every file name that ever belongs to the set.</param>
    public void Finish(IEnumerable<string> known)
    {
        var present = Path.Combine(directory, Target() ?? "");
        foreach (var file in known.Where(file => IsOurs(file) && !File.Exists(Path.Combine(present, file))))
        {
            Step($"remove {file}");
            File.Delete(Path.Combine(directory, file));
        }
        Sweep();
    }

    /// <summary>Removes the whole set. Hold the <see cref="Lock"/>.</summary>
    public void Remove(IEnumerable<string> files)
    {
        foreach (var file in files)
            File.Delete(Path.Combine(directory, file));
        File.Delete(Link);
        Sweep();
        File.Delete(Link + ".lock");
    }

    private void Swap(IReadOnlyDictionary<string, string> content, Func<string, bool> isSecret)
    {
        var number = Target() is { } target && int.TryParse(target.AsSpan(target.LastIndexOf('.') + 1), out var last) ? last + 1 : 1;
        var next = string.Create(CultureInfo.InvariantCulture, $"..{name}.{number:D6}");
        var path = Path.Combine(directory, next);
        Step($"make {next}");
        Directory.CreateDirectory(path);
        foreach (var (file, text) in content)
        {
            Step($"write {file}");
            var how = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
                how.UnixCreateMode = isSecret(file) ? SecretMode : PublicMode;
            using var stream = new FileStream(Path.Combine(path, file), how);
            stream.Write(Encoding.UTF8.GetBytes(text));
            stream.Flush(flushToDisk: true);
        }
        MakeLink(Link, next);
        foreach (var file in content.Keys)
            PointThrough(file);
    }

    private void PointThrough(string file)
    {
        if (!IsOurs(file))
            MakeLink(Path.Combine(directory, file), $"..{name}/{file}");
    }

    private bool IsOurs(string file) => new FileInfo(Path.Combine(directory, file)).LinkTarget == $"..{name}/{file}";

    private string? Target() => new FileInfo(Link).LinkTarget;

    private void MakeLink(string path, string target)
    {
        var fresh = Path.Combine(Path.GetDirectoryName(path)!, $"..new.{Path.GetFileName(path).TrimStart('.')}");
        File.Delete(fresh);
        Step($"link {path}");
        File.CreateSymbolicLink(fresh, target);
        Step($"rename {path}");
        if (Rename(fresh, path) != 0)
            throw new IOException($"{path}: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    /// <summary>Removes what a killed predecessor left half made, and contents that are no longer the present one.</summary>
    private void Sweep()
    {
        var present = Target();
        foreach (var path in Directory.EnumerateDirectories(directory))
        {
            var found = Path.GetFileName(path);
            // Another set's name may begin with ours.
            var isOurs = found.StartsWith($"..{name}.", StringComparison.Ordinal)
                && found.AsSpan(name.Length + 3).IndexOfAnyExceptInRange('0', '9') < 0;
            if (!isOurs || found == present)
                continue;
            Step($"sweep {found}");
            Directory.Delete(path, recursive: true);
        }
    }

    // File.Move refuses a link whose target is a directory.
    [LibraryImport("libc", EntryPoint = "rename", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(string from, string to);
}
