using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Mesh.ClusterMesh.Wire.Json;

namespace Mesh.ClusterMesh.Wire;

/// <summary>cilium/cluster-config/CLUSTER: what a cluster says of itself, read before anything else. STABLE.</summary>
public sealed record ClusterConfig
{
    /// <summary>0 when absent, which no mesh member may have.</summary>
    public uint Id { get; init; }

    /// <summary>Null when the member is missing altogether: only Cilium 1.13 leaves it out, later ones write at least {}.</summary>
    public ClusterCapabilities? Capabilities { get; init; }

    /// <summary>What every consumer from 1.14 to 1.20 understands: canaries for all four resources, and no optional exports.</summary>
    /// <param name="serviceExports">Exports of services are published too; a reader of them waits for their canary.</param>
    public static ClusterConfig SafeProfile(uint id, int maxConnectedClusters, bool serviceExports = false) => new()
    {
        Id = id,
        Capabilities = new ClusterCapabilities
        {
            SyncedCanaries = true,
            MaxConnectedClusters = (uint)maxConnectedClusters,
            ServiceExportsEnabled = serviceExports ? true : null,
        },
    };
}

public sealed record ClusterCapabilities
{
    /// <summary>A canary per resource says when its initial list is complete.</summary>
    public bool SyncedCanaries { get; init; }

    /// <summary>The data is a copy under cilium/cache.</summary>
    public bool Cached { get; init; }

    /// <summary>255 or 511; 0 when absent, as before 1.15, which means 255.</summary>
    public uint MaxConnectedClusters { get; init; }

    /// <summary>Null when the cluster does not know the feature. Any other value makes peers wait for that canary.</summary>
    public bool? ServiceExportsEnabled { get; init; }

    /// <summary>"" for services only.</summary>
    public string EndpointSlicesExportMode { get; init; } = "";
}

/// <summary>ClusterConfig ↔ bytes.</summary>
public static class ClusterConfigCodec
{
    public static byte[] Encode(ClusterConfig config) => WireWriter.Write(config, Write);

    public static bool TryDecode(
        ReadOnlySpan<byte> json, [NotNullWhen(true)] out ClusterConfig? config, [NotNullWhen(false)] out string? rejection) =>
        Decoding.TryDecode(json, null, Read, out config, out rejection);

    private static void Write(Utf8JsonWriter writer, ClusterConfig config)
    {
        writer.WriteStartObject();
        if (config.Id != 0)
            writer.WriteNumber("id", config.Id);
        var capabilities = config.Capabilities ?? new ClusterCapabilities();
        writer.WriteStartObject("capabilities");
        if (capabilities.SyncedCanaries)
            writer.WriteBoolean("syncedCanaries", true);
        if (capabilities.Cached)
            writer.WriteBoolean("cached", true);
        if (capabilities.MaxConnectedClusters != 0)
            writer.WriteNumber("maxConnectedClusters", capabilities.MaxConnectedClusters);
        if (capabilities.ServiceExportsEnabled is { } exports)
            writer.WriteBoolean("serviceExportsEnabled", exports);
        if (capabilities.EndpointSlicesExportMode.Length > 0)
            writer.WriteString("endpointSlicesExportMode", capabilities.EndpointSlicesExportMode);
        writer.WriteEndObject();
        writer.WriteEndObject();
    }

    private static ClusterConfig Read(ref GoJsonReader json)
    {
        uint id = 0;
        ClusterCapabilities? capabilities = null;
        if (json.ReadObject())
        {
            while (json.NextField())
            {
                if (json.Is("id"u8))
                    id = json.ReadUnsigned(uint.MaxValue, id);
                else if (json.Is("capabilities"u8))
                    capabilities = ReadCapabilities(ref json, capabilities ?? new ClusterCapabilities());
                else
                    json.Skip();
            }
        }
        return new ClusterConfig { Id = id, Capabilities = capabilities };
    }

    private static ClusterCapabilities ReadCapabilities(ref GoJsonReader json, ClusterCapabilities current)
    {
        if (!json.ReadObject())
            return current;
        while (json.NextField())
        {
            if (json.Is("syncedCanaries"u8))
                current = current with { SyncedCanaries = json.ReadBool(current.SyncedCanaries) };
            else if (json.Is("cached"u8))
                current = current with { Cached = json.ReadBool(current.Cached) };
            else if (json.Is("maxConnectedClusters"u8))
                current = current with { MaxConnectedClusters = json.ReadUnsigned(uint.MaxValue, current.MaxConnectedClusters) };
            else if (json.Is("serviceExportsEnabled"u8))
                current = current with { ServiceExportsEnabled = json.ReadNullableBool() };
            else if (json.Is("endpointSlicesExportMode"u8))
                current = current with { EndpointSlicesExportMode = json.ReadText(current.EndpointSlicesExportMode) };
            else
                json.Skip();
        }
        return current;
    }
}
