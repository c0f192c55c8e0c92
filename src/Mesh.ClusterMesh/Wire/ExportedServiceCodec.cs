using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <summary>ExportedService ↔ bytes. What Kubernetes would not take as a Service is rejected on reading: it could be no import. Labels and
/// annotations are written under both spellings that readers know, and read from either.</summary>
public static class ExportedServiceCodec
{
    private const string TimeFormat = "yyyy-MM-dd'T'HH:mm:ssK";
    private const string FineTimeFormat = "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK";

    public static byte[] Encode(ExportedService service) => WireWriter.Write(service, Write);

    public static bool TryDecode(
        ReadOnlySpan<byte> json, [NotNullWhen(true)] out ExportedService? service, [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, null, Read, out service, out rejection);

    private static void Write(Utf8JsonWriter writer, ExportedService service)
    {
        writer.WriteStartObject();
        writer.WriteString("cluster", service.Cluster);
        writer.WriteString("name", service.Name);
        writer.WriteString("namespace", service.Namespace);
        WriteMap(writer, "labels", "Labels", service.Labels);
        WriteMap(writer, "annotations", "Annotations", service.Annotations);
        writer.WriteString("exportCreationTimestamp", service.Created.UtcDateTime.ToString(TimeFormat, CultureInfo.InvariantCulture));
        writer.WriteStartArray("ports");
        foreach (var port in service.Ports)
        {
            writer.WriteStartObject();
            if (port.Name.Length > 0)
                writer.WriteString("name", port.Name);
            writer.WriteString("protocol", port.Protocol);
            if (port.AppProtocol is not null)
                writer.WriteString("appProtocol", port.AppProtocol);
            writer.WriteNumber("port", port.Port);
            writer.WriteEndObject();
        }
        writer.WriteEndArray();
        writer.WriteString("type", service.Headless ? "Headless" : "ClusterSetIP");
        writer.WriteString("sessionAffinity", service.ClientIPAffinity ? "ClientIP" : "None");
        if (service.AffinityTimeout is { } timeout)
        {
            writer.WriteStartObject("sessionAffinityConfig");
            writer.WriteStartObject("clientIP");
            writer.WriteNumber("timeoutSeconds", timeout);
            writer.WriteEndObject();
            writer.WriteEndObject();
        }
        if (service.IpFamilies.Count > 0)
        {
            writer.WriteStartArray("ipFamilies");
            foreach (var family in service.IpFamilies)
                writer.WriteStringValue(family);
            writer.WriteEndArray();
        }
        if (service.InternalTrafficPolicy is { } policy)
            writer.WriteString("internalTrafficPolicy", policy);
        if (service.TrafficDistribution is { } distribution)
            writer.WriteString("trafficDistribution", distribution);
        writer.WriteEndObject();
    }

    private static void WriteMap(Utf8JsonWriter writer, string name, string capitalised, IReadOnlyDictionary<string, string> map)
    {
        if (map.Count == 0)
            return;
        writer.WriteTextMap(name, map);
        writer.WriteTextMap(capitalised, map);
    }

    private static ExportedService Read(ref GoJsonReader json)
    {
        string cluster = "", ns = "", name = "", created = "", type = "", affinity = "", policy = "", distribution = "";
        Dictionary<string, string>? labels = null, oldLabels = null, annotations = null, oldAnnotations = null;
        List<ExportedPort> ports = [];
        List<string> families = [];
        uint? timeout = null;
        if (json.ReadObject())
        {
            while (json.NextField())
            {
                if (json.Is("cluster"u8))
                    cluster = json.ReadText(cluster);
                else if (json.Is("namespace"u8))
                    ns = json.ReadText(ns);
                else if (json.Is("name"u8))
                    name = json.ReadText(name);
                else if (json.Is("exportCreationTimestamp"u8))
                    created = json.ReadText(created);
                else if (json.Is("ports"u8))
                    ports = ReadPorts(ref json);
                else if (json.Is("type"u8))
                    type = json.ReadText(type);
                else if (json.Is("sessionAffinity"u8))
                    affinity = json.ReadText(affinity);
                else if (json.Is("sessionAffinityConfig"u8))
                    timeout = ReadAffinityConfig(ref json);
                else if (json.IsExactly("labels"u8))
                    labels = json.ReadTextMap(labels);
                else if (json.Is("labels"u8))
                    oldLabels = json.ReadTextMap(oldLabels);
                else if (json.IsExactly("annotations"u8))
                    annotations = json.ReadTextMap(annotations);
                else if (json.Is("annotations"u8))
                    oldAnnotations = json.ReadTextMap(oldAnnotations);
                else if (json.Is("ipFamilies"u8))
                    families = ReadFamilies(ref json);
                else if (json.Is("internalTrafficPolicy"u8))
                    policy = json.ReadText(policy);
                else if (json.Is("trafficDistribution"u8))
                    distribution = json.ReadText(distribution);
                else
                    json.Skip();
            }
        }
        ExportRules.Name("namespace", ns);
        ExportRules.Name("name", name);
        return new ExportedService
        {
            Cluster = cluster,
            Namespace = ns,
            Name = name,
            Created = Time(created),
            Ports = ports,
            Headless = OneOf("type", type, "ClusterSetIP", "Headless") == "Headless",
            ClientIPAffinity = OneOf("sessionAffinity", affinity, "None", "ClientIP") == "ClientIP",
            AffinityTimeout = timeout,
            Labels = ExportRules.Labels(labels is { Count: > 0 } ? labels : oldLabels ?? []),
            Annotations = ExportRules.Annotations(annotations is { Count: > 0 } ? annotations : oldAnnotations ?? []),
            IpFamilies = families,
            InternalTrafficPolicy = policy.Length == 0 ? null : OneOf("internalTrafficPolicy", policy, "Cluster", "Local"),
            TrafficDistribution = distribution.Length == 0 ? null
                : OneOf("trafficDistribution", distribution, "PreferClose", "PreferSameZone", "PreferSameNode"),
        };
    }

    private static DateTimeOffset Time(string text)
    {
        if (DateTimeOffset.TryParseExact(text, [TimeFormat, FineTimeFormat], CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time)
            && time.UtcDateTime.Year > 1)
            return time.ToUniversalTime();
        throw new RejectedRecordException($"exportCreationTimestamp {Quoted.Text(text)} is no time");
    }

    private static string OneOf(string field, string value, params ReadOnlySpan<string> allowed)
    {
        foreach (var word in allowed)
        {
            if (word == value)
                return word;
        }
        throw new RejectedRecordException($"{field} {Quoted.Text(value)} must be {string.Join(" or ", allowed.ToArray())}");
    }

    private static List<ExportedPort> ReadPorts(ref GoJsonReader json)
    {
        var ports = new List<ExportedPort>();
        if (!json.ReadArray())
            return ports;
        while (json.NextItem())
        {
            string name = "", protocol = "TCP", appProtocol = "";
            uint number = 0;
            if (!json.ReadObject())
                throw new RejectedRecordException("one of its ports is null");
            while (json.NextField())
            {
                if (json.Is("name"u8))
                    name = json.ReadText(name);
                else if (json.Is("protocol"u8))
                    protocol = json.ReadText(protocol) is { Length: > 0 } given ? given : "TCP";
                else if (json.Is("appProtocol"u8))
                    appProtocol = json.ReadText(appProtocol);
                else if (json.Is("port"u8))
                    number = json.ReadUnsigned(ushort.MaxValue, number);
                else
                    json.Skip();
            }
            ports.Add(ExportRules.Port(new ExportedPort(name, OneOf("protocol", protocol, "TCP", "UDP", "SCTP"), (ushort)number,
                appProtocol.Length == 0 ? null : appProtocol)));
        }
        if (ports.Count > 1 && ports.Any(port => port.Name.Length == 0))
            throw new RejectedRecordException("one of its several ports has no name");
        if (ports.DistinctBy(port => port.Name).Count() != ports.Count || ports.DistinctBy(port => (port.Protocol, port.Port)).Count() != ports.Count)
            throw new RejectedRecordException("two of its ports are the same");
        return ports;
    }

    private static List<string> ReadFamilies(ref GoJsonReader json)
    {
        var families = new List<string>();
        if (!json.ReadArray())
            return families;
        while (json.NextItem())
        {
            var family = OneOf("ipFamilies", json.ReadText(""), "IPv4", "IPv6");
            if (!families.Contains(family))
                families.Add(family);
        }
        return families;
    }

    private static uint? ReadAffinityConfig(ref GoJsonReader json)
    {
        uint? timeout = null;
        if (!json.ReadObject())
            return null;
        while (json.NextField())
        {
            if (!json.Is("clientIP"u8))
            {
                json.Skip();
                continue;
            }
            if (!json.ReadObject())
                continue;
            while (json.NextField())
            {
                if (json.Is("timeoutSeconds"u8))
                    timeout = json.ReadUnsigned(ExportRules.LongestAffinity, timeout ?? 0);
                else
                    json.Skip();
            }
        }
        return timeout is 0 ? null : timeout;
    }
}
