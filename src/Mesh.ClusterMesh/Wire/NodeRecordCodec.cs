using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <summary>NodeRecord ↔ bytes. Every field is written, null and "" included; fields keep the order in which Cilium writes them.</summary>
public static class NodeRecordCodec
{
    /// <exception cref="ArgumentException">An address or range that is not one: a peer would reject the node, or crash on it.</exception>
    public static byte[] Encode(NodeRecord node) => WireWriter.Write(node, Write);

    public static bool TryDecode(
        ReadOnlySpan<byte> json, [NotNullWhen(true)] out NodeRecord? node, [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, null, Read, out node, out rejection);

    private static void Write(Utf8JsonWriter writer, NodeRecord node)
    {
        writer.WriteStartObject();
        writer.WriteString("Name", node.Name);
        writer.WriteString("Cluster", node.Cluster);
        if (node.IPAddresses is null)
        {
            writer.WriteNull("IPAddresses");
        }
        else
        {
            writer.WriteStartArray("IPAddresses");
            foreach (var address in node.IPAddresses)
            {
                writer.WriteStartObject();
                writer.WriteString("Type", address.Type);
                writer.WriteString("IP", WireMask.CanonicalIp("IPAddresses", address.IP));
                writer.WriteEndObject();
            }
            writer.WriteEndArray();
        }
        WriteCidr(writer, "IPv4AllocCIDR", node.IPv4AllocCIDR);
        WriteCidrs(writer, "IPv4SecondaryAllocCIDRs", node.IPv4SecondaryAllocCIDRs);
        WriteCidr(writer, "IPv6AllocCIDR", node.IPv6AllocCIDR);
        WriteCidrs(writer, "IPv6SecondaryAllocCIDRs", node.IPv6SecondaryAllocCIDRs);
        writer.WriteString("IPv4HealthIP", WireMask.CanonicalIp("IPv4HealthIP", node.IPv4HealthIP));
        writer.WriteString("IPv6HealthIP", WireMask.CanonicalIp("IPv6HealthIP", node.IPv6HealthIP));
        writer.WriteString("IPv4IngressIP", WireMask.CanonicalIp("IPv4IngressIP", node.IPv4IngressIP));
        writer.WriteString("IPv6IngressIP", WireMask.CanonicalIp("IPv6IngressIP", node.IPv6IngressIP));
        writer.WriteNumber("ClusterID", node.ClusterID);
        writer.WriteString("Source", node.Source);
        writer.WriteNumber("EncryptionKey", node.EncryptionKey);
        writer.WriteTextMap("Labels", node.Labels);
        writer.WriteTextMap("Annotations", node.Annotations);
        writer.WriteNumber("NodeIdentity", node.NodeIdentity);
        writer.WriteString("WireguardPubKey", node.WireguardPubKey);
        writer.WriteString("BootID", node.BootID);
        writer.WriteEndObject();
    }

    private static void WriteCidrs(Utf8JsonWriter writer, string name, IReadOnlyList<WireCidr>? cidrs)
    {
        if (cidrs is null)
        {
            writer.WriteNull(name);
            return;
        }
        writer.WriteStartArray(name);
        foreach (var cidr in cidrs)
            WriteCidr(writer, name, cidr, named: false);
        writer.WriteEndArray();
    }

    private static void WriteCidr(Utf8JsonWriter writer, string name, WireCidr? cidr, bool named = true)
    {
        if (cidr is null && named)
        {
            writer.WriteNull(name);
            return;
        }
        // Cilium dereferences what {} decodes to.
        if (cidr is null || !cidr.TryToPrefix(out _))
            throw new ArgumentException($"{name} {Quoted.Text($"{cidr?.IP} {cidr?.Mask}")} is not an address range");
        if (named)
            writer.WritePropertyName(name);
        writer.WriteStartObject();
        writer.WriteString("IP", WireMask.CanonicalIp(name, cidr.IP));
        writer.WriteString("Mask", cidr.Mask);
        writer.WriteEndObject();
    }

    private static NodeRecord Read(ref GoJsonReader json)
    {
        var node = new Draft();
        if (json.ReadObject())
        {
            while (json.NextField())
                node.ReadField(ref json);
        }
        return node.Finish();
    }

    /// <summary>The fields met so far; a later member may still replace an earlier one.</summary>
    private sealed class Draft
    {
        private string _name = "", _cluster = "", _health4 = "", _health6 = "", _ingress4 = "", _ingress6 = "";
        private string _source = "", _wireguard = "", _boot = "";
        private uint _clusterId, _identity, _key;
        private List<WireNodeAddress>? _addresses;
        private WireCidr? _pods4, _pods6;
        private List<WireCidr>? _morePods4, _morePods6;
        private Dictionary<string, string>? _labels, _annotations;

        public void ReadField(ref GoJsonReader json)
        {
            if (json.Is("Name"u8))
                _name = json.ReadText(_name);
            else if (json.Is("Cluster"u8))
                _cluster = json.ReadSharedText(_cluster);
            else if (json.Is("IPAddresses"u8))
                _addresses = ReadAddresses(ref json);
            else if (json.Is("IPv4AllocCIDR"u8))
                _pods4 = ReadCidr(ref json, "IPv4AllocCIDR");
            else if (json.Is("IPv6AllocCIDR"u8))
                _pods6 = ReadCidr(ref json, "IPv6AllocCIDR");
            else if (json.Is("IPv4SecondaryAllocCIDRs"u8))
                _morePods4 = ReadCidrs(ref json, "IPv4SecondaryAllocCIDRs");
            else if (json.Is("IPv6SecondaryAllocCIDRs"u8))
                _morePods6 = ReadCidrs(ref json, "IPv6SecondaryAllocCIDRs");
            else if (json.Is("IPv4HealthIP"u8))
                _health4 = json.ReadIp(_health4);
            else if (json.Is("IPv6HealthIP"u8))
                _health6 = json.ReadIp(_health6);
            else if (json.Is("IPv4IngressIP"u8))
                _ingress4 = json.ReadIp(_ingress4);
            else if (json.Is("IPv6IngressIP"u8))
                _ingress6 = json.ReadIp(_ingress6);
            else if (json.Is("ClusterID"u8))
                _clusterId = json.ReadUnsigned(uint.MaxValue, _clusterId);
            else if (json.Is("Source"u8))
                _source = json.ReadSharedText(_source);
            else if (json.Is("EncryptionKey"u8))
                _key = json.ReadUnsigned(byte.MaxValue, _key);
            else if (json.Is("Labels"u8))
                _labels = json.ReadTextMap(_labels);
            else if (json.Is("Annotations"u8))
                _annotations = json.ReadTextMap(_annotations);
            else if (json.Is("NodeIdentity"u8))
                _identity = json.ReadUnsigned(uint.MaxValue, _identity);
            else if (json.Is("WireguardPubKey"u8))
                _wireguard = json.ReadText(_wireguard);
            else if (json.Is("BootID"u8))
                _boot = json.ReadText(_boot);
            else
                json.Skip();
        }

        public NodeRecord Finish() => new()
        {
            Name = _name,
            Cluster = _cluster,
            IPAddresses = _addresses,
            IPv4AllocCIDR = _pods4,
            IPv4SecondaryAllocCIDRs = _morePods4,
            IPv6AllocCIDR = _pods6,
            IPv6SecondaryAllocCIDRs = _morePods6,
            IPv4HealthIP = _health4,
            IPv6HealthIP = _health6,
            IPv4IngressIP = _ingress4,
            IPv6IngressIP = _ingress6,
            ClusterID = _clusterId,
            Source = _source,
            EncryptionKey = (byte)_key,
            Labels = _labels,
            Annotations = _annotations,
            NodeIdentity = _identity,
            WireguardPubKey = _wireguard,
            BootID = _boot,
        };
    }

    private static List<WireNodeAddress>? ReadAddresses(ref GoJsonReader json)
    {
        if (!json.ReadArray())
            return null;
        var addresses = new List<WireNodeAddress>();
        while (json.NextItem())
        {
            string type = "", ip = "";
            if (json.ReadObject())
            {
                while (json.NextField())
                {
                    if (json.Is("Type"u8))
                        type = json.ReadText(type);
                    else if (json.Is("IP"u8))
                        ip = json.ReadIp(ip);
                    else
                        json.Skip();
                }
            }
            addresses.Add(new WireNodeAddress { Type = type, IP = ip });
        }
        return addresses;
    }

    private static List<WireCidr>? ReadCidrs(ref GoJsonReader json, string field)
    {
        if (!json.ReadArray())
            return null;
        var cidrs = new List<WireCidr>();
        while (json.NextItem())
            cidrs.Add(ReadCidr(ref json, field) ?? throw new RejectedRecordException($"'{field}' holds a null"));
        return cidrs;
    }

    private static WireCidr? ReadCidr(ref GoJsonReader json, string field)
    {
        if (!json.ReadObject())
            return null;
        string ip = "", mask = "";
        while (json.NextField())
        {
            if (json.Is("IP"u8))
                ip = json.ReadIp(ip);
            else if (json.Is("Mask"u8))
                mask = json.ReadBase64() ?? "";
            else
                json.Skip();
        }
        var cidr = new WireCidr { IP = ip, Mask = mask };
        return cidr.TryToPrefix(out _)
            ? cidr
            : throw new RejectedRecordException($"'{field}' is no address range: IP {Quoted.Text(ip)}, mask {Quoted.Text(mask)}");
    }
}
