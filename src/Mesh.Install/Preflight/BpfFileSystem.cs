namespace Mesh.Install.Preflight;

/// <summary>The file system that pins live on.</summary>
public static class BpfFileSystem
{
    /// <summary>Mounts it where it is not mounted.</summary>
    /// <returns>False when it was.</returns>
    /// <exception cref="InstallException">The kernel refused; the message says why.</exception>
    public static bool Mount(string path) => HostFiles.MountBpf(path);
}
