namespace Mesh.Cni;

/// <summary>A note for the agent that a pod has ended: SOCKET_DIRECTORY/deleteQueue/DEVICE.delete with CONTAINER:IFNAME in it. There whole
/// or not at all.</summary>
internal sealed class DeleteNote
{
    private readonly string _attachment;

    private DeleteNote(string path, string attachment)
    {
        Path = path;
        _attachment = attachment;
    }

    public string Path { get; }

    public static DeleteNote Of(string socket, string attachment) => new(System.IO.Path.Combine(
        System.IO.Path.GetDirectoryName(System.IO.Path.GetFullPath(socket)) ?? "/", "deleteQueue", $"{Naming.HostDevice(attachment)}.delete"), attachment);

    /// <exception cref="CniException">It could not be written: the runtime calls DEL again.</exception>
    public void Leave()
    {
        try
        {
            Directory.CreateDirectory(System.IO.Path.GetDirectoryName(Path)!);
            var aside = Path + ".new";
            using (var file = new FileStream(aside, FileMode.Create, FileAccess.Write))
            {
                file.Write(System.Text.Encoding.UTF8.GetBytes(_attachment + "\n"));
                file.Flush(flushToDisk: true);
            }
            File.Move(aside, Path, overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CniException(CniCode.InputOutput, $"the agent is away and {Path} cannot be written: {e.Message}: call DEL again");
        }
    }

    /// <summary>The same attachment lives again.</summary>
    public void Withdraw()
    {
        if (File.Exists(Path))
            File.Delete(Path);
    }
}
