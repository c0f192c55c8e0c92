using System.Net;
using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.Model;

namespace Mesh.Joining;

/// <summary>
/// One cluster as its operator describes it: the file cluster.json of a directory. It says who the cluster is, where others reach it, and
/// which files a join writes. Paths may be relative to the directory. A value that cannot be is told when the file is read, by name.
/// </summary>
public sealed record ClusterDescription
{
    public const string FileName = "cluster.json";

    private static readonly string[] Required = ["name", "id", "podCIDRs", "nodeCIDRs", "doorAddresses", "pki", "agentConfigs", "joinDirectory"];

    public required string Name { get; init; }

    /// <summary>1 to <see cref="MaxConnectedClusters"/>.</summary>
    public required uint Id { get; init; }

    // A member that the file does not have arrives here as zero or null: generated readers set every member.

    /// <summary>255 or 511; the same in the whole mesh.</summary>
    public int MaxConnectedClusters { get; init => field = value == 0 ? 255 : value; } = 255;

    /// <summary>Ranges that pods of this cluster have addresses of; peers accept no other from us.</summary>
    [JsonPropertyName("podCIDRs")]
    public required IReadOnlyList<string> PodCIDRs { get; init; }

    /// <summary>Ranges of the nodes: where tunnels end.</summary>
    [JsonPropertyName("nodeCIDRs")]
    public required IReadOnlyList<string> NodeCIDRs { get; init; }

    /// <summary>URLs of the door that peers read: https://HOST:PORT.</summary>
    public required IReadOnlyList<string> DoorAddresses { get; init; }

    /// <summary>IP:PORT where the API server listens for joins while a token is usable; null when this cluster only takes tokens.</summary>
    public string? JoinListen { get; init; }

    /// <summary>Directory of the authority and of the cluster's own certificates.</summary>
    public required string Pki { get; init; }

    /// <summary>Directories of peer files that agents watch; a peer file is written to each.</summary>
    public required IReadOnlyList<string> AgentConfigs { get; init; }

    /// <summary>Directory of peer files that the relay watches; null when agents read peers directly.</summary>
    public string? RelayConfig { get; init; }

    /// <summary>The door's users file; null when the door does not use one (legacy mode, where certificates of peers carry the name remote).</summary>
    public string? UsersFile { get; init; }

    /// <summary>Tokens and journals, mode 0700.</summary>
    public required string JoinDirectory { get; init; }

    /// <summary>Where readers see their configuration directory, when that is not where we write it: a mounted Secret, mostly
    /// /var/lib/cilium/clustermesh. Certificate files are named so inside the peer files.</summary>
    public string? MountPath { get; init; }

    /// <summary>UDP port of the tunnels between nodes.</summary>
    public int TunnelPort { get; init => field = value == 0 ? 8472 : value; } = 8472;

    /// <summary>Unix sockets of agents of this cluster on this machine: who is asked whether a peer is seen.</summary>
    public IReadOnlyList<string> AgentSockets { get; init => field = value ?? []; } = [];

    /// <summary>HOST:PORT where this cluster's relay serves GET /v1/cluster on this machine: it is asked whether it is connected to a peer.
    /// Null when it cannot be asked from here.</summary>
    public string? RelayApi { get; init; }

    /// <summary>Name of the network namespace that reaches the others, when it is not that of the caller; for a cluster of a lab.</summary>
    public string? NetworkNamespace { get; init; }

    /// <exception cref="JoinException">There is no such file, or something in it cannot be; the message names both.</exception>
    public static ClusterDescription Load(string directory)
    {
        var file = Path.Combine(Path.GetFullPath(directory), FileName);
        ClusterDescription description;
        try
        {
            description = JsonSerializer.Deserialize(File.ReadAllText(file), JoinJson.Default.ClusterDescription)
                ?? throw new JsonException("it is empty");
        }
        catch (JsonException e) when (e.Message.StartsWith("JSON deserialization for type", StringComparison.Ordinal))
        {
            throw new JoinException("cluster-description", $"{file}: a member is missing; there must be {string.Join(", ", Required)}", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            var member = e is JsonException { Path: { Length: > 2 } path } ? $"{path[2..]}: " : "";
            throw new JoinException("cluster-description", $"{file}: {member}{InWords.Of(e)}", e);
        }
        if (description.Fault() is { } fault)
            throw new JoinException("cluster-description", $"{file}: {fault}");
        return description.Rooted(Path.GetDirectoryName(file)!);
    }

    /// <summary>Writes cluster.json into an existing directory, by rename.</summary>
    public void Save(string directory)
    {
        if (Fault() is { } fault)
            throw new JoinException("cluster-description", $"{directory}/{FileName}: {fault}");
        var text = JsonSerializer.Serialize(this, JoinJson.Default.ClusterDescription) + "\n";
        Files.DurableFile.Replace(Path.Combine(directory, FileName), System.Text.Encoding.UTF8.GetBytes(text), 0x1A4);
    }

    /// <summary>Why this cannot be, null when it can.</summary>
    public string? Fault()
    {
        if (ClusterName.Validate(Name) is { } name)
            return $"name: {name}";
        if (MaxConnectedClusters is not (255 or 511))
            return $"maxConnectedClusters {MaxConnectedClusters}: must be 255 or 511";
        if (Id < 1 || Id > MaxConnectedClusters)
            return $"id {Id}: must be 1 to {MaxConnectedClusters}";
        if (TunnelPort is < 1 or > 65535)
            return $"tunnelPort {TunnelPort}: must be 1 to 65535";
        foreach (var (member, ranges) in new[] { ("podCIDRs", PodCIDRs), ("nodeCIDRs", NodeCIDRs) })
        {
            if (ranges is not { Count: > 0 })
                return $"{member}: at least one range, such as 10.1.0.0/16";
            if (ranges.FirstOrDefault(range => !IpPrefix.TryParse(range, out _)) is { } wrong)
                return $"{member}: '{wrong}' is not an address range such as 10.1.0.0/16";
        }
        if (DoorAddresses is not { Count: > 0 })
            return "doorAddresses: at least one, such as https://172.30.1.100:2379";
        if (DoorAddresses.FirstOrDefault(address => !ClusterFacts.IsDoorAddress(address)) is { } door)
            return $"doorAddresses: '{door}' must be https://HOST:PORT";
        if (JoinListen is not null && !(IPEndPoint.TryParse(JoinListen, out var listen) && listen.Port > 0))
            return $"joinListen: '{JoinListen}' must be IP:PORT";
        if (RelayApi is not null && !Uri.TryCreate($"http://{RelayApi}/v1/cluster", UriKind.Absolute, out _))
            return $"relayApi: '{RelayApi}' must be HOST:PORT, such as localhost:9889";
        if (AgentConfigs is null || (AgentConfigs.Count == 0 && RelayConfig is null))
            return "agentConfigs: at least one directory";
        return null;
    }

    /// <summary>The user by which a peer reads our door: one of its own, or, where the door has no users file, the one that all share.</summary>
    internal string UserOf(string peer) => UsersFile is null ? "remote" : $"remote-{peer}";

    /// <summary>What others are told.</summary>
    /// <exception cref="JoinException">The pki directory cannot be read.</exception>
    public ClusterFacts Facts() => new()
    {
        Name = Name,
        Id = Id,
        MaxConnectedClusters = MaxConnectedClusters,
        PodCIDRs = [.. PodCIDRs.Select(range => IpPrefix.Parse(range).ToString())],
        NodeCIDRs = [.. NodeCIDRs.Select(range => IpPrefix.Parse(range).ToString())],
        DoorAddresses = DoorAddresses,
        Authorities = OwnPki.AuthoritiesPem(Pki),
        TunnelPort = TunnelPort,
        Version = typeof(ClusterDescription).Assembly.GetName().Version!.ToString(3),
        Profile = WireProfile.Ours,
        Peers = Files.PeerFiles.Peers(this),
    };

    /// <summary>Where takers reach the join listener, when nothing else is said: its own address, else the door's addresses.</summary>
    /// <exception cref="JoinException">There is no listener, or its address cannot be known.</exception>
    internal IReadOnlyList<string> JoinAddresses()
    {
        if (JoinListen is null)
            throw new JoinException("cluster-description",
                $"{Name} has no joinListen in its {FileName}: only a cluster whose API server listens for joins can make tokens");
        var listen = IPEndPoint.Parse(JoinListen);
        if (!listen.Address.Equals(IPAddress.Any) && !listen.Address.Equals(IPAddress.IPv6Any))
            return [listen.ToString()];
        var doors = DoorAddresses.Select(door => new Uri(door).Host.Trim('[', ']')).Where(host => IPAddress.TryParse(host, out _))
            .Select(host => new IPEndPoint(IPAddress.Parse(host), listen.Port).ToString()).Distinct().ToList();
        return doors.Count > 0 ? doors : throw new JoinException("cluster-description",
            $"joinListen {JoinListen} does not say by which address others reach it: give --address IP:PORT");
    }

    private ClusterDescription Rooted(string directory) => this with
    {
        Pki = Path.GetFullPath(Pki, directory),
        AgentConfigs = [.. AgentConfigs.Select(path => Path.GetFullPath(path, directory))],
        RelayConfig = RelayConfig is null ? null : Path.GetFullPath(RelayConfig, directory),
        UsersFile = UsersFile is null ? null : Path.GetFullPath(UsersFile, directory),
        JoinDirectory = Path.GetFullPath(JoinDirectory, directory),
        AgentSockets = [.. AgentSockets.Select(path => Path.GetFullPath(path, directory))],
    };
}
