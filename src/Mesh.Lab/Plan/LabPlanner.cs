namespace Mesh.Lab.Plan;

/// <summary>
/// Turns what was asked into the plan. Pure: the same question gives the same names and addresses.
/// Cluster c, node n, pod p: underlay 172.30.c.n (control plane 172.30.c.100), pods 10.c.n.(10+p) and fd00:10:c:n::(10+p),
/// the node's own 10.c.n.1, virtual addresses 10.(96+c).0.10 and fd00:96:c::10.
/// </summary>
public static class LabPlanner
{
    public const string KeeperName = "keeper";
    public const string TwinName = "keeper-twin";
    public const int EchoTcpPort = 8080;
    public const int EchoUdpPort = 5353;
    public const int HealthPort = 9880;
    public const int DoorPort = 2379;
    public const int JoinPort = 2378;

    /// <param name="cgroupRoot">Mount point of cgroup2.</param>
    public static LabPlan Plan(LabSpec spec, Programs programs, string cgroupRoot)
    {
        spec.Validate();
        var root = LabSpec.RootOf(spec.Name);
        var cgroup = $"{cgroupRoot}/mesh-lab-{spec.Name}";
        var clusters = Enumerable.Range(1, spec.Clusters).Select(id => Cluster(spec, id, root, cgroup)).ToList();
        return new LabPlan
        {
            Name = spec.Name,
            Root = root,
            Cgroup = cgroup,
            Bpffs = $"{root}/bpf",
            WanNamespace = $"{spec.Name}-wan",
            Connected = spec.Connected,
            Clusters = clusters,
            Processes = [.. Keepers(programs, root, cgroup), .. clusters.SelectMany(c => Members(c, programs, cgroup))],
        };
    }

    private static ClusterPlan Cluster(LabSpec spec, int id, string root, string cgroup)
    {
        var name = LabSpec.ClusterName(id);
        var directory = $"{root}/{name}";
        var pki = $"{directory}/pki";
        var ip = $"172.30.{id}.100";
        return new ClusterPlan
        {
            Name = name,
            Id = (uint)id,
            Directory = directory,
            Namespace = $"{spec.Name}-{name}-cp",
            Ip = ip,
            PodCIDRs = [$"10.{id}.0.0/16", $"fd00:10:{id}::/48"],
            NodeCIDRs = [$"172.30.{id}.0/24"],
            Pki = pki,
            UsersFile = $"{directory}/users.yaml",
            JoinDirectory = $"{directory}/join",
            JoinListen = $"{ip}:{JoinPort}",
            Etcd = new EtcdAccess($"https://{ip}:{DoorPort}", $"{pki}/ca.crt",
                $"{pki}/remote.crt", $"{pki}/remote.key", $"{pki}/admin.crt", $"{pki}/admin.key", $"{directory}/etcd/pki/client.yaml"),
            ReadyzUrl = $"http://127.0.0.1:{HealthPort}/readyz",
            Manifests = $"{directory}/manifests",
            ClusterMeshConfig = $"{directory}/clustermesh",
            RelayConfig = spec.Direct ? null : $"{directory}/relay",
            ServiceIPv4 = $"10.{96 + id}.0.10",
            ServiceIPv6 = $"fd00:96:{id}::10",
            Nodes = [.. Enumerable.Range(1, spec.Nodes).Select(n => Node(spec, name, id, n, root, cgroup))],
        };
    }

    private static NodePlan Node(LabSpec spec, string cluster, int id, int n, string root, string cgroup)
    {
        var name = $"{cluster}-{n}";
        return new NodePlan
        {
            Name = name,
            Namespace = $"{spec.Name}-{name}",
            Ip = $"172.30.{id}.{n}",
            Socket = $"{root}/{cluster}/{name}/agent.sock",
            BpfRoot = $"{root}/bpf/{name}",
            Cgroup = $"{cgroup}/{name}",
            StateDirectory = $"{root}/{cluster}/{name}/state",
            PodCidrIPv4 = $"10.{id}.{n}.0/24",
            PodCidrIPv6 = $"fd00:10:{id}:{n}::/64",
            InternalIPv4 = $"10.{id}.{n}.1",
            InternalIPv6 = $"fd00:10:{id}:{n}::1",
            Pods = [.. Enumerable.Range(1, spec.Pods).Select(p => new PodPlan
            {
                Name = $"rebel-base-{n}-{p}",
                Namespace = $"{spec.Name}-{name}-{p}",
                IPv4 = $"10.{id}.{n}.{10 + p}",
                IPv6 = $"fd00:10:{id}:{n}::{10 + p}",
                Cgroup = $"{cgroup}/{name}/rebel-base-{n}-{p}",
                HostInterface = $"pod{p}",
                Mac = $"02:{id:x2}:{n:x2}:{p:x2}:00:01",
                HostMac = $"02:{id:x2}:{n:x2}:{p:x2}:00:02",
            })],
        };
    }

    /// <summary>One keeper watches everything and its twin, the twin watches the keeper: either may die.</summary>
    private static IEnumerable<ProcessSpec> Keepers(Programs programs, string root, string cgroup)
    {
        foreach (var (name, other) in new[] { (KeeperName, TwinName), (TwinName, KeeperName) })
        {
            yield return new ProcessSpec
            {
                Name = name,
                Program = programs.Mesh,
                Arguments = ["lab", "keep", "--root", root, "--as", name],
                Cgroup = $"{cgroup}/keepers",
                Keeper = other,
            };
        }
    }

    private static IEnumerable<ProcessSpec> Members(ClusterPlan cluster, Programs programs, string cgroup)
    {
        var directory = cluster.Directory;
        yield return new ProcessSpec
        {
            Name = $"{cluster.Name}-apiserver",
            Program = programs.ApiServer,
            Arguments =
            [
                "clustermesh", "--cluster-name", cluster.Name, "--cluster-id", $"{cluster.Id}",
                "--source", $"manifests:{cluster.Manifests}", "--etcd-data-dir", $"{directory}/etcd", "--state-dir", $"{directory}/state",
                "--door-listen-addr", $"{cluster.Ip}:{DoorPort}", "--door-trusted-ca-file", cluster.Etcd.CaFile,
                "--door-cert-file", $"{cluster.Pki}/server.crt", "--door-key-file", $"{cluster.Pki}/server.key",
                "--cluster-users-config-path", cluster.UsersFile,
                "--join-listen-addr", cluster.JoinListen, "--join-dir", cluster.JoinDirectory, "--pki-dir", cluster.Pki,
                .. cluster.RelayConfig is { } relay ? new[] { "--kvstoremesh-config", relay } : [],
                "--health-port", $"{HealthPort}",
            ],
            Namespace = cluster.Namespace,
            Cgroup = $"{cgroup}/{cluster.Name}-cp",
            Keeper = KeeperName,
        };
        foreach (var node in cluster.Nodes)
        {
            yield return new ProcessSpec
            {
                Name = $"{node.Name}-agent",
                Program = programs.Agent,
                Arguments =
                [
                    "--cluster-name", cluster.Name, "--cluster-id", $"{cluster.Id}", "--node-name", node.Name,
                    "--source", $"manifests:{cluster.Manifests}", "--clustermesh-config", cluster.ClusterMeshConfig,
                    "--bpf-root", node.BpfRoot, "--cgroup-root", node.Cgroup,
                    "--socket-path", node.Socket, "--state-dir", node.StateDirectory,
                ],
                Namespace = node.Namespace,
                // Not below the node's cgroup: the agent must reach its peers even when the hooks that it loads are wrong.
                Cgroup = $"{cgroup}/agents",
                Keeper = KeeperName,
            };
            foreach (var pod in node.Pods)
            {
                yield return new ProcessSpec
                {
                    Name = $"{node.Name}-{pod.Name}",
                    Program = programs.Mesh,
                    Arguments = ["lab", "echo", "--name", $"{cluster.Name}/{node.Name}/{pod.Name}"],
                    Namespace = pod.Namespace,
                    Cgroup = pod.Cgroup,
                    Keeper = KeeperName,
                };
            }
        }
    }
}
