using Mesh.Joining;
using Mesh.Joining.Tokens;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>
/// Connects the clusters of a lab as two operators would: one makes a token, the other takes it to the first one's join listener, over
/// the network of its own control plane. Neither sees a key of the other.
/// </summary>
public static class LabJoin
{
    private static readonly TimeSpan TokenLifetime = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan ListenerPatience = TimeSpan.FromSeconds(5);

    /// <summary>Every two clusters.</summary>
    /// <exception cref="LabException">A join was refused or interrupted; says which and why.</exception>
    public static async Task ConnectAllAsync(LabPlan plan, CancellationToken cancel)
    {
        foreach (var round in Rounds(plan.Clusters))
            await Task.WhenAll(round.Select(pair => ConnectAsync(pair.Issuer, pair.Taker, cancel)));
    }

    /// <summary>The issuer makes a token, and the taker takes it.</summary>
    /// <exception cref="LabException">The join was refused or interrupted; says why.</exception>
    public static async Task<JoinOutcome> ConnectAsync(ClusterPlan issuer, ClusterPlan taker, CancellationToken cancel)
    {
        try
        {
            var direct = issuer.RelayConfig is null;
            var ledger = new TokenLedger(issuer.JoinDirectory, TimeProvider.System);
            var token = ledger.Create(
                ClusterDescription.Load(issuer.Directory), issuer.Directory,
                new TokenRequest(TokenLifetime, taker.Name, [], [], direct));
            if (!await ledger.WaitForListenerAsync(ListenerPatience, cancel))
                throw new LabException($"the API server of {issuer.Name} does not listen for joins on {issuer.JoinListen}: see its log");
            var join = new TokenJoin(ClusterDescription.Load(taker.Directory), token, Environment(taker));
            return await join.ConnectAsync(ConnectRequest.Plain with { Direct = direct }, cancel);
        }
        catch (Exception e) when (e is JoinException or PlanException)
        {
            throw new LabException($"{taker.Name} could not be connected to {issuer.Name}: {e.Message}");
        }
    }

    /// <summary>What a join by this cluster runs in: the network of its control plane.</summary>
    public static JoinEnvironment Environment(ClusterPlan taker) => new()
    {
        OpenSocket = (family, type, protocol) => NetworkNamespace.OpenSocket(taker.Namespace, family, type, protocol),
    };

    /// <summary>
    /// All pairs, in rounds in which no cluster appears twice (everybody plays everybody: one stays, the others go round), because the
    /// two that join listen on the port of the tunnel for each other's probes.
    /// </summary>
    internal static IEnumerable<IReadOnlyList<(ClusterPlan Issuer, ClusterPlan Taker)>> Rounds(IReadOnlyList<ClusterPlan> clusters)
    {
        var seats = clusters.Count + clusters.Count % 2;
        for (var round = 0; round < seats - 1; round++)
        {
            var pairs = new List<(ClusterPlan, ClusterPlan)>();
            for (var table = 0; table < seats / 2; table++)
            {
                var (a, b) = (Seat(table, round), Seat(seats - 1 - table, round));
                // An odd one out has a free round.
                if (Math.Max(a, b) < clusters.Count)
                    pairs.Add((clusters[Math.Min(a, b)], clusters[Math.Max(a, b)]));
            }
            yield return pairs;
        }

        int Seat(int table, int round) => table == 0 ? 0 : 1 + (table - 1 + round) % (seats - 1);
    }
}
