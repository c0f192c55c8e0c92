using Mesh.Netlink;

namespace Mesh.Cni;

/// <summary>
/// DEL: the device goes first, so that no address is free while somebody still sends from it; then the agent forgets the pod. With the agent
/// away a note is left, which it works off when it comes back. What is not there needs no end: that is success.
/// </summary>
internal static class DeleteCall
{
    public static byte[] Run(CallEnvironment call, CallConfiguration configuration)
    {
        PodDevice.Delete(Naming.HostDevice(call.Attachment));
        Forget(new AgentSocket(configuration.Socket), call, configuration);
        return [];
    }

    /// <exception cref="CniException">Neither could the agent be told nor a note be left.</exception>
    public static void Forget(AgentSocket agent, CallEnvironment call, CallConfiguration configuration)
    {
        try
        {
            agent.Ask("DELETE", $"endpoint/{Uri.EscapeDataString($"cni-attachment-id:{call.Attachment}")}");
        }
        catch (NotKnownException)
        {
            // It never was, or it has gone already.
        }
        catch (AgentAwayException away)
        {
            var note = DeleteNote.Of(configuration.Socket, call.Attachment);
            note.Leave();
            Console.Error.WriteLine($"mesh-cni: {away.Message}; the device is removed and {note.Path} is left for the agent");
        }
    }
}
