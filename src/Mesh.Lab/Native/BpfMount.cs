using System.ComponentModel;

namespace Mesh.Lab.Native;

/// <summary>The file system that pins live on.</summary>
public static class BpfMount
{
    public const string Usual = "/sys/fs/bpf";

    /// <summary>Mounts a bpffs at the path, unless one is there.</summary>
    /// <exception cref="LabException">The kernel refused; says why and what helps.</exception>
    public static void Ensure(string path)
    {
        if (File.ReadLines("/proc/self/mounts").Select(line => line.Split(' ')).Any(mount => mount is [_, var where, "bpf", ..] && where == path))
            return;
        try
        {
            Libc.Mount("bpf", path, "bpf", Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC);
        }
        catch (Win32Exception e)
        {
            throw new LabException($"no bpffs could be mounted: {e.Message}. Mount it before (`mount -t bpf bpf {path}`), "
                + "or give a container /sys/fs/bpf of its host and CAP_SYS_ADMIN");
        }
    }
}
