using System.CommandLine;
using System.Globalization;
using System.Net;
using Mesh.Kubernetes;
using Mesh.Model;

namespace Mesh.Operator;

/// <summary>The flags of mesh-operator; all faults are told at once, and nothing is done.</summary>
internal sealed class CommandLine
{
    private readonly Option<string> _source = Flag("--source", "kubernetes", "Where the cluster is: kubernetes, or kubernetes:KUBECONFIG[#CONTEXT].");
    private readonly Option<string> _namespace = Flag("--namespace", "", "Namespace of the lease; default: CILIUM_K8S_NAMESPACE, else kube-system.");
    private readonly Option<string> _ipam = Flag("--ipam", "cluster-pool", "cluster-pool: nodes have ranges of the pools; kubernetes: those of their Node.");
    private readonly Option<string> _v4 = Flag("--enable-ipv4", "true", "Whether nodes have IPv4 ranges.");
    private readonly Option<string> _v6 = Flag("--enable-ipv6", "false", "Whether nodes have IPv6 ranges.");
    private readonly Option<string> _pools4 = Flag("--cluster-pool-ipv4-cidr", "10.0.0.0/8",
        "IPv4 ranges that pods have addresses of, with spaces or commas between.");
    private readonly Option<string> _size4 = Flag("--cluster-pool-ipv4-mask-size", "24", "Length of a node's IPv4 range, at most 30.");
    private readonly Option<string> _pools6 = Flag("--cluster-pool-ipv6-cidr", "fd00::/104", "IPv6 ranges that pods have addresses of.");
    private readonly Option<string> _size6 = Flag("--cluster-pool-ipv6-mask-size", "120", "Length of a node's IPv6 range, at most 124.");
    private readonly Option<string> _grace = Flag("--identity-gc-grace", "15m", "How long an identity that no endpoint has is kept.");
    private readonly Option<string> _every = Flag("--gc-interval", "1m", "How often lost identities and endpoints are looked for.");
    private readonly Option<string> _api = Flag("--operator-api-serve-addr", "localhost:9234", "HOST:PORT of /healthz.");
    private readonly Option<string> _metrics = Flag("--operator-prometheus-serve-addr", "", "[IP]:PORT of /metrics; empty for none.");
    private readonly Option<string> _clusterName = Flag("--cluster-name", "", "Name of this cluster; needed for services of the mesh.");
    private readonly Option<string> _clusterId = Flag("--cluster-id", "0", "Number of this cluster; needed for services of the mesh.");
    private readonly Option<string> _maxClusters = Flag("--max-connected-clusters", "255", "255 or 511; the same in the whole mesh.");
    private readonly Option<string> _peers = Flag("--clustermesh-config", "", "Directory that lists the peers, as the agents have it.");
    private readonly Option<string> _sync = Flag("--clustermesh-enable-endpoint-sync", "false",
        "Whether endpoints of other clusters become EndpointSlices of headless global services.");
    private readonly Option<string> _imports = Flag("--clustermesh-enable-mcs-api", "false", "Whether ServiceExports become ServiceImports everywhere.");
    private readonly Option<string> _globalNamespaces =
        Flag("--clustermesh-default-global-namespace", "true", "Whether namespaces that do not say take part: true or false.");
    private readonly Option<string> _configDir = Flag(FlagFiles.Flag, "", "Directory with one file per flag, as a mounted ConfigMap makes it.");
    private readonly List<string> _faults = [];

    private IEnumerable<Option<string>> All =>
    [
        _source, _namespace, _ipam, _v4, _v6, _pools4, _size4, _pools6, _size6, _grace, _every, _api, _metrics, _clusterName, _clusterId, _maxClusters,
        _peers, _sync, _imports, _globalNamespaces, _configDir,
    ];

    /// <returns>Options, or an exit code when there is nothing to run.</returns>
    public static (OperatorOptions? Options, int ExitCode) Parse(string[] args, TextWriter output, TextWriter errors) =>
        new CommandLine().Read(args, output, errors);

    private (OperatorOptions? Options, int ExitCode) Read(string[] args, TextWriter output, TextWriter errors)
    {
        var root = new RootCommand(
            "Gives nodes their pod ranges, installs the definitions of our kinds, removes what nobody uses, imports services of other clusters.");
        foreach (var option in All)
            root.Add(option);
        try
        {
            args = FlagFiles.Expand(args, 0, All.Select(option => option.Name).ToHashSet(), line => errors.WriteLine($"mesh-operator: {line}"));
        }
        catch (IOException e)
        {
            errors.WriteLine($"mesh-operator: {e.Message}");
            return (null, 1);
        }
        var parsed = root.Parse(args, new ParserConfiguration { EnablePosixBundling = false, ResponseFileTokenReplacer = null });
        if (parsed.Action is not null && parsed.Errors.Count == 0)
            return (null, parsed.Invoke(new InvocationConfiguration { Output = output, Error = errors }));
        foreach (var token in parsed.UnmatchedTokens)
            _faults.Add($"{token}: unknown; allowed are {string.Join(' ', All.Select(option => option.Name))}");
        foreach (var error in parsed.Errors.Where(_ => parsed.UnmatchedTokens.Count == 0))
            _faults.Add(error.Message);
        var options = _faults.Count == 0 ? Options(parsed) : null;
        if (_faults.Count == 0)
            return (options, 0);
        errors.WriteLine($"mesh-operator: {string.Join("; ", _faults)}");
        return (null, 1);
    }

    private OperatorOptions? Options(ParseResult parsed)
    {
        string Value(Option<string> option) => parsed.GetValue(option) ?? "";
        var source = SourceAddress.TryParse(Value(_source));
        if (source is null or { Manifests: not null })
            _faults.Add($"--source '{Value(_source)}': must be kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]");
        if (Value(_ipam) is not ("cluster-pool" or "kubernetes"))
            _faults.Add($"--ipam '{Value(_ipam)}': must be cluster-pool or kubernetes");
        var pools = new List<(IReadOnlyList<IpPrefix>, int)>();
        if (Flagged(_v4, Value(_v4)))
            pools.Add((Ranges(_pools4, Value(_pools4), false), Size(_size4, Value(_size4), 30)));
        if (Flagged(_v6, Value(_v6)))
            pools.Add((Ranges(_pools6, Value(_pools6), true), Size(_size6, Value(_size6), 124)));
        if (pools.Count == 0)
            _faults.Add("--enable-ipv4 and --enable-ipv6 are both false: pods must have addresses of one family at least");
        if (Value(_ipam) == "cluster-pool")
        {
            foreach (var (ranges, size) in pools.Where(_ => _faults.Count == 0))
            {
                try
                {
                    _ = new Ipam.RangePool(ranges, size);
                }
                catch (ArgumentException e)
                {
                    _faults.Add(e.Message);
                }
            }
        }
        var (sync, imports) = (Flagged(_sync, Value(_sync)), Flagged(_imports, Value(_imports)));
        var self = Self(Value(_clusterName), Value(_clusterId), Value(_maxClusters), needed: sync || imports);
        var space = Value(_namespace) is { Length: > 0 } given ? given : Environment.GetEnvironmentVariable("CILIUM_K8S_NAMESPACE") ?? "kube-system";
        var name = Environment.GetEnvironmentVariable("POD_NAME") ?? Dns.GetHostName();
        return new OperatorOptions
        {
            Source = source ?? SourceAddress.TryParse("kubernetes")!,
            Namespace = space,
            Identity = $"{name}-{Convert.ToHexStringLower(System.Security.Cryptography.RandomNumberGenerator.GetBytes(4))}",
            RangesOfKubernetes = Value(_ipam) == "kubernetes",
            Pools = pools,
            IdentityGrace = Duration(_grace, Value(_grace)),
            CollectEvery = Duration(_every, Value(_every)),
            ApiAddress = Address(_api, Value(_api)) ?? new IPEndPoint(IPAddress.Loopback, 9234),
            ClusterName = self.Name,
            ClusterId = self.Id,
            Numbering = self.Numbering,
            ClusterMeshConfig = Value(_peers) is { Length: > 0 } directory ? directory : null,
            SyncsEndpoints = sync,
            Imports = imports,
            NamespacesAreGlobal = Flagged(_globalNamespaces, Value(_globalNamespaces)),
            PrometheusAddress = Value(_metrics).Length == 0 ? null : Address(_metrics, Value(_metrics)),
        };
    }

    /// <summary>Who we are in the mesh; of no concern where nothing of the mesh is asked.</summary>
    private (string Name, uint Id, IdentityNumbering Numbering) Self(string name, string id, string max, bool needed)
    {
        var numbering = int.TryParse(max, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? IdentityNumbering.For(number) : null;
        if (!needed)
            return (name, 0, numbering ?? IdentityNumbering.Max255);
        if (numbering is null)
            _faults.Add($"{_maxClusters.Name} '{max}': must be 255 or 511");
        if (ClusterName.Validate(name) is { } fault)
            _faults.Add($"{_clusterName.Name}: {fault}");
        if (!uint.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var clusterId) || numbering?.IsValidClusterId(clusterId) == false)
            _faults.Add($"{_clusterId.Name} '{id}': must be 1 to {max}");
        return (name, clusterId, numbering ?? IdentityNumbering.Max255);
    }

    private bool Flagged(Option<string> option, string value)
    {
        if (bool.TryParse(value, out var flag))
            return flag;
        _faults.Add($"{option.Name} '{value}': must be true or false");
        return false;
    }

    private List<IpPrefix> Ranges(Option<string> option, string value, bool v6)
    {
        var ranges = new List<IpPrefix>();
        foreach (var text in value.Split([' ', ','], StringSplitOptions.RemoveEmptyEntries))
        {
            if (!IpPrefix.TryParse(text, out var range) || range.Address.IsV6 != v6)
                _faults.Add($"{option.Name} '{text}': must be an {(v6 ? "IPv6" : "IPv4")} range");
            else
                ranges.Add(range);
        }
        if (ranges.Count == 0)
            _faults.Add($"{option.Name}: at least one range");
        return ranges;
    }

    private int Size(Option<string> option, string value, int max)
    {
        if (int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var size) && size > 0 && size <= max)
            return size;
        _faults.Add($"{option.Name} '{value}': must be 1 to {max}");
        return max;
    }

    private TimeSpan Duration(Option<string> option, string value)
    {
        var scale = value switch { [.., 'h'] => 3600, [.., 'm'] => 60, [.., 's'] => 1, _ => 0 };
        if (scale > 0 && int.TryParse(value[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out var number) && number > 0)
            return TimeSpan.FromSeconds((long)number * scale);
        _faults.Add($"{option.Name} '{value}': must be a whole number of s, m or h, such as 15m");
        return TimeSpan.FromMinutes(1);
    }

    private IPEndPoint? Address(Option<string> option, string value)
    {
        const string local = "localhost:";
        var text = value.StartsWith(local, StringComparison.Ordinal) ? $"127.0.0.1:{value[local.Length..]}" : value.StartsWith(':') ? $"0.0.0.0{value}" : value;
        if (text.Contains(':', StringComparison.Ordinal) && IPEndPoint.TryParse(text, out var address))
            return address;
        _faults.Add($"{option.Name} '{value}': must be HOST:PORT, such as localhost:9234");
        return null;
    }

    private static Option<string> Flag(string name, string value, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => value };
}
