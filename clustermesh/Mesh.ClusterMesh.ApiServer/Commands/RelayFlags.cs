using System.CommandLine;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Relay;
using Mesh.Model;

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
        var ttl = GoDuration.Parse(parsed.GetValue(_ttl) ?? "");
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
}
