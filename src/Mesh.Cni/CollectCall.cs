using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Netlink;

namespace Mesh.Cni;

/// <summary>GC: of this network, whatever is not of a living attachment goes: devices here, registrations at the agent. With the agent
/// away the devices go all the same, and the agent forgets pods without a device by itself.</summary>
internal static class CollectCall
{
    public static byte[] Run(CallConfiguration configuration)
    {
        if (configuration.Valid is not { } valid)
            throw new CniException(CniCode.BadConfiguration, "cni.dev/valid-attachments is missing: without it nothing is known to be garbage");
        var living = valid.Select(Naming.HostDevice).ToHashSet(StringComparer.Ordinal);
        using (var node = new LinkRequests())
            foreach (var link in node.List())
                if (link.Alias?.StartsWith(Naming.AliasStart(configuration.Network), StringComparison.Ordinal) == true && !living.Contains(link.Name))
                    node.Delete(link.Name);
        try
        {
            var body = new CniAttachments { Network = configuration.Network, Attachments = valid };
            new AgentSocket(configuration.Socket).Ask("POST", "cni/gc", JsonSerializer.SerializeToUtf8Bytes(body, CniJson.Default.CniAttachments));
        }
        catch (AgentAwayException away)
        {
            Console.Error.WriteLine($"mesh-cni: {away.Message}; devices are removed, and the agent will see that they are gone");
        }
        return [];
    }
}
