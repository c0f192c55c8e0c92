using System.Globalization;
using Mesh.AgentApi;
using Mesh.Datapath;
using Mesh.Datapath.Observing;
using Mesh.Model;

namespace Mesh.Cli.Commands.Observe;

/// <summary>
/// Who the addresses of flows are: the number of the identity from the maps, always; pod, labels and cluster's name from the agent
/// while it answers, asked again at most every ten seconds, when an address is not known.
/// </summary>
internal sealed class FlowNames(PinnedMaps maps, AgentClient? agent, TimeProvider time)
{
    private const string ClusterLabel = "k8s:io.cilium.k8s.policy.cluster=";

    private static readonly TimeSpan Pause = TimeSpan.FromSeconds(10);

    private readonly Dictionary<IpAddr, string> _pods = [];
    private readonly Dictionary<uint, IReadOnlyList<string>> _labels = [];
    private readonly Dictionary<uint, string> _clusters = [];
    private DateTimeOffset _askedAt = DateTimeOffset.MinValue;

    /// <summary>Null while the agent answers.</summary>
    public string? Trouble { get; private set; }

    /// <summary>Asks anew when something in these events is not known yet.</summary>
    public async Task LearnAsync(IReadOnlyList<FlowEvent> events, CancellationToken cancellation)
    {
        var unknown = events.Any(one => one.Source is { } source && !_pods.ContainsKey(source)
            || one.Destination is { } destination && !_pods.ContainsKey(destination));
        if (agent is null || !unknown || time.GetUtcNow() - _askedAt < Pause)
            return;
        _askedAt = time.GetUtcNow();
        await AskAsync(agent, cancellation);
    }

    /// <summary>Why no flow can have a pod of this name now, with the names that are near; null when one can.</summary>
    /// <param name="flag">What the name was given to, for the message.</param>
    public async Task<string?> WhyUnknownAsync(string flag, string name, CancellationToken cancellation)
    {
        if (agent is null)
            return $"{flag} {name}: no agent was named that knows pods: give --socket, or an address";
        await AskAsync(agent, cancellation);
        if (Trouble is { } trouble)
            return $"{flag} {name}: the names of pods are not known ({trouble}): give an address";
        if (_pods.ContainsValue(name) || _pods.ContainsValue($"default/{name}"))
            return null;
        var near = NearWords.Of(name, _pods.Values.Distinct());
        return $"{flag} {name}: no pod of that name is known on this node now"
            + (near.Count > 0 ? $"; near are {string.Join(", ", near)}" : "; `mesh ip list` shows which are")
            + (flag == "--to" ? "; a service is named by its virtual address" : "");
    }

    private async Task AskAsync(AgentClient agent, CancellationToken cancellation)
    {
        try
        {
            foreach (var identity in await agent.GetIdentitiesAsync(cancellation))
                Learn((uint)identity.Id, identity.Labels ?? []);
            foreach (var entry in await agent.GetIPsAsync(cancellation))
                if (entry.Metadata is { Name: { } name } pod && IpPrefix.TryParse(entry.Cidr, out var prefix) && prefix.IsHost)
                    _pods[prefix.Address] = $"{pod.Namespace}/{name}";
            Trouble = null;
        }
        catch (AgentException e)
        {
            Trouble = e.Message;
        }
    }

    /// <param name="said">Identity that the tunnel said; 0 = ask the maps.</param>
    public Party Of(IpAddr? address, uint said)
    {
        if (address is not { } known)
            return Party.Unknown;
        var entry = maps.Find(known);
        var identity = said != 0 ? said : maps.EndpointIdentity(known) ?? entry?.Identity ?? NumericIdentity.World;
        return new Party(identity, ClusterOf(identity, entry), _pods.GetValueOrDefault(known, ""), _labels.GetValueOrDefault(identity, []));
    }

    private string ClusterOf(uint identity, PinnedIPCacheEntry? entry) =>
        _clusters.TryGetValue(identity, out var name) ? name
        : entry is { ClusterId: > 0 } ? $"cluster {entry.ClusterId.ToString(CultureInfo.InvariantCulture)}" : "";

    private void Learn(uint identity, IReadOnlyList<string> labels)
    {
        _labels[identity] = labels;
        foreach (var label in labels)
            if (label.StartsWith(ClusterLabel, StringComparison.Ordinal))
                _clusters[identity] = label[ClusterLabel.Length..];
    }
}
