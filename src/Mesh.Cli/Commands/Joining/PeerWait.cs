using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;

namespace Mesh.Cli.Commands.Joining;

/// <summary>Waits until every agent that can be asked sees a peer, or sees it no more, and says whom it still waits for.</summary>
internal static class PeerWait
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan TellEvery = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan AgentTimeout = TimeSpan.FromSeconds(5);

    /// <param name="present">Whether the peer shall be there and in sync, or not be there.</param>
    /// <returns>Null, or what is still missing after the time.</returns>
    public static async Task<string?> UntilAsync(IReadOnlyList<(ContextNode Node, string Peer)> watchers, bool present, TimeSpan patience,
        Action<string> tell, bool quiet, CancellationToken cancel)
    {
        var clock = Stopwatch.StartNew();
        var told = TimeSpan.Zero;
        while (true)
        {
            var answers = await Task.WhenAll(watchers.Select(watcher => AskAsync(watcher.Node, watcher.Peer, present, cancel)));
            if (answers.FirstOrDefault(answer => answer is not null) is not { } missing)
                return null;
            if (clock.Elapsed > patience)
                return missing;
            if (!quiet && clock.Elapsed - told > TellEvery)
            {
                tell(missing);
                told = clock.Elapsed;
            }
            await Task.Delay(Pause, cancel);
        }
    }

    private static async Task<string?> AskAsync(ContextNode node, string peer, bool present, CancellationToken cancel)
    {
        var name = node.Name.Length > 0 ? node.Name : node.Socket;
        try
        {
            using var agent = node.Connect(AgentTimeout);
            var row = (await agent.GetStatusAsync(cancel)).ClusterMesh?.Clusters?.FirstOrDefault(cluster => cluster.Name == peer);
            if (present)
                return row is { Ready: true } ? null : $"{name} to see {peer}: {row?.Status ?? "it does not know that cluster yet"}";
            return row is null ? null : $"{name} to let go of {peer}";
        }
        catch (AgentException e)
        {
            return $"{name}: {e.Message}";
        }
    }
}
