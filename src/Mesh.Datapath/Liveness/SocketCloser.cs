using System.Runtime.InteropServices;
using Mesh.Bpf;
using Mesh.Datapath.Loader;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Datapath.Liveness;

/// <summary>
/// Closes sockets whose backend is lost, in every network namespace of this machine that a process or a name holds. The programs decide
/// which (bpf/close.bpf.c): only sockets that this node's own hooks have translated are known to them, so namespaces of others lose
/// nothing by a look. Thread-safe.
/// </summary>
public sealed partial class SocketCloser : IDisposable
{
    private const int NetworkNamespace = 0x40000000;

    /// <summary>Where namespaces have names.</summary>
    private static readonly string[] Named = ["/run/netns", "/var/run/docker/netns"];

    private readonly Lock _lock = new();
    private readonly List<BpfIterator> _iterators;

    internal SocketCloser(IEnumerable<BpfProgram> programs) => _iterators = [.. programs.Select(program => new BpfIterator(program))];

    /// <summary>Looks at every socket once.</summary>
    /// <returns>How many namespaces were looked at.</returns>
    public int Close()
    {
        lock (_lock)
        {
            var namespaces = 0;
            Exception? failure = null;
            // A thread belongs to one namespace: this one ends with the work, and the others stay where they are.
            var thread = new Thread(() =>
            {
                try
                {
                    namespaces = CloseHere();
                }
                catch (BpfException exception)
                {
                    failure = exception;
                }
            })
            { IsBackground = true, Name = "socket closer" };
            thread.Start();
            thread.Join();
            return failure is null ? namespaces : throw new DatapathException($"sockets of lost backends stay open: {failure.Message}", failure);
        }
    }

    public void Dispose() => _iterators.ForEach(iterator => iterator.Dispose());

    private int CloseHere()
    {
        var seen = new HashSet<ulong>();
        foreach (var path in Candidates())
        {
            try
            {
                using var file = File.OpenHandle(path);
                // The inode is the namespace's, however many names and processes it has.
                if (!seen.Add(CgroupInode.Of(path)) || SetNamespace(file, NetworkNamespace) != 0)
                    continue;
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or DatapathException)
            {
                // It has gone meanwhile.
                continue;
            }
            foreach (var iterator in _iterators)
                iterator.Run();
        }
        return seen.Count;
    }

    private static IEnumerable<string> Candidates()
    {
        foreach (var directory in Named)
            if (Directory.Exists(directory))
                foreach (var file in Directory.EnumerateFiles(directory))
                    yield return file;
        var known = new HashSet<string>(StringComparer.Ordinal);
        foreach (var process in Directory.EnumerateDirectories("/proc"))
        {
            if (!char.IsAsciiDigit(Path.GetFileName(process)[0]))
                continue;
            var link = $"{process}/ns/net";
            if (LinkOf(link) is { } target && known.Add(target))
                yield return link;
        }
    }

    private static string? LinkOf(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // The process has ended.
            return null;
        }
    }

    [LibraryImport("libc", EntryPoint = "setns", SetLastError = true)]
    private static partial int SetNamespace(SafeFileHandle file, int kind);
}
