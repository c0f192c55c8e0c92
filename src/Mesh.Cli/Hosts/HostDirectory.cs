using System.Net;
using System.Text;
using Mesh.Joining;
using Mesh.Model;
using Mesh.Pki;

namespace Mesh.Cli.Hosts;

/// <summary>
/// One directory that makes a cluster of machines without Kubernetes: cluster.json, the authority, the manifests, places for peers and for
/// state. `mesh host init` writes it, `mesh host apiserver` and `mesh host agent` read nothing else, and joins (`mesh clustermesh token`,
/// `connect`) work on it with `--cluster-dir`. All machines of the cluster see the same directory, or a copy of what init wrote.
/// </summary>
internal sealed class HostDirectory
{
    public const string Default = "/var/lib/mesh";
    public const ushort DoorPort = 2379;
    public const ushort JoinPort = 2378;
    public const ushort HealthPort = 9880;
    public const ushort RelayApiPort = 9889;

    /// <summary>Where this machine's agent and API server serve /metrics, on the loopback.</summary>
    public const ushort AgentMetricsPort = 9962;
    public const ushort ApiServerMetricsPort = 9964;

    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;

    /// <param name="root">Absolute or relative; init makes it.</param>
    public HostDirectory(string root) => Root = Path.GetFullPath(root);

    public string Root { get; }

    public string Manifests => $"{Root}/manifests";

    public string Pki => $"{Root}/pki";

    public string PeersOfAgents => $"{Root}/clustermesh";

    public string PeersOfRelay => $"{Root}/relay";

    public string UsersFile => $"{Root}/users.yaml";

    /// <summary>Where the node's agent listens.</summary>
    public string Socket(string node) => $"{Root}/{node}/agent.sock";

    public string StateOf(string node) => $"{Root}/{node}/state";

    /// <summary>Makes the directory. What is there already is kept when it says the same, and refused when it does not: a second init
    /// must not take a cluster's name or authority away.</summary>
    /// <param name="api">Where peers and agents reach the API server.</param>
    /// <returns>False when everything was there already.</returns>
    /// <exception cref="CliException">Another cluster is here, or a value cannot be.</exception>
    public bool Init(string name, uint id, int maxConnectedClusters, IPAddress api, IReadOnlyList<IpPrefix> nodeRanges, IReadOnlyList<HostNode> nodes)
    {
        Refuse(nodes);
        var fresh = !File.Exists($"{Root}/{ClusterDescription.FileName}");
        var host = api.AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6 ? $"[{api}]" : $"{api}";
        var description = new ClusterDescription
        {
            Name = name,
            Id = id,
            MaxConnectedClusters = maxConnectedClusters,
            PodCIDRs = [.. nodes.SelectMany(node => node.PodRanges).Select(range => range.ToString())],
            NodeCIDRs = [.. nodeRanges.Select(range => range.ToString())],
            DoorAddresses = [$"https://{host}:{DoorPort}"],
            JoinListen = $"{host}:{JoinPort}",
            Pki = "pki",
            AgentConfigs = ["clustermesh"],
            RelayConfig = "relay",
            UsersFile = "users.yaml",
            JoinDirectory = "join",
            AgentSockets = [.. nodes.Select(node => Socket(node.Name))],
            RelayApi = $"localhost:{RelayApiPort}",
        };
        if (description.Fault() is { } fault)
            throw new CliException($"this cluster cannot be: {fault}");
        if (!fresh)
        {
            var here = ClusterDescription.Load(Root);
            if (here.Name != description.Name || here.Id != description.Id)
            {
                throw new CliException($"{Root} is cluster {here.Name} with ID {here.Id}; give another --dir for {name} "
                    + $"with ID {id}, or remove that directory when the cluster is no more");
            }
        }
        Directory.CreateDirectory(Root);
        foreach (var directory in new[] { Manifests, PeersOfAgents, PeersOfRelay })
            Directory.CreateDirectory(directory);
        foreach (var directory in nodes.SelectMany(node => new[] { $"{Root}/{node.Name}", StateOf(node.Name) }).Append($"{Root}/join"))
            Directory.CreateDirectory(directory, OwnerOnly);
        if (!File.Exists($"{Pki}/ca.crt"))
            PkiDirectory.Init(Pki, new PkiSettings { Cluster = name, ServerNames = [$"{api}"] });
        if (!File.Exists(UsersFile))
            File.WriteAllText(UsersFile, "users: []\n");
        File.WriteAllText($"{Manifests}/nodes.yaml", Nodes(name, nodes));
        // Last: with it, the directory is a cluster.
        description.Save(Root);
        return fresh;
    }

    /// <summary>The command line of this cluster's API server.</summary>
    /// <param name="etcd">URLs of an etcd that runs elsewhere; null for one of its own.</param>
    public IReadOnlyList<string> ApiServer(string? etcd)
    {
        var cluster = Description();
        var door = IPEndPoint.Parse(cluster.DoorAddresses[0]["https://".Length..]);
        return
        [
            "clustermesh-apiserver", "clustermesh", "--cluster-name", cluster.Name, "--cluster-id", $"{cluster.Id}",
            "--max-connected-clusters", $"{cluster.MaxConnectedClusters}",
            "--source", $"manifests:{Manifests}", "--state-dir", $"{Root}/apiserver",
            .. etcd is null ? ["--etcd-data-dir", $"{Root}/etcd"] : new[] { "--kvstore-opt", $"etcd.address={etcd}" },
            "--door-listen-addr", $"{door}", "--door-trusted-ca-file", $"{Pki}/ca.crt",
            "--door-cert-file", $"{Pki}/server.crt", "--door-key-file", $"{Pki}/server.key",
            "--cluster-users-config-path", UsersFile,
            "--join-listen-addr", cluster.JoinListen!, "--join-dir", cluster.JoinDirectory, "--pki-dir", Pki,
            "--kvstoremesh-config", PeersOfRelay, "--kvstoremesh-api-addr", $"localhost:{RelayApiPort}",
            "--health-port", $"{HealthPort}", "--prometheus-serve-addr", $"127.0.0.1:{ApiServerMetricsPort}",
        ];
    }

    /// <summary>The command line of one node's agent.</summary>
    public IReadOnlyList<string> Agent(string node, string bpfRoot, string? cgroupRoot)
    {
        var cluster = Description();
        if (!cluster.AgentSockets.Contains(Socket(node)))
        {
            throw new CliException($"{cluster.Name} has no node '{node}'; it has "
                + string.Join(", ", cluster.AgentSockets.Select(socket => Path.GetFileName(Path.GetDirectoryName(socket)))));
        }
        return
        [
            "mesh-agent", "--cluster-name", cluster.Name, "--cluster-id", $"{cluster.Id}",
            "--max-connected-clusters", $"{cluster.MaxConnectedClusters}", "--node-name", node,
            "--source", $"manifests:{Manifests}", "--clustermesh-config", PeersOfAgents, "--bpf-root", bpfRoot,
            .. cgroupRoot is null ? [] : new[] { "--cgroup-root", cgroupRoot },
            "--socket-path", Socket(node), "--state-dir", StateOf(node), "--tunnel-port", $"{cluster.TunnelPort}",
            "--prometheus-serve-addr", $"127.0.0.1:{AgentMetricsPort}",
        ];
    }

    private ClusterDescription Description() => File.Exists($"{Root}/{ClusterDescription.FileName}") ? ClusterDescription.Load(Root)
        : throw new CliException($"{Root} is no cluster yet: run `mesh host init` first, or give --dir");

    private static void Refuse(IReadOnlyList<HostNode> nodes)
    {
        if (nodes.Count == 0)
            throw new CliException($"--node: at least one, {HostNode.Form}");
        foreach (var (one, other) in nodes.SelectMany((one, i) => nodes.Skip(i + 1).Select(other => (one, other))))
        {
            if (one.Name == other.Name)
                throw new CliException($"--node: two nodes are called {one.Name}");
            if (one.Address == other.Address)
                throw new CliException($"--node: {one.Name} and {other.Name} have the same address {one.Address}");
            foreach (var range in one.PodRanges)
            {
                if (other.PodRanges.Where(range.Overlaps).Select(range => $"{range}").FirstOrDefault() is { } overlap)
                    throw new CliException($"--node: pod range {range} of {one.Name} overlaps {overlap} of {other.Name}");
            }
        }
    }

    private static string Nodes(string cluster, IReadOnlyList<HostNode> nodes)
    {
        var yaml = new StringBuilder("apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n");
        foreach (var node in nodes)
        {
            yaml.Append($$"""
                ---
                apiVersion: cilium.io/v2
                kind: CiliumNode
                metadata:
                  name: {{node.Name}}
                  labels: {topology.kubernetes.io/region: {{cluster}}}
                spec:
                  addresses:
                  - {type: InternalIP, ip: "{{node.Address}}"}

                """);
            foreach (var range in node.PodRanges)
                yaml.Append($"  - {{type: CiliumInternalIP, ip: \"{HostNode.RouterOf(range)}\"}}\n");
            yaml.Append($"  ipam: {{podCIDRs: [{string.Join(", ", node.PodRanges.Select(range => $"\"{range}\""))}]}}\n");
        }
        return yaml.ToString();
    }
}
