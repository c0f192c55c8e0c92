using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.Cli.Commands.Joining;

/// <summary>A relay that can be asked for its peers.</summary>
/// <param name="Cluster">Whose relay it is.</param>
/// <param name="Peer">Whom it shall be connected to.</param>
/// <param name="Peers">Asks it; throws LabException or HttpRequestException when it does not answer.</param>
internal sealed record RelayWatcher(string Cluster, string Peer, Func<CancellationToken, Task<IReadOnlyList<RemoteCluster>>> Peers)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>GET /v1/cluster of the relay at HOST:PORT.</summary>
    public static async Task<IReadOnlyList<RemoteCluster>> AskAsync(string api, CancellationToken cancel)
    {
        using var http = new HttpClient(new SocketsHttpHandler { UseProxy = false }) { Timeout = Patience };
        try
        {
            await using var body = await http.GetStreamAsync(new Uri($"http://{api}/v1/cluster"), cancel);
            return await JsonSerializer.DeserializeAsync(body, AgentApiJson.Wire.IReadOnlyListRemoteCluster, cancel) ?? [];
        }
        catch (Exception e) when (e is JsonException or IOException || (e is OperationCanceledException && !cancel.IsCancellationRequested))
        {
            throw new HttpRequestException($"{api} does not answer as a relay does", e);
        }
    }
}
