using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Joining;

/// <summary>Waits until every relay and every agent that can be asked sees a peer, or sees it no more, and says whom it still waits for.
/// An agent that reads a copy of before is not enough: the relay must stand to the peer itself.</summary>
internal static class PeerWait
{
    private const int Named = 4;
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan TellEvery = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan AgentTimeout = TimeSpan.FromSeconds(5);

    /// <param name="present">Whether the peer shall be there and in sync, or not be there.</param>
    /// <returns>Null, or what is still missing after the time.</returns>
    public static async Task<string?> UntilAsync(IReadOnlyList<(ContextNode Node, string Peer)> agents, IReadOnlyList<RelayWatcher> relays,
        bool present, TimeSpan patience, Action<string> tell, bool quiet, CancellationToken cancel)
    {
        var clock = Stopwatch.StartNew();
        var told = TimeSpan.Zero;
        while (true)
        {
            var answers = await Task.WhenAll(relays.Select(relay => AskAsync(relay, present, cancel))
                .Concat(agents.Select(agent => AskAsync(agent.Node, agent.Peer, present, cancel))));
            var missing = answers.OfType<string>().ToList();
            if (missing.Count == 0)
                return null;
            var text = string.Join("; ", missing.Take(Named)) + (missing.Count > Named ? $"; and {missing.Count - Named} more" : "");
            if (clock.Elapsed > patience)
                return text;
            if (!quiet && clock.Elapsed - told > TellEvery)
            {
                tell(text);
                told = clock.Elapsed;
            }
            await Task.Delay(Pause, cancel);
        }
    }

    private static async Task<string?> AskAsync(RelayWatcher relay, bool present, CancellationToken cancel)
    {
        try
        {
            return Missing($"the relay of {relay.Cluster}", (await relay.Peers(cancel)).FirstOrDefault(row => row.Name == relay.Peer),
                relay.Peer, present ? "to be connected to" : null);
        }
        catch (Exception e) when (e is LabException or HttpRequestException)
        {
            return $"the relay of {relay.Cluster} to answer: {e.Message}";
        }
    }

    private static async Task<string?> AskAsync(ContextNode node, string peer, bool present, CancellationToken cancel)
    {
        var name = node.Name.Length > 0 ? node.Name : node.Socket;
        try
        {
            using var agent = node.Connect(AgentTimeout);
            var row = (await agent.GetStatusAsync(cancel)).ClusterMesh?.Clusters?.FirstOrDefault(cluster => cluster.Name == peer);
            return Missing(name, row, peer, present ? "to see" : null);
        }
        catch (AgentException e)
        {
            return $"{name} to answer: {e.Message}";
        }
    }

    private static string? Missing(string who, RemoteCluster? row, string peer, string? wanted) => wanted is null
        ? row is null ? null : $"{who} to let go of {peer}"
        : row is { Ready: true } ? null : $"{who} {wanted} {peer}: {row?.Status ?? "it does not know that cluster yet"}";
}
