namespace Mesh.TestKit;

/// <summary>A bpffs of our own, unmounted with all its pins.</summary>
public sealed class BpfFileSystem : IDisposable
{
    public BpfFileSystem()
    {
        Path = Directory.CreateTempSubdirectory("mesh-bpffs-").FullName;
        ChildThread.Run("mount", "-t", "bpf", "bpf", Path);
    }

    public string Path { get; }

    public void Dispose()
    {
        ChildThread.Run("umount", Path);
        Directory.Delete(Path);
    }
}
