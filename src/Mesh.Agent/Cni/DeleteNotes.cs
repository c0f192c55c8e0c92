using System.Text;
using Mesh.Agent.Endpoints;
using Mesh.Agent.Ipam;

namespace Mesh.Agent.Cni;

/// <summary>
/// Pods that ended while no agent answered: the plugin removed the device and left a note, DIRECTORY/ATTACHMENT.delete, one line of
/// CONTAINER:IFNAME. Read at the start, before anything is given to new pods, and again while running: a plugin may have missed us by a moment.
/// </summary>
internal sealed class DeleteNotes(string directory)
{
    /// <summary>Beside the socket, where the plugin finds it too.</summary>
    public const string DirectoryName = "deleteQueue";

    private const string Extension = ".delete";
    private const int LongestNote = 1024;

    public static DeleteNotes Beside(string socketPath) =>
        new(Path.Combine(Path.GetDirectoryName(Path.GetFullPath(socketPath))!, DirectoryName));

    /// <summary>Does what the notes say. A note goes only after its pod.</summary>
    public void Work(EndpointRegistry endpoints, PodAddresses addresses, Action<string> log)
    {
        if (!Directory.Exists(directory))
            return;
        foreach (var path in Directory.EnumerateFiles(directory, "*" + Extension))
        {
            try
            {
                if (new FileInfo(path).Length <= LongestNote && File.ReadAllText(path, Encoding.UTF8).Trim() is { Length: > 0 } attachment)
                {
                    addresses.ReleaseAll(attachment);
                    if (endpoints.Remove($"cni-attachment-id:{attachment}"))
                        log($"pod {attachment} ended while no agent ran: removed");
                }
                File.Delete(path);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                log($"{path} cannot be worked off ({e.Message}): the addresses of the pod that it names stay in use");
            }
        }
    }
}
