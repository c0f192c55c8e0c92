using System.Text.Encodings.Web;
using System.Text.Json;
using Mesh.Netlink;

namespace Mesh.Cni;

/// <summary>What is written to standard output: results in the shape of the caller's version, and errors.</summary>
internal static class CallResult
{
    public static byte[] Added(CallConfiguration configuration, PodDevice device, string space) => Write(json =>
    {
        json.WriteString("cniVersion", configuration.Version);
        json.WriteStartArray("interfaces");
        Interface(json, configuration, device.HostName, device.HostAddress, device.Mtu, null);
        Interface(json, configuration, device.Name, device.Address, device.Mtu, space);
        json.WriteEndArray();
        json.WriteStartArray("ips");
        foreach (var (address, gateway) in device.Addresses)
        {
            json.WriteStartObject();
            if (!configuration.Since("1.0.0"))
                json.WriteString("version", address.IsV6 ? "6" : "4");
            json.WriteNumber("interface", 1);
            json.WriteString("address", $"{address}/{address.Bits}");
            json.WriteString("gateway", gateway.ToString());
            json.WriteEndObject();
        }
        json.WriteEndArray();
        json.WriteStartArray("routes");
        foreach (var (address, gateway) in device.Addresses)
        {
            Route(json, $"{gateway}/{gateway.Bits}", null);
            Route(json, address.IsV6 ? "::/0" : "0.0.0.0/0", gateway.ToString());
        }
        json.WriteEndArray();
        json.WritePropertyName("dns");
        if (configuration.Dns is { } dns)
            dns.WriteTo(json);
        else
        {
            json.WriteStartObject();
            json.WriteEndObject();
        }
    });

    public static byte[] Versions(string asked) => Write(json =>
    {
        json.WriteString("cniVersion", asked);
        json.WriteStartArray("supportedVersions");
        foreach (var version in CallConfiguration.Versions)
            json.WriteStringValue(version);
        json.WriteEndArray();
    });

    public static byte[] Error(string version, CniException error) => Write(json =>
    {
        json.WriteString("cniVersion", version);
        json.WriteNumber("code", (int)error.Code);
        json.WriteString("msg", error.Message);
        if (error.Details is { } details)
            json.WriteString("details", details);
    });

    private static void Interface(Utf8JsonWriter json, CallConfiguration configuration, string name, LinkAddress address, uint mtu, string? space)
    {
        json.WriteStartObject();
        json.WriteString("name", name);
        json.WriteString("mac", address.ToString());
        if (configuration.Since("1.1.0"))
            json.WriteNumber("mtu", mtu);
        if (space is not null)
            json.WriteString("sandbox", space);
        json.WriteEndObject();
    }

    private static void Route(Utf8JsonWriter json, string destination, string? gateway)
    {
        json.WriteStartObject();
        json.WriteString("dst", destination);
        if (gateway is not null)
            json.WriteString("gw", gateway);
        json.WriteEndObject();
    }

    private static byte[] Write(Action<Utf8JsonWriter> content)
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            content(json);
            json.WriteEndObject();
        }
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }
}
