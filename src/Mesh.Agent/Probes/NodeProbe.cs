using System.Collections.Concurrent;
using System.Net;
using System.Net.NetworkInformation;
using Mesh.ControlPlane.Nodes;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.Agent.Probes;

/// <summary>
/// Asks the other clusters' nodes for an echo, through the tunnel: from this node's own address inside the mesh to theirs, so that the
/// packets take the way that pods' packets take. A control plane that is well says nothing about UDP 8472. For the status only: no
/// entry is ever withdrawn because of it.
/// </summary>
/// <param name="ping">Sends one echo request; true when the answer came in time.</param>
internal sealed class NodeProbe(Table<NodeName, Node> nodes, Func<IPAddress, TimeSpan, CancellationToken, Task<bool>> ping, TimeProvider time)
{
    /// <summary>Echo requests per round: more nodes than that take turns.</summary>
    private const int PerRound = 64;

    /// <summary>Unanswered requests in a row after which a node counts as silent; one or two are a lost packet.</summary>
    private const int Enough = 3;

    private const string AddressType = "CiliumInternalIP";
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);

    private readonly ConcurrentDictionary<NodeName, int> _unanswered = [];
    private int _turn;

    public static async Task<bool> PingAsync(IPAddress address, TimeSpan patience, CancellationToken cancellation)
    {
        using var ping = new Ping();
        try
        {
            var reply = await ping.SendPingAsync(address, patience, cancellationToken: cancellation);
            return reply.Status == IPStatus.Success;
        }
        catch (PingException)
        {
            // No route, no socket: no answer either.
            return false;
        }
    }

    /// <summary>What the last rounds say of a cluster's nodes. From any thread.</summary>
    public (int Probed, IReadOnlyList<string> Silent) Of(string cluster)
    {
        var known = _unanswered.Where(node => node.Key.Cluster == cluster).ToList();
        return (known.Count, [.. known.Where(node => node.Value >= Enough).Select(node => node.Key.Name).Order(StringComparer.Ordinal)]);
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Interval, time);
        do
        {
            await RoundAsync(cancellation);
        }
        while (await timer.WaitForNextTickAsync(cancellation));
    }

    internal async Task RoundAsync(CancellationToken cancellation)
    {
        var remote = nodes.Snapshot().Select(row => row.Value.Row).Where(node => !node.IsLocalNode).ToList();
        var local = nodes.Snapshot().Select(row => row.Value.Row).FirstOrDefault(node => node.IsLocalNode);
        var asked = remote.Where(node => local is null || node.Name.Cluster != local.Name.Cluster)
            .Select(node => (node.Name, Address: AddressOf(node))).Where(node => node.Address is not null).ToList();
        foreach (var gone in _unanswered.Keys.Except(asked.Select(node => node.Name)).ToList())
            _unanswered.TryRemove(gone, out _);
        var first = asked.Count > PerRound ? _turn % asked.Count : 0;
        _turn = first + PerRound;
        await Task.WhenAll(Enumerable.Range(first, Math.Min(PerRound, asked.Count)).Select(async i =>
        {
            var (name, address) = asked[i % asked.Count];
            var answered = await ping(address!, Patience, cancellation);
            _unanswered.AddOrUpdate(name, answered ? 0 : 1, (_, before) => answered ? 0 : before + 1);
        }));
    }

    private static IPAddress? AddressOf(Node node) => node.Addresses.Items
        .Where(address => address.Type == AddressType)
        .OrderBy(address => address.Address.IsV6)
        .Select(address => address.Address.ToIPAddress()).FirstOrDefault();
}
