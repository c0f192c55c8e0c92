using System.CommandLine;
using System.Globalization;
using System.Net;
using Mesh.ClusterMesh.ApiServer.Joining;
using Mesh.Kubernetes;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>The flags of `clustermesh`: their names, and how they become options. All faults are found before anything starts.</summary>
internal sealed class ServerFlags
{
    private readonly Option<string> _clusterName = Flag("--cluster-name", "", "Name of this cluster: 1 to 32 of a-z, 0-9 and '-'.");
    private readonly Option<string> _clusterId = Flag("--cluster-id", "", "Number of this cluster, 1 to --max-connected-clusters.");
    private readonly Option<string> _maxClusters = Flag("--max-connected-clusters", "255", "255 or 511; the same in the whole mesh.");
    private readonly Option<string> _source = Flag("--source", "", $"Where the objects are: {SourceAddress.Allowed}.");
    private readonly Option<string> _globalNamespaces =
        Flag("--clustermesh-default-global-namespace", "true", "Whether namespaces that do not say take part: true or false.");

    private readonly Option<string> _exports = Flag("--clustermesh-enable-mcs-api", "false", "Whether ServiceExports are published: true or false.");

    private readonly Option<string[]> _kvstore = new("--kvstore-opt")
    {
        Description = "Use an etcd that runs already: etcd.address=URL[,URL] or etcd.config=FILE. Without, one is run as a child.",
        AllowMultipleArgumentsPerToken = false,
        DefaultValueFactory = _ => [],
    };

    private readonly Option<string> _dataDir = Flag("--etcd-data-dir", "/var/run/etcd", "Directory of the child etcd, made with mode 0700.");
    private readonly Option<string> _healthPort = Flag("--health-port", "9880", "Port or IP:PORT of /readyz; 0 for none. Loopback without IP.");
    private readonly Option<string> _metrics = Flag("--prometheus-serve-addr", "", "[IP]:PORT of /metrics; empty for none.");

    private readonly Option<string> _configDir = Flag(FlagFiles.Flag, "", "Directory with one file per flag, as a mounted ConfigMap makes it.");

    private readonly DoorFlags _door = new();
    private readonly RelayFlags _relay = new();
    private readonly JoinFlags _join = new();
    private readonly List<string> _faults = [];

    private IEnumerable<Option> All =>
    [
        _clusterName, _clusterId, _maxClusters, _source, _globalNamespaces, _exports, _kvstore, _dataDir, .. _door.All, .. _relay.All,
        .. _join.All, _healthPort, _metrics, _configDir,
    ];

    public IEnumerable<string> Names => All.Select(flag => flag.Name);

    public void AddTo(Command command)
    {
        foreach (var flag in All)
            command.Options.Add(flag);
    }

    /// <summary>Flags that are not among the arguments but have an environment variable, as arguments.</summary>
    public static IEnumerable<string> FromEnvironment(
        IEnumerable<string> flags, IReadOnlyList<string> args, Func<string, string?> environment)
    {
        foreach (var flag in flags)
        {
            var given = args.Any(arg => arg == flag || arg.StartsWith(flag + "=", StringComparison.Ordinal));
            var value = environment(flag[2..].Replace('-', '_').ToUpperInvariant());
            if (!given && !string.IsNullOrEmpty(value))
                yield return $"{flag}={value}";
        }
    }

    /// <returns>The options, or null and every fault in one line.</returns>
    public (ApiServerOptions? Options, string Faults) Read(ParseResult parsed)
    {
        string Value(Option<string> flag) => parsed.GetValue(flag) ?? "";
        var self = ReadSelf(Value(_clusterName), Value(_clusterId), Value(_maxClusters));
        var source = SourceAddress.TryParse(Value(_source));
        if (source is null)
            Fault($"--source '{Value(_source)}': must be {SourceAddress.Allowed}");
        if (!bool.TryParse(Value(_globalNamespaces), out var namespacesAreGlobal))
            Fault($"{_globalNamespaces.Name} '{Value(_globalNamespaces)}': must be true or false");
        if (!bool.TryParse(Value(_exports), out var exports))
            Fault($"{_exports.Name} '{Value(_exports)}': must be true or false");
        var given = ReadGivenEtcd(parsed.GetValue(_kvstore) ?? []);
        var etcdDirectory = Path.GetFullPath(Value(_dataDir));
        var door = _door.Read(parsed, Value(_clusterName), Fault);
        var join = _join.Read(parsed, Fault);
        var stateDirectory = _door.StateDirectory(parsed) ?? (given is null ? Path.Combine(etcdDirectory, "state") : null);
        var relay = _relay.Read(parsed, Value(_clusterName), door, stateDirectory, Fault);
        var health = ReadEndPoint(_healthPort, Value(_healthPort), IPAddress.Loopback);
        var metrics = ReadEndPoint(_metrics, Value(_metrics), IPAddress.IPv6Any);
        if (_faults.Count > 0)
            return (null, string.Join("; ", _faults));
        return (new ApiServerOptions
        {
            Self = self!,
            Source = source!,
            GivenEtcd = given,
            EmbeddedEtcdDirectory = given is null ? etcdDirectory : null,
            // Beside a given etcd there may be other replicas: a reader that comes from one must not be shown less here.
            StateDirectory = stateDirectory,
            Door = door is null ? null : door with
            {
                ConfirmReads = given is not null,
                SharesEra = true,
                StateDir = stateDirectory,
            },
            Relay = relay,
            Join = join,
            Health = health,
            Metrics = metrics,
            NamespacesAreGlobal = namespacesAreGlobal,
            ServiceExports = exports,
        }, "");
    }

    private ClusterSelf? ReadSelf(string name, string id, string max)
    {
        var numbering = int.TryParse(max, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? IdentityNumbering.For(number) : null;
        if (numbering is null)
            Fault($"--max-connected-clusters '{max}': must be 255 or 511");
        if (ClusterName.Validate(name) is { } fault)
            Fault($"--cluster-name: {fault}");
        var highest = numbering?.MaxConnectedClusters ?? 255;
        if (!uint.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var clusterId) || clusterId < 1 || clusterId > highest)
            Fault($"--cluster-id '{id}': must be 1 to {highest}");
        return _faults.Count == 0 ? new ClusterSelf(name, clusterId, numbering!) : null;
    }

    private EtcdOptions? ReadGivenEtcd(string[] values)
    {
        EtcdOptions? given = null;
        foreach (var pair in values.SelectMany(SplitPairs))
        {
            var (name, value) = pair.IndexOf('=') is > 0 and var at ? (pair[..at], pair[(at + 1)..]) : (pair, "");
            if (name == "etcd.address")
                given = new EtcdOptions { Endpoints = value.Split(',', StringSplitOptions.RemoveEmptyEntries) };
            else if (name == "etcd.config")
                given = ReadConfigFile(value);
            else
                Fault($"--kvstore-opt {name}: must be etcd.address=URL[,URL] or etcd.config=FILE");
        }
        foreach (var fault in given?.Validate() ?? [])
            Fault($"--kvstore-opt: {fault}");
        return given;
    }

    /// <summary>One flag may carry several pairs, and one address several URLs: a comma begins a pair only before "etcd.".</summary>
    private static IEnumerable<string> SplitPairs(string value) =>
        value.Replace(",etcd.", "\netcd.", StringComparison.Ordinal).Split('\n');

    private EtcdOptions? ReadConfigFile(string file)
    {
        try
        {
            return EtcdConfigFile.Parse(File.ReadAllText(file));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException or ArgumentException)
        {
            Fault($"--kvstore-opt etcd.config={file}: {e.Message}");
            return null;
        }
    }

    private IPEndPoint? ReadEndPoint(Option<string> flag, string value, IPAddress byDefault)
    {
        if (value is "" or "0")
            return null;
        var text = value.StartsWith(':') ? value[1..] : value;
        if (ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
            return new IPEndPoint(byDefault, port);
        if (text.Contains(':', StringComparison.Ordinal) && IPEndPoint.TryParse(text, out var endPoint) && endPoint.Port > 0)
            return endPoint;
        Fault($"{flag.Name} '{value}': must be PORT (1 to 65535) or IP:PORT");
        return null;
    }

    private void Fault(string fault) => _faults.Add(fault);

    private static Option<string> Flag(string name, string byDefault, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
