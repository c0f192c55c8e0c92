using System.Text.Json;

namespace Mesh.Cni;

/// <summary>The network configuration as it comes on standard input. Keys that other programs put there are passed over.</summary>
internal sealed record CallConfiguration
{
    public const string Oldest = "0.3.0";
    public const string Newest = "1.1.0";

    /// <summary>Every version whose results we write, oldest first.</summary>
    public static readonly string[] Versions = [Oldest, "0.3.1", "0.4.0", "1.0.0", Newest];

    /// <summary>Where an agent listens unless told otherwise.</summary>
    private const string DefaultSocket = "/var/run/cilium/cilium.sock";

    public string Version { get; init; } = Oldest;

    public string Network { get; init; } = "";

    public string Socket { get; init; } = DefaultSocket;

    /// <summary>What ADD gave, as the runtime kept it.</summary>
    public JsonElement? Previous { get; init; }

    /// <summary>Of the configuration, for whoever reads the result; null for none.</summary>
    public JsonElement? Dns { get; init; }

    /// <summary>GC: "CONTAINER:IFNAME" of everything that lives; null when the runtime does not say.</summary>
    public IReadOnlyList<string>? Valid { get; init; }

    /// <summary>With this version's parts only.</summary>
    public bool Since(string version) => Array.IndexOf(Versions, Version) >= Array.IndexOf(Versions, version);

    /// <summary>The version alone, of a configuration that may be wrong otherwise: an error is written in its caller's version.</summary>
    public static string VersionOf(ReadOnlyMemory<byte> json)
    {
        try
        {
            using var document = JsonDocument.Parse(json);
            return Text(document.RootElement, "cniVersion") is { Length: > 0 } version ? version : Newest;
        }
        catch (JsonException)
        {
            return Newest;
        }
    }

    /// <exception cref="CniException">It cannot be read, or asks for what we do not do.</exception>
    public static CallConfiguration Read(ReadOnlyMemory<byte> json, Func<string, string?> variable)
    {
        JsonElement root;
        try
        {
            using var document = JsonDocument.Parse(json);
            root = document.RootElement.Clone();
        }
        catch (JsonException e)
        {
            throw new CniException(CniCode.Undecodable, $"standard input is no network configuration: {e.Message}");
        }
        if (root.ValueKind != JsonValueKind.Object)
            throw new CniException(CniCode.Undecodable, "standard input is no network configuration: it must be a JSON object");
        var version = Text(root, "cniVersion") ?? "";
        if (Array.IndexOf(Versions, version) < 0)
            throw new CniException(CniCode.IncompatibleVersion, $"cniVersion '{version}' is not known: this plugin speaks {string.Join(", ", Versions)}");
        if (Text(root, "name") is not { Length: > 0 } name)
            throw new CniException(CniCode.BadConfiguration, "name is missing: a network configuration has a name");
        var socket = variable("CILIUM_SOCK") is { Length: > 0 } given ? given : Text(root, "agent-socket") ?? DefaultSocket;
        return new CallConfiguration
        {
            Version = version,
            Network = name,
            Socket = socket,
            Previous = root.TryGetProperty("prevResult", out var previous) && previous.ValueKind == JsonValueKind.Object ? previous : null,
            Dns = root.TryGetProperty("dns", out var dns) && dns.ValueKind == JsonValueKind.Object ? dns : null,
            Valid = Attachments(root),
        };
    }

    private static List<string>? Attachments(JsonElement root)
    {
        if (!root.TryGetProperty("cni.dev/valid-attachments", out var list))
            return null;
        if (list.ValueKind != JsonValueKind.Array)
            throw new CniException(CniCode.BadConfiguration, "cni.dev/valid-attachments must be a list of {containerID, ifname}");
        var attachments = new List<string>();
        foreach (var item in list.EnumerateArray())
            attachments.Add(item.ValueKind == JsonValueKind.Object && Text(item, "containerID") is { Length: > 0 } container
                && Text(item, "ifname") is { Length: > 0 } device
                    ? $"{container}:{device}"
                    // Passing over one would remove a pod that lives.
                    : throw new CniException(CniCode.BadConfiguration, $"cni.dev/valid-attachments[{attachments.Count}] needs containerID and ifname"));
        return attachments;
    }

    private static string? Text(JsonElement parent, string name) => parent.ValueKind == JsonValueKind.Object
        && parent.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;
}
