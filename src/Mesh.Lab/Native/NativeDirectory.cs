using System.Runtime.InteropServices;

namespace Mesh.Lab.Native;

/// <summary>rmdir(2): .NET's Directory.Delete looks for children first, which a cgroup always has and never lets go.</summary>
internal static partial class NativeDirectory
{
    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int rmdir(string path);

    /// <summary>Null when the directory is gone, otherwise why it is not.</summary>
    public static string? Remove(string path)
    {
        if (rmdir(path) == 0)
            return null;
        var errno = Marshal.GetLastPInvokeError();
        return errno == Libc.ENOENT ? null : Marshal.GetPInvokeErrorMessage(errno);
    }
}
