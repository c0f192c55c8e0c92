using System.Text.Json;
using System.Text.Json.Serialization;

namespace Mesh.Lab.Plan;

/// <summary>
/// Everything that a lab consists of, by name and address: computed once from what was asked, written to lab.json before the
/// first thing is made, and read by every later command. What is not in the plan is never made, and so never left behind.
/// </summary>
public sealed record LabPlan
{
    public required string Name { get; init; }

    /// <summary>/run/mesh/labs/NAME, mode 0700.</summary>
    public required string Root { get; init; }

    /// <summary>Directory of the cgroup2 tree that holds every process of the lab.</summary>
    public required string Cgroup { get; init; }

    /// <summary>Mount point of the lab's own bpffs; a directory per node below it.</summary>
    public required string Bpffs { get; init; }

    /// <summary>Network namespace that holds the bridge between all nodes and control planes.</summary>
    public required string WanNamespace { get; init; }

    /// <summary>Whether `lab up` connects the clusters, each two by a token; else that is left to whoever uses the lab.</summary>
    public required bool Connected { get; init; }

    public required IReadOnlyList<ClusterPlan> Clusters { get; init; }

    public required IReadOnlyList<ProcessSpec> Processes { get; init; }

    [JsonIgnore]
    public IEnumerable<NodePlan> Nodes => Clusters.SelectMany(c => c.Nodes);

    [JsonIgnore]
    public IEnumerable<PodPlan> Pods => Nodes.SelectMany(n => n.Pods);

    [JsonIgnore]
    public string StateFile => $"{Root}/lab.json";

    /// <summary>Its presence says that the lab is going down: nobody may start anything any more.</summary>
    [JsonIgnore]
    public string StoppingFile => $"{Root}/stopping";

    public string PidFile(string process) => $"{Root}/run/{process}.pid";

    public string LogFile(string process) => $"{Root}/log/{process}.log";

    /// <summary>Holds the API server, and the etcd and everything else that it starts.</summary>
    public string ControlPlaneCgroup(ClusterPlan cluster) => $"{Cgroup}/{cluster.Name}-cp";

    public string ToJson() => JsonSerializer.Serialize(this, LabJson.Default.LabPlan);

    public static LabPlan FromJson(string json) =>
        JsonSerializer.Deserialize(json, LabJson.Default.LabPlan) ?? throw new LabException("the lab's state file is empty");
}

public sealed record ClusterPlan
{
    public required string Name { get; init; }

    public required uint Id { get; init; }

    /// <summary>All files of the cluster; cluster.json, which says who it is, is in it.</summary>
    public required string Directory { get; init; }

    /// <summary>Network namespace of the control plane: API server and etcd.</summary>
    public required string Namespace { get; init; }

    /// <summary>Underlay address of the control plane.</summary>
    public required string Ip { get; init; }

    /// <summary>Ranges of all pods: what peers believe of this cluster, and no more.</summary>
    public required IReadOnlyList<string> PodCIDRs { get; init; }

    /// <summary>Ranges of all nodes.</summary>
    public required IReadOnlyList<string> NodeCIDRs { get; init; }

    /// <summary>Directory of the cluster's own authority and what it issued; no other cluster sees its keys.</summary>
    public required string Pki { get; init; }

    /// <summary>Which users of other clusters may read here; a join adds to it.</summary>
    public required string UsersFile { get; init; }

    /// <summary>Tokens given out and joins under way.</summary>
    public required string JoinDirectory { get; init; }

    /// <summary>IP:PORT where others join, while a token is usable.</summary>
    public required string JoinListen { get; init; }

    public required EtcdAccess Etcd { get; init; }

    /// <summary>Answers 200 when the API server has written everything once; heard only inside <see cref="Namespace"/>.</summary>
    public required string ReadyzUrl { get; init; }

    /// <summary>Directory of Kubernetes YAML that is this cluster's truth; watched by API server and agents.</summary>
    public required string Manifests { get; init; }

    /// <summary>Directory of peers in Cilium's format, one file per peer, watched by the agents.</summary>
    public required string ClusterMeshConfig { get; init; }

    /// <summary>The same for the relay, which then is what the agents' files lead to; null when agents read the peers' doors.</summary>
    public string? RelayConfig { get; init; }

    /// <summary>Virtual address of default/rebel-base in this cluster.</summary>
    public required string ServiceIPv4 { get; init; }

    public required string ServiceIPv6 { get; init; }

    public required IReadOnlyList<NodePlan> Nodes { get; init; }
}

/// <summary>How a cluster's state is reached.</summary>
/// <param name="Endpoint">The door: an etcd server that only reads.</param>
/// <param name="CaFile">The cluster's own authority.</param>
/// <param name="CertFile">Client certificate of the user `remote`, for peers that know no users of their own; a peer that joined by a token
/// has one of its own.</param>
/// <param name="AdminCertFile">Client certificate of the cluster's own administrator: reads everything.</param>
/// <param name="OwnConfigFile">etcd client file of the etcd behind the door, for who must write by hand; that etcd listens on the
/// loopback of the control plane's namespace alone.</param>
public sealed record EtcdAccess(
    string Endpoint, string CaFile, string CertFile, string KeyFile, string AdminCertFile, string AdminKeyFile, string OwnConfigFile);

public sealed record NodePlan
{
    public required string Name { get; init; }

    public required string Namespace { get; init; }

    /// <summary>Underlay address: tunnels end here.</summary>
    public required string Ip { get; init; }

    /// <summary>Unix socket of the agent's REST API.</summary>
    public required string Socket { get; init; }

    /// <summary>Directory on the lab's bpffs; pins are in v1/ below it.</summary>
    public required string BpfRoot { get; init; }

    /// <summary>Directory of the cgroup2 tree that the agent attaches its socket hooks to.</summary>
    public required string Cgroup { get; init; }

    /// <summary>Where the agent remembers its endpoints.</summary>
    public required string StateDirectory { get; init; }

    public required string PodCidrIPv4 { get; init; }

    public required string PodCidrIPv6 { get; init; }

    /// <summary>The node's own addresses inside the pod ranges: the gateway of its pods.</summary>
    public required string InternalIPv4 { get; init; }

    public required string InternalIPv6 { get; init; }

    public required IReadOnlyList<PodPlan> Pods { get; init; }
}

public sealed record PodPlan
{
    public required string Name { get; init; }

    public required string Namespace { get; init; }

    public required string IPv4 { get; init; }

    public required string IPv6 { get; init; }

    public required string Cgroup { get; init; }

    /// <summary>Host side of the pod's veth, in the node's namespace; the pod side is eth0.</summary>
    public required string HostInterface { get; init; }

    public required string Mac { get; init; }

    public required string HostMac { get; init; }
}

/// <summary>A process that the keepers keep alive.</summary>
public sealed record ProcessSpec
{
    /// <summary>Unique within the lab; names its pid file and log.</summary>
    public required string Name { get; init; }

    public required string Program { get; init; }

    public required IReadOnlyList<string> Arguments { get; init; }

    /// <summary>Null: the namespace of whoever started the lab.</summary>
    public string? Namespace { get; init; }

    public required string Cgroup { get; init; }

    /// <summary>Name of the process that restarts it.</summary>
    public required string Keeper { get; init; }
}

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(LabPlan))]
[JsonSerializable(typeof(LabInfo))]
internal sealed partial class LabJson : JsonSerializerContext;
