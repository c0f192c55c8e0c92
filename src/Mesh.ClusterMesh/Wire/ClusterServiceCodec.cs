using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;
using Ports = System.Collections.Generic.IReadOnlyDictionary<string, Mesh.ClusterMesh.Wire.WirePort>;

namespace Mesh.ClusterMesh.Wire;

/// <summary>ClusterService ↔ bytes. Maps that are null are written as {}, as Cilium's exporter does; hostnames and zones only when
/// they say something, as since 1.19.</summary>
public static class ClusterServiceCodec
{
    /// <exception cref="ArgumentException">A frontend or backend that is no address: peers would reject the whole service.</exception>
    public static byte[] Encode(ClusterService service) => WireWriter.Write(service, Write);

    public static bool TryDecode(
        ReadOnlySpan<byte> json, [NotNullWhen(true)] out ClusterService? service, [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, null, Read, out service, out rejection);

    internal static bool TryDecode(
        ReadOnlySpan<byte> json,
        StringCache strings,
        [NotNullWhen(true)] out ClusterService? service,
        [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, strings, Read, out service, out rejection);

    private static void Write(Utf8JsonWriter writer, ClusterService service)
    {
        writer.WriteStartObject();
        writer.WriteString("cluster", service.Cluster);
        writer.WriteString("namespace", service.Namespace);
        writer.WriteString("name", service.Name);
        WriteAddresses(writer, "frontends", service.Frontends);
        WriteAddresses(writer, "backends", service.Backends);
        if (service.Hostnames is { Count: > 0 })
            writer.WriteTextMap("hostnames", service.Hostnames);
        if (service.Zones is { Count: > 0 })
            WriteZones(writer, service.Zones);
        writer.WriteTextMap("labels", service.Labels ?? Empty);
        writer.WriteTextMap("selector", service.Selector ?? Empty);
        writer.WriteBoolean("includeExternal", service.IncludeExternal);
        writer.WriteBoolean("shared", service.Shared);
        writer.WriteNumber("clusterID", service.ClusterId);
        if (service.Conditions is { Count: > 0 })
            writer.WriteTextMap("conditions", service.Conditions);
        writer.WriteEndObject();
    }

    private static readonly Dictionary<string, string> Empty = [];

    private static void WriteAddresses(Utf8JsonWriter writer, string name, IReadOnlyDictionary<string, Ports>? addresses)
    {
        writer.WriteStartObject(name);
        foreach (var (address, ports) in WireWriter.Sorted(addresses ?? new Dictionary<string, Ports>()))
        {
            var canonical = WireMask.CanonicalIp(name, address);
            if (canonical != address)
                throw new ArgumentException($"{name}: write the address {Quoted.Text(address)} as {Quoted.Text(canonical)}");
            if (canonical.Length == 0)
                throw new ArgumentException($"{name} holds an empty address: peers would reject the whole service");
            writer.WriteStartObject(address);
            foreach (var (portName, port) in WireWriter.Sorted(ports))
            {
                writer.WriteStartObject(portName);
                writer.WriteString("Protocol", port.Protocol);
                writer.WriteNumber("Port", port.Port);
                writer.WriteEndObject();
            }
            writer.WriteEndObject();
        }
        writer.WriteEndObject();
    }

    private static void WriteZones(Utf8JsonWriter writer, IReadOnlyDictionary<string, WireZone> zones)
    {
        writer.WriteStartObject("zones");
        foreach (var (address, zone) in WireWriter.Sorted(zones))
        {
            writer.WriteStartObject(address);
            writer.WriteString("zone", zone.Zone ?? "");
            if (zone.ForZones is { Count: > 0 })
            {
                writer.WriteStartArray("forZones");
                foreach (var hint in zone.ForZones)
                {
                    writer.WriteStartObject();
                    writer.WriteString("name", hint.Name ?? "");
                    writer.WriteEndObject();
                }
                writer.WriteEndArray();
            }
            writer.WriteEndObject();
        }
        writer.WriteEndObject();
    }

    private static ClusterService Read(ref GoJsonReader json)
    {
        string cluster = "", serviceNamespace = "", name = "";
        Dictionary<string, Ports>? frontends = null, backends = null;
        Dictionary<string, string>? hostnames = null, labels = null, selector = null, conditions = null;
        Dictionary<string, WireZone>? zones = null;
        bool includeExternal = false, shared = false;
        uint clusterId = 0;
        if (json.ReadObject())
        {
            while (json.NextField())
            {
                if (json.Is("cluster"u8))
                    cluster = json.ReadSharedText(cluster);
                else if (json.Is("namespace"u8))
                    serviceNamespace = json.ReadSharedText(serviceNamespace);
                else if (json.Is("name"u8))
                    name = json.ReadText(name);
                else if (json.Is("frontends"u8))
                    frontends = ReadAddresses(ref json, frontends);
                else if (json.Is("backends"u8))
                    backends = ReadAddresses(ref json, backends);
                else if (json.Is("hostnames"u8))
                    hostnames = json.ReadTextMap(hostnames);
                else if (json.Is("zones"u8))
                    zones = ReadZones(ref json, zones);
                else if (json.Is("labels"u8))
                    labels = json.ReadTextMap(labels);
                else if (json.Is("selector"u8))
                    selector = json.ReadTextMap(selector);
                else if (json.Is("includeExternal"u8))
                    includeExternal = json.ReadBool(includeExternal);
                else if (json.Is("shared"u8))
                    shared = json.ReadBool(shared);
                else if (json.Is("clusterID"u8))
                    clusterId = json.ReadUnsigned(uint.MaxValue, clusterId);
                else if (json.Is("conditions"u8))
                    conditions = json.ReadTextMap(conditions);
                else
                    json.Skip();
            }
        }
        return new ClusterService
        {
            Cluster = cluster,
            Namespace = serviceNamespace,
            Name = name,
            Frontends = frontends,
            Backends = backends,
            Hostnames = hostnames,
            Zones = zones,
            Labels = labels,
            Selector = selector,
            IncludeExternal = includeExternal,
            Shared = shared,
            ClusterId = clusterId,
            Conditions = conditions,
        };
    }

    private static Dictionary<string, Ports>? ReadAddresses(ref GoJsonReader json, Dictionary<string, Ports>? current)
    {
        if (!json.ReadObject())
            return null;
        current ??= new Dictionary<string, Ports>(StringComparer.Ordinal);
        while (json.NextField())
            current[json.FieldName()] = ReadPorts(ref json);
        return current;
    }

    private static Dictionary<string, WirePort> ReadPorts(ref GoJsonReader json)
    {
        var ports = new Dictionary<string, WirePort>(1, StringComparer.Ordinal);
        if (!json.ReadObject())
            return ports;
        while (json.NextField())
        {
            var name = json.FieldName();
            ports[name] = ReadPort(ref json) ?? throw new RejectedRecordException($"port {Quoted.Text(name)} is null");
        }
        return ports;
    }

    private static WirePort? ReadPort(ref GoJsonReader json)
    {
        if (!json.ReadObject())
            return null;
        var protocol = "";
        uint port = 0;
        while (json.NextField())
        {
            if (json.Is("Protocol"u8))
                protocol = json.ReadSharedText(protocol);
            else if (json.Is("Port"u8))
                port = json.ReadUnsigned(ushort.MaxValue, port);
            else
                json.Skip();
        }
        return new WirePort { Protocol = protocol, Port = (ushort)port };
    }

    private static Dictionary<string, WireZone>? ReadZones(ref GoJsonReader json, Dictionary<string, WireZone>? current)
    {
        if (!json.ReadObject())
            return null;
        current ??= new Dictionary<string, WireZone>(StringComparer.Ordinal);
        while (json.NextField())
            current[json.FieldName()] = ReadZone(ref json);
        return current;
    }

    private static WireZone ReadZone(ref GoJsonReader json)
    {
        var zone = "";
        List<WireForZone>? hints = null;
        if (json.ReadObject())
        {
            while (json.NextField())
            {
                if (json.Is("zone"u8))
                    zone = json.ReadSharedText(zone);
                else if (json.Is("forZones"u8))
                    hints = ReadHints(ref json);
                else
                    json.Skip();
            }
        }
        return new WireZone { Zone = zone, ForZones = hints };
    }

    private static List<WireForZone>? ReadHints(ref GoJsonReader json)
    {
        if (!json.ReadArray())
            return null;
        var hints = new List<WireForZone>();
        while (json.NextItem())
        {
            var name = "";
            if (json.ReadObject())
            {
                while (json.NextField())
                {
                    if (json.Is("name"u8))
                        name = json.ReadSharedText(name);
                    else
                        json.Skip();
                }
            }
            hints.Add(new WireForZone { Name = name });
        }
        return hints;
    }
}
