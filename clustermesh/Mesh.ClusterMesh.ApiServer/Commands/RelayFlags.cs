using System.CommandLine;
using System.Globalization;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Relay;

namespace Mesh.ClusterMesh.ApiServer.Commands;

/// <summary>The flags of a relay inside the API server.</summary>
internal sealed class RelayFlags
{
    private readonly Option<string> _peers = new("--kvstoremesh-config")
    {
        Description = "Directory of the peers to mirror for our own agents (KVStoreMesh); empty for none.",
        DefaultValueFactory = _ => "",
    };

    private readonly Option<string> _api = new("--kvstoremesh-api-addr")
    {
        Description = "HOST:PORT where GET /v1/cluster tells of them; empty for nowhere.",
        DefaultValueFactory = _ => "localhost:9889",
    };

    private readonly Option<string> _ttl = new("--clustermesh-cache-ttl")
    {
        Description = "The services of a peer not reached for so long are withdrawn; 0s keeps them for ever.",
        DefaultValueFactory = _ => "0s",
    };

    public IEnumerable<Option> All => [_peers, _api, _ttl];

    /// <returns>Null for no relay, which is a fault of nobody; faults are told.</returns>
    public RelaySettings? Read(ParseResult parsed, string clusterName, DoorOptions? door, string? stateDirectory, Action<string> fault)
    {
        var (peers, api) = (parsed.GetValue(_peers) ?? "", parsed.GetValue(_api) ?? "");
        if (peers.Length == 0)
            return null;
        if (door is null)
            fault($"{_peers.Name}: a relay needs a door for its readers: give the --door-… files");
        var ttl = ReadDuration(parsed.GetValue(_ttl) ?? "");
        if (ttl is null)
            fault($"{_ttl.Name} '{parsed.GetValue(_ttl)}': must be a duration such as 15m, or 0s");
        return new RelaySettings
        {
            Options = new RelayOptions { CacheTtl = ttl ?? TimeSpan.Zero },
            ClusterName = clusterName,
            PeerDirectory = Path.GetFullPath(peers),
            Api = ReadApi(_api.Name, api, fault),
            StateDir = stateDirectory,
        };
    }

    public static ApiAddress? ReadApi(string flag, string value, Action<string> fault)
    {
        if (value is "" or "0")
            return null;
        var address = ApiAddress.Parse(value);
        if (address is null)
            fault($"{flag} '{value}': must be localhost:PORT or IP:PORT");
        return address;
    }

    /// <summary>Go's way to write a duration: 15s, 10m, 1h30m. Null when the text is none.</summary>
    public static TimeSpan? ReadDuration(string text)
    {
        var sum = TimeSpan.Zero;
        var rest = text.AsSpan();
        while (rest.Length > 0)
        {
            var digits = rest.IndexOfAnyExceptInRange('0', '9');
            if (digits <= 0 || !int.TryParse(rest[..digits], NumberStyles.None, CultureInfo.InvariantCulture, out var count))
                return null;
            var unit = rest[digits..].StartsWith("ms") ? "ms" : rest[digits..(digits + 1)].ToString();
            TimeSpan? one = unit switch
            {
                "ms" => TimeSpan.FromMilliseconds(1),
                "s" => TimeSpan.FromSeconds(1),
                "m" => TimeSpan.FromMinutes(1),
                "h" => TimeSpan.FromHours(1),
                _ => null,
            };
            if (one is null)
                return null;
            sum += one.Value * count;
            rest = rest[(digits + unit.Length)..];
        }
        return text.Length == 0 ? null : sum;
    }
}
