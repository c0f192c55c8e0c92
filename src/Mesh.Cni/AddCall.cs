using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Model;
using Mesh.Netlink;

namespace Mesh.Cni;

/// <summary>
/// ADD: addresses reserved by the agent, the device made, the pod registered; the answer comes when the kernel forwards for it. Whatever
/// fails, what was done is undone. Killed at any point, this leaves at most a reservation, which ends by itself, and a device, which DEL
/// finds by its name or the kernel removes with the pod's namespace.
/// </summary>
internal static class AddCall
{
    public static byte[] Run(CallEnvironment call, CallConfiguration configuration)
    {
        if (configuration.Previous is not null)
            throw new CniException(CniCode.BadConfiguration, "prevResult: this plugin makes the pod's device and must be the first of the list");
        using var space = Space.Open(call.Space);
        if (space.Run(() => HasDevice(call.Device)))
            throw new CniException(CniCode.BadEnvironment,
                $"CNI_IFNAME {call.Device} exists already in {call.Space}: nothing was changed; call DEL for {call.Container} before another ADD");
        var agent = new AgentSocket(configuration.Socket);
        DeleteNote.Of(configuration.Socket, call.Attachment).Withdraw();
        PodDevice? made = null;
        try
        {
            var device = DeviceOf(call, configuration, Reserve(agent, call));
            try
            {
                device.Create(space.Handle, space.Path);
            }
            catch (NetlinkException e)
            {
                throw new CniException(CniCode.Kernel, e.Message);
            }
            made = device;
            Register(agent, call, configuration, device);
            return CallResult.Added(configuration, device, call.Space);
        }
        catch (Exception)
        {
            Undo(agent, call, configuration, made);
            throw;
        }
    }

    private static bool HasDevice(string name)
    {
        using var requests = new LinkRequests();
        return requests.Find(name) is not null;
    }

    private static IpamResponse Reserve(AgentSocket agent, CallEnvironment call)
    {
        var owner = Uri.EscapeDataString($"{call.Namespace}/{call.Pod}");
        var answer = agent.Ask("POST", $"ipam?owner={owner}&attachment={Uri.EscapeDataString(call.Attachment)}");
        return Decode(agent, answer);
    }

    private static IpamResponse Decode(AgentSocket agent, byte[] answer)
    {
        try
        {
            return JsonSerializer.Deserialize(answer, CniJson.Default.IpamResponse) ?? throw new JsonException("it is null");
        }
        catch (JsonException e)
        {
            throw new CniException(CniCode.Undecodable, $"the agent on {agent.Path} answered POST /v1/ipam with something else: {e.Message}");
        }
    }

    private static PodDevice DeviceOf(CallEnvironment call, CallConfiguration configuration, IpamResponse given)
    {
        var addresses = new List<(IpAddr, IpAddr)>();
        foreach (var one in (IpamAddress?[])[given.Ipv4, given.Ipv6])
            if (one is not null)
                addresses.Add(IpAddr.TryParse(one.Ip, out var address) && IpAddr.TryParse(one.Gateway, out var gateway)
                    ? (address, gateway)
                    : throw new CniException(CniCode.Undecodable, $"the agent gave address '{one.Ip}' with router '{one.Gateway}'"));
        if (addresses.Count == 0)
            throw new CniException(CniCode.Refused, "the agent gave no address");
        return new PodDevice
        {
            Name = call.Device,
            HostName = Naming.HostDevice(call.Attachment),
            Alias = Naming.Alias(configuration.Network, call.Attachment),
            Address = LinkAddress.Local(Random.Shared),
            HostAddress = LinkAddress.Local(Random.Shared),
            Mtu = (uint)given.DeviceMtu,
            Addresses = addresses,
        };
    }

    private static void Register(AgentSocket agent, CallEnvironment call, CallConfiguration configuration, PodDevice device)
    {
        string? First(bool v6) => device.Addresses.Where(pair => pair.Address.IsV6 == v6).Select(pair => pair.Address.ToString()).FirstOrDefault();
        agent.Ask("PUT", "endpoint/0", JsonSerializer.SerializeToUtf8Bytes(new EndpointChangeRequest
        {
            K8sNamespace = call.Namespace,
            K8sPodName = call.Pod,
            K8sUid = call.Arguments.GetValueOrDefault("K8S_POD_UID"),
            ContainerId = call.Container,
            ContainerInterfaceName = call.Device,
            CniNetwork = configuration.Network,
            InterfaceName = device.HostName,
            Mac = device.Address.ToString(),
            HostMac = device.HostAddress.ToString(),
            Addressing = new AddressPair { Ipv4 = First(v6: false), Ipv6 = First(v6: true) },
            SyncBuildEndpoint = true,
        }, CniJson.Default.EndpointChangeRequest));
    }

    /// <summary>The failure that brought us here is told; one of undoing would hide it, and DEL follows.</summary>
    private static void Undo(AgentSocket agent, CallEnvironment call, CallConfiguration configuration, PodDevice? made)
    {
        try
        {
            if (made is not null)
                PodDevice.Delete(made.HostName);
            DeleteCall.Forget(agent, call, configuration);
        }
        catch (Exception e) when (e is CniException or NetlinkException)
        {
            Console.Error.WriteLine($"mesh-cni: not undone: {e.Message}: DEL will do it");
        }
    }
}
