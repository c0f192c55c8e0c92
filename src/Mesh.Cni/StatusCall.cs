using System.Text.Json;

namespace Mesh.Cni;

/// <summary>STATUS: whether ADD can succeed now.</summary>
internal static class StatusCall
{
    public static byte[] Run(CallConfiguration configuration)
    {
        try
        {
            var status = JsonSerializer.Deserialize(new AgentSocket(configuration.Socket).Ask("GET", "ipam"), CniJson.Default.IpamStatus);
            return status?.Problem is null ? [] : throw new CniException(CniCode.NotAvailable, status.Problem);
        }
        catch (AgentAwayException away)
        {
            // What runs goes on: the kernel forwards without the agent.
            throw new CniException(CniCode.NotAvailable, away.Message, "pods that run keep their network");
        }
        catch (JsonException e)
        {
            throw new CniException(CniCode.NotAvailable, $"the agent on {configuration.Socket} answers with something else: {e.Message}");
        }
    }
}
