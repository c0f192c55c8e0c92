using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <summary>IpIdentityPair ↔ bytes. The busiest codec: a joining agent reads one value per pod of every other cluster.</summary>
public static class IpIdentityPairCodec
{
    /// <exception cref="ArgumentException">An address or mask that is not one.</exception>
    public static byte[] Encode(IpIdentityPair pair) => WireWriter.Write(pair, Write);

    public static bool TryDecode(
        ReadOnlySpan<byte> json, [NotNullWhen(true)] out IpIdentityPair? pair, [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, null, Read, out pair, out rejection);

    internal static bool TryDecode(
        ReadOnlySpan<byte> json,
        StringCache strings,
        [NotNullWhen(true)] out IpIdentityPair? pair,
        [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, strings, Read, out pair, out rejection);

    private static void Write(Utf8JsonWriter writer, IpIdentityPair pair)
    {
        var ip = WireMask.CanonicalIp("IP", pair.IP);
        if (ip.Length == 0)
            throw new ArgumentException("IP is empty: an ipcache entry is about one address or range");
        if (pair.Mask is not null && !WireMask.TryDecode(pair.Mask, ip.Contains(':'), out _))
            throw new ArgumentException($"Mask {Quoted.Text(pair.Mask)} is no mask for {ip}");
        writer.WriteStartObject();
        writer.WriteString("IP", ip);
        writer.WriteString("Mask", pair.Mask);
        writer.WriteString("HostIP", WireMask.CanonicalIp("HostIP", pair.HostIP));
        writer.WriteNumber("ID", pair.ID);
        writer.WriteNumber("Key", pair.Key);
        writer.WriteString("Metadata", pair.Metadata);
        WriteUnlessEmpty(writer, "K8sNamespace", pair.K8sNamespace);
        WriteUnlessEmpty(writer, "K8sPodName", pair.K8sPodName);
        WriteUnlessEmpty(writer, "K8sServiceAccount", pair.K8sServiceAccount);
        if (pair.NamedPorts is { Count: > 0 })
        {
            writer.WriteStartArray("NamedPorts");
            foreach (var port in pair.NamedPorts)
            {
                writer.WriteStartObject();
                writer.WriteString("Name", port.Name);
                writer.WriteNumber("Port", port.Port);
                writer.WriteString("Protocol", port.Protocol);
                writer.WriteEndObject();
            }
            writer.WriteEndArray();
        }
        writer.WriteEndObject();
    }

    private static void WriteUnlessEmpty(Utf8JsonWriter writer, string name, string? value)
    {
        if (!string.IsNullOrEmpty(value))
            writer.WriteString(name, value);
    }

    private static IpIdentityPair Read(ref GoJsonReader json)
    {
        string ip = "", hostIp = "", metadata = "", podNamespace = "", pod = "", serviceAccount = "";
        string? mask = null;
        uint id = 0, key = 0;
        List<WireNamedPort>? ports = null;
        if (json.ReadObject())
        {
            while (json.NextField())
            {
                if (json.Is("IP"u8))
                    ip = json.ReadIp(ip);
                else if (json.Is("Mask"u8))
                    mask = json.ReadBase64();
                else if (json.Is("HostIP"u8))
                    hostIp = json.ReadIp(hostIp, shared: true);
                else if (json.Is("ID"u8))
                    id = json.ReadUnsigned(uint.MaxValue, id);
                else if (json.Is("Key"u8))
                    key = json.ReadUnsigned(byte.MaxValue, key);
                else if (json.Is("Metadata"u8))
                    metadata = json.ReadSharedText(metadata);
                else if (json.Is("K8sNamespace"u8))
                    podNamespace = json.ReadSharedText(podNamespace);
                else if (json.Is("K8sPodName"u8))
                    pod = json.ReadText(pod);
                else if (json.Is("K8sServiceAccount"u8))
                    serviceAccount = json.ReadSharedText(serviceAccount);
                else if (json.Is("NamedPorts"u8))
                    ports = ReadPorts(ref json);
                else
                    json.Skip();
            }
        }
        return new IpIdentityPair
        {
            IP = ip,
            Mask = mask,
            HostIP = hostIp,
            ID = id,
            Key = (byte)key,
            Metadata = metadata,
            K8sNamespace = NullIfEmpty(podNamespace),
            K8sPodName = NullIfEmpty(pod),
            K8sServiceAccount = NullIfEmpty(serviceAccount),
            NamedPorts = ports,
        };
    }

    private static string? NullIfEmpty(string text) => text.Length == 0 ? null : text;

    private static List<WireNamedPort>? ReadPorts(ref GoJsonReader json)
    {
        if (!json.ReadArray())
            return null;
        var ports = new List<WireNamedPort>();
        while (json.NextItem())
        {
            string name = "", protocol = "";
            uint port = 0;
            if (json.ReadObject())
            {
                while (json.NextField())
                {
                    if (json.Is("Name"u8))
                        name = json.ReadSharedText(name);
                    else if (json.Is("Port"u8))
                        port = json.ReadUnsigned(ushort.MaxValue, port);
                    else if (json.Is("Protocol"u8))
                        protocol = json.ReadSharedText(protocol);
                    else
                        json.Skip();
                }
            }
            ports.Add(new WireNamedPort { Name = name, Port = (ushort)port, Protocol = protocol });
        }
        return ports;
    }
}
