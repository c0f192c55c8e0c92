using Mesh.Netlink;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Cni;

/// <summary>The container's network namespace, held open.</summary>
internal sealed class Space : IDisposable
{
    private Space(SafeFileHandle handle, string path)
    {
        Handle = handle;
        Path = path;
    }

    public SafeFileHandle Handle { get; }

    public string Path { get; }

    /// <exception cref="CniException">There is none, or it is not one that a container may have.</exception>
    public static Space Open(string path)
    {
        SafeFileHandle handle;
        try
        {
            handle = File.OpenHandle(path);
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new CniException(CniCode.UnknownContainer, $"CNI_NETNS {path} does not exist: the container is gone");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new CniException(CniCode.BadEnvironment, $"CNI_NETNS {path} cannot be opened: {e.Message}");
        }
        try
        {
            if (NamespaceThread.Run(handle, path, () => NamespaceThread.Current) != NamespaceThread.Current)
                return new Space(handle, path);
            handle.Dispose();
            throw new CniException(CniCode.BadEnvironment, $"CNI_NETNS {path} is the node's own network namespace: its pods need none");
        }
        catch (NetlinkException e)
        {
            handle.Dispose();
            throw new CniException(CniCode.BadEnvironment, $"CNI_NETNS: {e.Message}");
        }
    }

    public T Run<T>(Func<T> work) => NamespaceThread.Run(Handle, Path, work);

    public void Dispose() => Handle.Dispose();
}
