using System.CommandLine;
using System.Globalization;
using System.Net;
using Mesh.Agent.Cni;
using Mesh.ControlPlane;
using Mesh.ControlPlane.LoadBalancing;
using Mesh.Datapath;
using Mesh.Datapath.Masquerade;
using Mesh.Datapath.Uplinks;
using Mesh.Kubernetes;
using Mesh.Model;

namespace Mesh.Agent;

/// <summary>The flags, and what each of them allows. All faults are found before anything is touched; the line says each of them.</summary>
internal sealed class CommandLine
{
    /// <summary>sun_path holds 108 bytes with the closing zero.</summary>
    private const int SocketPathMax = 107;

    /// <summary>A node of the smallest mesh has some hundreds of addresses to know.</summary>
    private const uint IPCacheMapMin = 1024;

    /// <summary>511 clusters of 32,768 pods each; the kernel takes 256 MiB for an empty map of this size.</summary>
    private const uint IPCacheMapMax = 16_777_216;

    private static readonly string DefaultIPCacheMax = DatapathOptions.IPCacheMapMaxDefault.ToString(CultureInfo.InvariantCulture);

    private readonly Option<string> _clusterName = Flag("--cluster-name", "", "Name of this cluster: 1 to 32 of a-z, 0-9 and '-'.");
    private readonly Option<string> _clusterId = Flag("--cluster-id", "", "Number of this cluster, 1 to --max-connected-clusters.");
    private readonly Option<string> _maxClusters = Flag("--max-connected-clusters", "255", "255 or 511; the same in the whole mesh.");
    private readonly Option<string> _nodeName = Flag("--node-name", "", "Name of this node's CiliumNode object.");
    private readonly Option<string> _source = Flag("--source", "", $"Where this cluster's objects are: {SourceAddress.Allowed}.");
    private readonly Option<string> _ipam = Flag("--ipam", "cluster-pool",
        "On Kubernetes, who gives this node its pod ranges: cluster-pool (the operator) or kubernetes (Node.spec.podCIDRs).");
    private readonly Option<string> _config = Flag("--clustermesh-config", "", "Directory with one etcd client file per peer; empty for no peers.");
    private readonly Option<string> _cacheTtl = Flag("--clustermesh-cache-ttl", "0s",
        "The services of a peer not reached for so long are withdrawn until it is; 0s keeps them for ever.");
    private readonly Option<string> _bpfRoot = Flag("--bpf-root", "/sys/fs/bpf/mesh", "Directory on a bpffs; maps and links are pinned below.");
    private readonly Option<string> _cgroupRoot = Flag("--cgroup-root", "", "cgroup2 directory whose sockets are load-balanced; empty for none.");
    private readonly Option<string> _procfs = Flag("--procfs", "/proc", "procfs whose sys/net may be written; a container's own may not.");
    private readonly Option<string> _socket = Flag("--socket-path", "/var/run/cilium/cilium.sock", "Unix socket of the REST API.");
    private readonly Option<string> _stateDir = Flag("--state-dir", "/var/run/cilium/state", "Directory in which endpoints survive restarts.");
    private readonly Option<string> _tunnelPort = Flag("--tunnel-port", "8472", "UDP port of the VXLAN tunnel; the same in the whole mesh.");
    private readonly Option<string> _nodePorts = Flag("--node-port-range", "30000,32767", "First and last NodePort, as the cluster hands them out.");
    private readonly Option<string> _devices = Flag("--devices", "",
        "Devices that clients outside come in by, with commas between; empty for the one with the node's address.");
    private readonly Option<string> _acceleration = Flag("--loadbalancer-acceleration", "best-effort",
        "native: take in packets from outside in the driver (XDP) where it can; best-effort: the same; disabled: at tc.");
    private readonly Option<string> _mode = Flag("--loadbalancer-mode", "snat",
        "Way of packets from outside to backends on other nodes: snat, or dsr where the other node knows it.");
    private readonly Option<string> _algorithm = Flag("--loadbalancer-algorithm", "maglev",
        "Choice of a backend for clients outside: maglev or random.");
    private readonly Option<string> _tunnelHeaders = Flag("--tunnel-headers", "built",
        "built: our programs write and remove VXLAN headers; device: the VXLAN device does.");
    private readonly Option<string> _masquerade4 = Flag("--enable-ipv4-masquerade", "true",
        "Whether what pods send out of the mesh over IPv4 gets the node's address.");
    private readonly Option<string> _masquerade6 = Flag("--enable-ipv6-masquerade", "true", "The same over IPv6.");
    private readonly Option<string> _native4 = Flag("--ipv4-native-routing-cidr", "",
        "Range of destinations that know the way to pods and see their own addresses; empty for none.");
    private readonly Option<string> _native6 = Flag("--ipv6-native-routing-cidr", "", "The same over IPv6.");
    private readonly Option<string> _ipcacheMax = Flag("--bpf-ipcache-map-max", DefaultIPCacheMax,
        $"Addresses of each family that the ipcache maps hold, {IPCacheMapMin} to {IPCacheMapMax}; 16 to 32 bytes each while empty.");
    private readonly Option<string> _policyLocal = Flag("--policy-default-local-cluster", "true",
        "Whether a policy's selector that names no cluster means this one (true) or every one (false).");
    private readonly Option<string> _policyAudit = Flag("--policy-audit-mode", "false", "true: what policies deny is counted, and passes.");
    private readonly Option<string> _cniConf = Flag("--write-cni-conf-when-ready", "",
        "Network configuration for the container runtime, written once pods can be added; empty for none.");
    private readonly Option<string> _cniExclusive = Flag("--cni-exclusive", "true",
        "Whether other networks' configurations beside it are put aside, as *.cilium_bak.");
    private readonly Option<string> _cniChaining = Flag("--cni-chaining-mode", "none", "portmap: the portmap plugin is called after ours; or none.");
    private readonly Option<string> _metrics = Flag("--prometheus-serve-addr", "", "[IP]:PORT of /metrics; empty for none.");

    private readonly Option<string> _configDir = Flag(FlagFiles.Flag, "", "Directory with one file per flag, as a mounted ConfigMap makes it.");

    private readonly List<string> _faults = [];

    private IEnumerable<Option<string>> All =>
    [
        _clusterName, _clusterId, _maxClusters, _nodeName, _source, _ipam, _config, _cacheTtl, _bpfRoot, _cgroupRoot, _procfs, _socket, _stateDir, _tunnelPort,
        _nodePorts, _devices, _acceleration, _mode, _algorithm, _tunnelHeaders,
        _masquerade4, _masquerade6, _native4, _native6,
        _ipcacheMax, _policyLocal, _policyAudit, _cniConf, _cniExclusive, _cniChaining, _metrics, _configDir,
    ];

    /// <returns>Options, or an exit code when there is nothing to run (help, version, a fault).</returns>
    public static (AgentOptions? Options, int ExitCode) Parse(string[] args, TextWriter errors) => new CommandLine().Read(args, errors);

    private (AgentOptions? Options, int ExitCode) Read(string[] args, TextWriter errors)
    {
        try
        {
            args = FlagFiles.Expand(args, 0, All.Select(flag => flag.Name).ToHashSet(), errors.WriteLine);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            errors.WriteLine($"mesh-agent: {e.Message}");
            return (null, 1);
        }
        var root = new RootCommand("mesh-agent: programs one node's kernel from its cluster's objects and those of its peers.");
        foreach (var flag in All)
            root.Options.Add(flag);
        // "--flag=" gives the flag an empty value, as "--flag ''" does.
        var parsed = root.Parse([.. args.SelectMany(arg => arg.StartsWith("--", StringComparison.Ordinal) && arg.EndsWith('=')
            ? [arg[..^1], ""]
            : new[] { arg })]);
        if (parsed.Action is not null && parsed.Errors.Count == 0)
            return (null, parsed.Invoke());
        foreach (var token in parsed.UnmatchedTokens)
            _faults.Add($"{token}: unknown; allowed are {string.Join(' ', All.Select(flag => flag.Name))}");
        if (_faults.Count == 0)
            _faults.AddRange(parsed.Errors.Select(error => error.Message.TrimEnd('.')));
        var options = _faults.Count == 0 ? ReadOptions(flag => parsed.GetValue(flag) ?? "") : null;
        if (_faults.Count == 0)
            return (options, 0);
        errors.WriteLine($"mesh-agent: {string.Join("; ", _faults)}");
        return (null, 1);
    }

    private AgentOptions ReadOptions(Func<Option<string>, string> value)
    {
        var numbering = int.TryParse(value(_maxClusters), NumberStyles.None, CultureInfo.InvariantCulture, out var max)
            ? IdentityNumbering.For(max)
            : null;
        if (numbering is null)
            Fault(_maxClusters, value(_maxClusters), "must be 255 or 511");
        if (ClusterName.Validate(value(_clusterName)) is { } fault)
            _faults.Add($"{_clusterName.Name}: {fault}");
        var highest = (numbering ?? IdentityNumbering.Max255).MaxConnectedClusters;
        if (!uint.TryParse(value(_clusterId), NumberStyles.None, CultureInfo.InvariantCulture, out var id) || id < 1 || id > highest)
            Fault(_clusterId, value(_clusterId), $"must be 1 to {highest}");
        if (value(_nodeName).Length is 0 or > 253 || value(_nodeName).AsSpan().ContainsAny(" /"))
            Fault(_nodeName, value(_nodeName), "must be the name of this node's CiliumNode object");
        var source = SourceAddress.TryParse(value(_source));
        if (source is null)
            Fault(_source, value(_source), $"must be {SourceAddress.Allowed}");
        if (!ushort.TryParse(value(_tunnelPort), NumberStyles.None, CultureInfo.InvariantCulture, out var port) || port == 0)
            Fault(_tunnelPort, value(_tunnelPort), "must be 1 to 65535");
        if (!uint.TryParse(value(_ipcacheMax), NumberStyles.None, CultureInfo.InvariantCulture, out var ipcache)
            || ipcache is < IPCacheMapMin or > IPCacheMapMax)
            Fault(_ipcacheMax, value(_ipcacheMax), $"must be {IPCacheMapMin} to {IPCacheMapMax}");
        if (GoDuration.Parse(value(_cacheTtl)) is null)
            Fault(_cacheTtl, value(_cacheTtl), $"must be a duration such as 15m, up to {GoDuration.Longest.TotalHours}h, or 0s");
        return new AgentOptions
        {
            Cluster = new ClusterIdentity(value(_clusterName), id),
            Numbering = numbering ?? IdentityNumbering.Max255,
            NodeName = value(_nodeName),
            Source = source ?? SourceAddress.OfManifests(""),
            PodRangesFromNode = OneOf(_ipam, value(_ipam), "cluster-pool", "kubernetes"),
            ClusterMeshConfig = value(_config).Length == 0 ? null : value(_config),
            ClusterMeshCacheTtl = GoDuration.Parse(value(_cacheTtl)) ?? TimeSpan.Zero,
            BpfRoot = Given(_bpfRoot, value(_bpfRoot), "a directory on a bpffs"),
            CgroupRoot = ReadCgroup(value(_cgroupRoot)),
            Procfs = Given(_procfs, value(_procfs), "a directory with sys/net, such as /proc"),
            SocketPath = ReadSocket(value(_socket)),
            StateDirectory = Given(_stateDir, value(_stateDir), "a directory"),
            TunnelPort = port,
            NodePorts = ReadPortRange(_nodePorts, value(_nodePorts)),
            Uplink = new UplinkOptions
            {
                Devices = ReadDevices(value(_devices)),
                Acceleration = ReadAcceleration(value(_acceleration)),
                Forwarding = OneOf(_mode, value(_mode), "snat", "dsr") ? ForwardingMode.Dsr : ForwardingMode.Snat,
                Algorithm = OneOf(_algorithm, value(_algorithm), "maglev", "random") ? BackendAlgorithm.Random : BackendAlgorithm.Maglev,
                BuiltHeaders = !OneOf(_tunnelHeaders, value(_tunnelHeaders), "built", "device"),
            },
            Masquerade = new MasqueradeOptions
            {
                IPv4 = ReadSwitch(_masquerade4, value(_masquerade4)),
                IPv6 = ReadSwitch(_masquerade6, value(_masquerade6)),
                NativeRoutingIPv4 = ReadRange(_native4, value(_native4), v6: false),
                NativeRoutingIPv6 = ReadRange(_native6, value(_native6), v6: true),
            },
            IPCacheMapMax = ipcache,
            PolicyDefaultLocalCluster = ReadSwitch(_policyLocal, value(_policyLocal)),
            PolicyAuditMode = ReadSwitch(_policyAudit, value(_policyAudit)),
            Cni = new CniOptions
            {
                ConfigurationPath = ReadConflist(value(_cniConf)),
                Exclusive = ReadSwitch(_cniExclusive, value(_cniExclusive)),
                PortMap = OneOf(_cniChaining, value(_cniChaining), "none", "portmap"),
            },
            PrometheusAddress = ReadEndPoint(value(_metrics)),
        };
    }

    private Acceleration ReadAcceleration(string value)
    {
        switch (value)
        {
            case "disabled":
                return Acceleration.Disabled;
            case "native":
                return Acceleration.Native;
            case "best-effort":
                return Acceleration.BestEffort;
            default:
                Fault(_acceleration, value, "must be disabled, native or best-effort");
                return default;
        }
    }

    private bool ReadSwitch(Option<string> flag, string value)
    {
        if (value is not ("true" or "false"))
            Fault(flag, value, "must be true or false");
        return value == "true";
    }

    private IpPrefix? ReadRange(Option<string> flag, string text, bool v6)
    {
        if (text.Length == 0)
            return null;
        if (IpPrefix.TryParse(text, out var range) && range.Address.IsV6 == v6)
            return range;
        Fault(flag, text, $"must be a range such as {(v6 ? "fd00::/8" : "10.0.0.0/8")}, or empty");
        return null;
    }

    private (ushort First, ushort Last) ReadPortRange(Option<string> flag, string text)
    {
        var parts = text.Split(',');
        if (parts.Length == 2 && ushort.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out var first)
            && ushort.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out var last) && first > 0 && first <= last)
            return (first, last);
        Fault(flag, text, "must be the first and the last port, such as 30000,32767");
        return default;
    }

    private string Given(Option<string> flag, string value, string allowed)
    {
        if (value.Length == 0)
            Fault(flag, value, $"must be {allowed}");
        return value;
    }

    /// <summary>True for the second of two words.</summary>
    private bool OneOf(Option<string> flag, string value, string first, string second)
    {
        if (value != first && value != second)
            Fault(flag, value, $"must be {first} or {second}");
        return value == second;
    }

    private string? ReadConflist(string path)
    {
        if (path.Length > 0 && Path.GetExtension(path) != ".conflist")
            Fault(_cniConf, path, "must end in .conflist, or be empty");
        return path.Length == 0 ? null : path;
    }

    private string[] ReadDevices(string list)
    {
        const int longest = 15; // IFNAMSIZ without the closing zero
        if (list.Length == 0)
            return [];
        var names = list.Split(',');
        if (names.Any(name => name.Length is 0 or > longest || name.AsSpan().ContainsAny(" /:")))
            Fault(_devices, list, "must be names of devices with commas between, or empty");
        return names;
    }

    private string? ReadCgroup(string path)
    {
        if (path.Length == 0)
            return null;
        // Every cgroup2 directory has this file, and no directory of another file system.
        if (!File.Exists(Path.Combine(path, "cgroup.procs")) || !File.Exists(Path.Combine(path, "cgroup.controllers")))
            Fault(_cgroupRoot, path, "must be a cgroup2 directory that exists, or empty for no socket load-balancing");
        return path;
    }

    private string ReadSocket(string path)
    {
        if (path.Length == 0 || System.Text.Encoding.UTF8.GetByteCount(path) > SocketPathMax)
            Fault(_socket, path, $"must be a path of 1 to {SocketPathMax} bytes");
        return path;
    }

    private IPEndPoint? ReadEndPoint(string text)
    {
        if (text.Length == 0)
            return null;
        var bare = text.StartsWith(':') ? $"[::]{text}" : text;
        if (IPEndPoint.TryParse(bare, out var endPoint) && endPoint.Port != 0)
            return endPoint;
        Fault(_metrics, text, "must be [IP]:PORT such as :9962 or 127.0.0.1:9962");
        return null;
    }

    private void Fault(Option<string> flag, string value, string allowed) => _faults.Add($"{flag.Name} '{value}': {allowed}");

    private static Option<string> Flag(string name, string byDefault, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
