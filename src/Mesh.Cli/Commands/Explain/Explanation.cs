using System.Text.Json.Serialization;

namespace Mesh.Cli.Commands.Explain;

/// <summary>Why a client is given which backends: the agent's intention and the kernel's maps, side by side.</summary>
internal sealed record Explanation
{
    public required string Client { get; init; }

    /// <summary>Name of the node whose maps were read; "" when it is the only one.</summary>
    public string Node { get; init; } = "";

    /// <summary>The client is outside the cluster.</summary>
    public bool External { get; init; }

    public uint? Identity { get; init; }

    /// <summary>namespace/name; "" when no intention is known.</summary>
    public string Service { get; init; } = "";

    public bool Global { get; init; }

    public string Choice { get; init; } = "";

    public IReadOnlyList<string> Remarks { get; init; } = [];

    /// <summary>Seconds since the agent's last sign of life; null when there was none.</summary>
    public double? AgentSilence { get; init; }

    public IReadOnlyList<ExplainedFrontend> Frontends { get; init; } = [];

    /// <summary>Map and intention are the same.</summary>
    public bool Agrees => Frontends.All(frontend => frontend.Differences.Count == 0);
}

internal sealed record ExplainedFrontend
{
    public required string Address { get; init; }

    public string PortName { get; init; } = "";

    public string Type { get; init; } = "";

    /// <summary>Why it is not served, or not to this client; null when it is.</summary>
    public string? Withheld { get; init; }

    /// <summary>Index into lb_services; null when the map has no such frontend.</summary>
    public uint? ServiceId { get; init; }

    public ushort Generation { get; init; }

    public int Segments { get; init; }

    public IReadOnlyList<ExplainedBackend> Backends { get; init; } = [];

    /// <summary>Where map and intention differ.</summary>
    public IReadOnlyList<string> Differences { get; init; } = [];

    public int LeftOut { get; init; }
}

internal sealed record ExplainedBackend
{
    public required string Address { get; init; }

    public string Cluster { get; init; } = "";

    public uint ClusterId { get; init; }

    public string Node { get; init; } = "";

    public string Zone { get; init; } = "";

    /// <summary>Of the record in its cluster's etcd; 0 for the own cluster.</summary>
    public long Revision { get; init; }

    /// <summary>Since the record came; null when unknown.</summary>
    public double? AgeSeconds { get; init; }

    public string State { get; init; } = "";

    /// <summary>Behind the frontend, by intention.</summary>
    public bool Kept { get; init; }

    /// <summary>The rule that kept or cut it.</summary>
    public required string Rule { get; init; }

    /// <summary>It could not be behind this frontend whatever is decided: another protocol, another family. Text counts these only.</summary>
    [JsonIgnore]
    public bool IsOfAnotherKind { get; init; }

    /// <summary>What keeps new flows away from it now: traffic, a drill, an ejection. Empty = nothing.</summary>
    public IReadOnlyList<string> Troubles { get; init; } = [];

    public byte Tier { get; init; }

    /// <summary>The map's; null when the map does not have it.</summary>
    public MapEntry? Map { get; init; }

    /// <summary>Of a new flow, 0 to 1.</summary>
    public double Chance { get; init; }
}

/// <param name="Segment">Its number in the header.</param>
/// <param name="Weight">Of the segment.</param>
/// <param name="Slot">Index into lb_backends.</param>
/// <param name="TableEntries">Entries of the segment's table that lead to it.</param>
internal sealed record MapEntry(int Segment, uint Weight, uint Slot, int TableEntries, int TableSize, string State);

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(Explanation))]
internal sealed partial class ExplanationJson : JsonSerializerContext;
