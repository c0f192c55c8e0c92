using System.Text.Json;
using Mesh.Model;
using Mesh.Netlink;

namespace Mesh.Cni;

/// <summary>CHECK: everything is as ADD said: the device in the container with its addresses and routes, its other end, and the agent's
/// registration. Changes nothing.</summary>
internal static class CheckCall
{
    public static byte[] Run(CallEnvironment call, CallConfiguration configuration)
    {
        if (!configuration.Since("0.4.0"))
            throw new CniException(CniCode.IncompatibleVersion, $"cniVersion {configuration.Version} has no CHECK: it came with 0.4.0");
        if (configuration.Previous is not { } previous)
            throw new CniException(CniCode.BadConfiguration, "prevResult is missing: CHECK compares with what ADD gave");
        using var space = Space.Open(call.Space);
        var host = Naming.HostDevice(call.Attachment);
        using (var node = new LinkRequests())
            if (node.Find(host) is not { IsUp: true })
                throw Changed($"device {host} of the node is gone or down");
        var expected = Expected(previous, call.Device);
        space.Run(() =>
        {
            Compare(call.Device, expected);
            return true;
        });
        try
        {
            new AgentSocket(configuration.Socket).Ask("GET", $"endpoint/{Uri.EscapeDataString($"cni-attachment-id:{call.Attachment}")}");
        }
        catch (NotKnownException)
        {
            throw Changed($"the agent does not know {call.Attachment}");
        }
        return [];
    }

    private sealed record ExpectedDevice(string Mac, List<(IpAddr Address, IpAddr? Gateway)> Addresses);

    private static ExpectedDevice Expected(JsonElement previous, string device)
    {
        var index = 0;
        foreach (var item in Items(previous, "interfaces"))
        {
            if (Text(item, "name") == device && Text(item, "sandbox").Length > 0)
            {
                var addresses = new List<(IpAddr, IpAddr?)>();
                foreach (var ip in Items(previous, "ips"))
                    if (ip.TryGetProperty("interface", out var of) && of.ValueKind == JsonValueKind.Number && of.GetInt32() == index
                        && IpPrefix.TryParse(Text(ip, "address"), out var address))
                        addresses.Add((address.Address, IpAddr.TryParse(Text(ip, "gateway"), out var gateway) ? gateway : null));
                return new ExpectedDevice(Text(item, "mac"), addresses);
            }
            index++;
        }
        throw new CniException(CniCode.BadConfiguration, $"prevResult has no interface {device} inside a container: is it of another plugin?");
    }

    private static void Compare(string name, ExpectedDevice expected)
    {
        using var pod = new LinkRequests();
        var device = pod.Find(name) ?? throw Changed($"device {name} is gone from the container");
        if (!device.IsUp)
            throw Changed($"device {name} is down");
        if (expected.Mac.Length > 0 && !string.Equals(device.Address.ToString(), expected.Mac, StringComparison.OrdinalIgnoreCase))
            throw Changed($"device {name} has the address {device.Address} instead of {expected.Mac}");
        var present = pod.Addresses(device.Index).Select(pair => pair.Address).ToHashSet();
        var routes = pod.Routes();
        foreach (var (address, gateway) in expected.Addresses)
        {
            if (!present.Contains(address))
                throw Changed($"device {name} has lost its address {address}");
            if (gateway is { } via && !routes.Any(route => route.Destination.Length == 0 && route.Gateway == via && route.InterfaceIndex == device.Index))
                throw Changed($"the default route via {via} is gone");
        }
    }

    private static CniException Changed(string what) => new(CniCode.Changed, $"{what}: not as ADD left it");

    private static IEnumerable<JsonElement> Items(JsonElement parent, string name) =>
        parent.TryGetProperty(name, out var list) && list.ValueKind == JsonValueKind.Array
            ? list.EnumerateArray().Where(item => item.ValueKind == JsonValueKind.Object)
            : [];

    private static string Text(JsonElement parent, string name) =>
        parent.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() ?? "" : "";
}
