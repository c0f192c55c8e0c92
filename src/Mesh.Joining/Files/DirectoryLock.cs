using System.Diagnostics;

namespace Mesh.Joining.Files;

/// <summary>
/// One at a time in a join directory, over processes: the API server and the command line change the same files. The lock is the open
/// file itself, so it ends with its holder, however that ends. One with a name of its own leaves no file behind.
/// </summary>
internal sealed class DirectoryLock : IDisposable
{
    private const string Standing = "lock";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(5);
    private readonly FileStream _file;

    private readonly bool _remove;

    private DirectoryLock(FileStream file, bool remove) => (_file, _remove) = (file, remove);

    /// <exception cref="JoinException">Somebody else held it for ten seconds, or the directory cannot be used.</exception>
    public static DirectoryLock Take(string directory, string name = Standing)
    {
        var path = Path.Combine(directory, name);
        var clock = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                DurableFile.MakePrivateDirectory(directory);
                var file = new FileStream(path, new FileStreamOptions
                {
                    Mode = FileMode.OpenOrCreate,
                    Access = FileAccess.ReadWrite,
                    Share = FileShare.None,
                    UnixCreateMode = (UnixFileMode)DurableFile.OwnerOnly,
                });
                if (!IsRemoved(file))
                    return new DirectoryLock(file, name != Standing);
                file.Dispose();
            }
            catch (IOException) when (clock.Elapsed < Patience && File.Exists(path))
            {
                using var pause = new ManualResetEventSlim();
                pause.Wait(Pause);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new JoinException("join-directory", $"{directory} cannot be used: {(File.Exists(path) && e is not UnauthorizedAccessException
                    ? "another join, or the API server, works there" : InWords.Of(e))}", e);
            }
        }
    }

    public void Dispose()
    {
        // Still ours: whoever waits for it gets a file without a name, and sees that.
        if (_remove && File.Exists(_file.Name))
            File.Delete(_file.Name);
        _file.Dispose();
    }

    /// <summary>Its former holder removed it between our opening and our locking.</summary>
    private static bool IsRemoved(FileStream file) =>
        new FileInfo($"/proc/self/fd/{file.SafeFileHandle.DangerousGetHandle()}").LinkTarget?.EndsWith(" (deleted)", StringComparison.Ordinal) == true;
}
