using System.Runtime.InteropServices;

namespace Mesh.Joining.Files;

/// <summary>
/// Files that are either as they were or as they shall be, also after kill -9 and after the power fails: written beside, synced, renamed,
/// and the directory synced. The name beside begins with two dots, which every reader of a configuration directory passes over.
/// </summary>
internal static partial class DurableFile
{
    /// <summary>0600 and 0644.</summary>
    public const int OwnerOnly = 0x180;
    public const int Everyone = 0x1A4;

    public static string TemporaryName(string path) => Path.Combine(Path.GetDirectoryName(path)!, $"..{Path.GetFileName(path)}.mesh-new");

    public static void Replace(string path, ReadOnlySpan<byte> content, int mode)
    {
        var temporary = TemporaryName(path);
        File.Delete(temporary);
        using (var file = new FileStream(temporary, new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = (UnixFileMode)mode,
        }))
        {
            // The process's umask may have taken bits away.
            File.SetUnixFileMode(file.SafeFileHandle, (UnixFileMode)mode);
            file.Write(content);
            file.Flush(flushToDisk: true);
        }
        File.Move(temporary, path, overwrite: true);
        Sync(Path.GetDirectoryName(path)!);
    }

    public static void Delete(string path)
    {
        if (!File.Exists(path))
            return;
        File.Delete(path);
        Sync(Path.GetDirectoryName(path)!);
    }

    /// <summary>Makes a directory that only its owner may enter; one that exists is left as it is.</summary>
    public static void MakePrivateDirectory(string path) =>
        Directory.CreateDirectory(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);

    private static void Sync(string directory)
    {
        const int readOnlyDirectory = 0x10000; // O_RDONLY | O_DIRECTORY
        var handle = open(directory, readOnlyDirectory, 0);
        if (handle < 0)
            throw new IOException($"{directory}: cannot be opened to sync it (error {Marshal.GetLastPInvokeError()})");
        var result = fsync(handle);
        var error = Marshal.GetLastPInvokeError();
        _ = close(handle);
        if (result < 0)
            throw new IOException($"{directory}: cannot be synced (error {error})");
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fsync(int handle);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int close(int handle);
}
