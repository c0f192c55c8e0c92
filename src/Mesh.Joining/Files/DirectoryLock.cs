using System.Diagnostics;

namespace Mesh.Joining.Files;

/// <summary>
/// One at a time in a join directory, over processes: the API server and the command line change the same files. The lock is the open
/// file itself, so it ends with its holder, however that ends.
/// </summary>
internal sealed class DirectoryLock : IDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(5);
    private readonly FileStream _file;

    private DirectoryLock(FileStream file) => _file = file;

    /// <exception cref="JoinException">Somebody else held it for ten seconds, or the directory cannot be used.</exception>
    public static DirectoryLock Take(string directory, string name = "lock")
    {
        var path = Path.Combine(directory, name);
        var clock = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                DurableFile.MakePrivateDirectory(directory);
                return new DirectoryLock(new FileStream(path, new FileStreamOptions
                {
                    Mode = FileMode.OpenOrCreate,
                    Access = FileAccess.ReadWrite,
                    Share = FileShare.None,
                    UnixCreateMode = (UnixFileMode)DurableFile.OwnerOnly,
                }));
            }
            catch (IOException) when (clock.Elapsed < Patience && File.Exists(path))
            {
                using var pause = new ManualResetEventSlim();
                pause.Wait(Pause);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new JoinException("join-directory", $"{directory} cannot be used: {e.Message}", e);
            }
        }
    }

    public void Dispose() => _file.Dispose();
}
