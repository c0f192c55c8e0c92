namespace Mesh.Datapath.Tests.Kernel;

/// <summary>A bpffs of our own, unmounted with all its pins.</summary>
internal sealed class BpfFileSystem : IDisposable
{
    internal BpfFileSystem()
    {
        Path = Directory.CreateTempSubdirectory("mesh-datapath-").FullName;
        Command.Run("mount", "-t", "bpf", "bpf", Path);
    }

    internal string Path { get; }

    public void Dispose()
    {
        Command.Run("umount", Path);
        Directory.Delete(Path);
    }
}
