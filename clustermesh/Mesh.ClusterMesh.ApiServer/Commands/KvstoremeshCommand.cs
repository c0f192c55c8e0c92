using System.CommandLine;
using System.Globalization;
using System.Net;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.Relay;
using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>`kvstoremesh`: the relay as a process of its own, under the flags of Cilium's.</summary>
internal sealed class KvstoremeshCommand
{
    public const string Word = "kvstoremesh";

    private readonly Option<string> _name = Flag("--cluster-name", "", "Name of this cluster: 1 to 32 of a-z, 0-9 and '-'.");
    private readonly Option<string> _id = Flag("--cluster-id", "", "Number of this cluster, 1 to --max-connected-clusters.");
    private readonly Option<string> _max = Flag("--max-connected-clusters", "255", "255 or 511; the same in the whole mesh.");
    private readonly Option<string> _peers = Flag("--clustermesh-config", "/var/lib/cilium/clustermesh", "Directory of the peers to mirror.");
    private readonly Option<string> _api = Flag("--api-serve-addr", "localhost:9889", "HOST:PORT where GET /v1/cluster tells of them.");
    private readonly Option<string> _health = Flag("--health-port", "9881", "Port or IP:PORT of /readyz; 0 for none. Loopback without IP.");
    private readonly Option<string> _metrics = Flag("--prometheus-serve-addr", "", "[IP]:PORT of /metrics; empty for none.");
    private readonly Option<string> _perCluster =
        Flag("--per-cluster-ready-timeout", "15s", "A peer not reached within this does not hold readiness up.");

    private readonly Option<string> _global = Flag("--global-ready-timeout", "10m", "Ready after this in any case.");
    private readonly Option<string> _ttl =
        Flag("--clustermesh-cache-ttl", "0s", "The services of a peer not reached for so long are withdrawn; 0s keeps them for ever.");

    private readonly DoorFlags _door = new();
    private readonly List<string> _faults = [];

    private IEnumerable<Option> All => [_name, _id, _max, _peers, .. _door.All, _api, _health, _metrics, _perCluster, _global, _ttl];

    public IEnumerable<string> Names => All.Select(flag => flag.Name);

    public Command Build(Func<KvstoremeshOptions, Task<int>> run, Func<string, int> refuse)
    {
        var command = new Command(Word, "Mirror remote clusters for this cluster's agents.");
        foreach (var flag in All)
            command.Options.Add(flag);
        command.SetAction(async (parsed, _) => Read(parsed) is { } options ? await run(options) : refuse(string.Join("; ", _faults)));
        return command;
    }

    private KvstoremeshOptions? Read(ParseResult parsed)
    {
        string Value(Option<string> flag) => parsed.GetValue(flag) ?? "";
        var name = Value(_name);
        var numbering = int.TryParse(Value(_max), NumberStyles.None, CultureInfo.InvariantCulture, out var max) ? IdentityNumbering.For(max) : null;
        if (numbering is null)
            _faults.Add($"{_max.Name} '{Value(_max)}': must be 255 or 511");
        if (ClusterName.Validate(name) is { } fault)
            _faults.Add($"{_name.Name}: {fault}");
        var highest = numbering?.MaxConnectedClusters ?? 255;
        if (!uint.TryParse(Value(_id), NumberStyles.None, CultureInfo.InvariantCulture, out var id) || id < 1 || id > highest)
            _faults.Add($"{_id.Name} '{Value(_id)}': must be 1 to {highest}");
        var door = _door.Read(parsed, name, _faults.Add);
        if (door is null && _faults.Count == 0)
            _faults.Add("--door-trusted-ca-file, --door-cert-file, --door-key-file: missing; without them nobody could read");
        var api = RelayFlags.ReadApi(_api.Name, Value(_api), _faults.Add);
        var health = ReadEndPoint(_health, Value(_health), IPAddress.Loopback);
        var metrics = ReadEndPoint(_metrics, Value(_metrics), IPAddress.IPv6Any);
        var (perCluster, global, ttl) = (ReadDuration(_perCluster, parsed), ReadDuration(_global, parsed), ReadDuration(_ttl, parsed));
        return _faults.Count > 0 || door is null ? null : new KvstoremeshOptions
        {
            Door = door,
            Relay = new RelaySettings
            {
                ClusterName = name,
                PeerDirectory = Path.GetFullPath(Value(_peers)),
                Api = api,
                StateDir = _door.StateDirectory(parsed),
                Options = new RelayOptions { PerClusterReadyTimeout = perCluster, GlobalReadyTimeout = global, CacheTtl = ttl },
            },
            Health = health,
            Metrics = metrics,
        };
    }

    private TimeSpan ReadDuration(Option<string> flag, ParseResult parsed)
    {
        var text = parsed.GetValue(flag) ?? "";
        if (GoDuration.Parse(text) is { } duration)
            return duration;
        _faults.Add($"{flag.Name} '{text}': must be a duration such as 15s or 10m");
        return default;
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
        _faults.Add($"{flag.Name} '{value}': must be PORT (1 to 65535) or IP:PORT");
        return null;
    }

    private static Option<string> Flag(string name, string byDefault, string description) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
