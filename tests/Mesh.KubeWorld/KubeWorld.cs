using Mesh.KubeWorld.Nodes;
using Mesh.TestKit;

namespace Mesh.KubeWorld;

/// <summary>
/// Kubernetes clusters on this machine, side by side on one LAN, without a container runtime: 172.30.N.100 is the control plane of the Nth cluster,
/// 172.30.N.1 and so on its nodes. The LAN knows these addresses alone, no pod's. Everything lives in namespaces, a temporary directory and one
/// cgroup, and ends with this.
/// </summary>
public sealed class KubeWorld : IAsyncDisposable
{
    private readonly NetworkNamespace _lan = new();
    private readonly List<NetworkNamespace> _networks = [];
    private readonly List<KubeCluster> _clusters = [];
    private readonly string _cgroup;
    private int _ports;

    public KubeWorld()
    {
        var root = File.ReadLines("/proc/mounts").Select(line => line.Split(' ')).First(mount => mount[2] == "cgroup2")[1];
        _cgroup = $"{root}/mesh-kube-{Environment.ProcessId}-{_lan.Name[(_lan.Name.LastIndexOf('-') + 1)..]}";
        System.IO.Directory.CreateDirectory(_cgroup);
        _lan.Shell("sh", "-ec", "ip link set lo up; ip link add br0 type bridge; ip link set br0 up");
    }

    /// <summary>Temporary files, the kubeconfig among them.</summary>
    public string Directory { get; } = System.IO.Directory.CreateTempSubdirectory("mesh-kube-").FullName;

    public string Kubeconfig => $"{Directory}/kubeconfig";

    /// <summary>Starts a cluster with nothing in it but its nodes, which are not ready: there is no network plugin.</summary>
    /// <param name="providerId">What the nodes say their provider is, as kind://docker/NAME/NODE.</param>
    /// <param name="withheld">Capability that a node's runtime gives no container, whatever it asks for, as a security module does: "sys_admin" takes
    /// leave to mount. Null for none.</param>
    public async Task<KubeCluster> AddClusterAsync(string name, int nodes, CancellationToken stop, Func<string, string>? providerId = null,
        Func<string, string?>? withheld = null)
    {
        var number = _clusters.Count + 1;
        var controlPlane = Network($"172.30.{number}.100");
        var machines = Enumerable.Range(1, nodes).Select(i =>
        {
            var node = $"{name}-{i}";
            var directory = System.IO.Directory.CreateDirectory($"{Directory}/{node}").FullName;
            return new Node(node, $"172.30.{number}.{i}", directory, $"{_cgroup}/{node}", Network($"172.30.{number}.{i}"))
            { Withheld = withheld?.Invoke(node) };
        }).ToList();
        var plan = new KubeClusterPlan(name, $"172.30.{number}.100", $"10.{96 + number}.0.0/16", controlPlane, machines,
            providerId ?? (node => $"kind://docker/{name}/{node}"));
        var cluster = await KubeCluster.StartAsync(plan, Kubeconfig, stop);
        _clusters.Add(cluster);
        return cluster;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var cluster in _clusters)
            await cluster.DisposeAsync();
        foreach (var network in _networks.Append(_lan))
            network.Dispose();
        const string empty = """
            for i in $(seq 50); do
              for p in $(cat "$1"/*/cgroup.procs "$1"/cgroup.procs 2>/dev/null); do kill -9 $p 2>/dev/null; done
              find "$1" -depth -type d -exec rmdir {} \; 2>/dev/null; [ -d "$1" ] || exit 0; sleep 0.1
            done; exit 1
            """;
        ChildThread.Run("sh", "-c", empty, "sh", _cgroup);
        ChildThread.Run("rm", "-rf", "--one-file-system", Directory);
    }

    private NetworkNamespace Network(string address)
    {
        var network = new NetworkNamespace();
        _networks.Add(network);
        var port = $"p{++_ports}";
        network.Shell("ip", "link", "set", "lo", "up");
        _lan.Shell("ip", "link", "add", "name", port, "type", "veth", "peer", "name", "eth0", "netns", network.Name);
        _lan.Shell("ip", "link", "set", port, "master", "br0", "up");
        network.Shell("sh", "-ec", $"ip addr add {address}/16 dev eth0; ip link set eth0 up");
        return network;
    }
}
