using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>
/// What the choices of all services share: this node's zone, the clusters out of reach, and the local sides that are being taken
/// up. Not thread-safe: its owner locks.
/// </summary>
internal sealed class ChoiceSurroundings(uint self, TimeProvider time)
{
    private const string ZoneLabel = "topology.kubernetes.io/zone";

    private readonly Dictionary<ServiceName, LocalUptake> _uptakes = [];
    private readonly PriorityQueue<ServiceName, DateTimeOffset> _steps = new();
    private HashSet<uint> _unreachable = [];
    private string _zone = "";

    /// <summary>The local objects have been read once: a local side that appears from now on is young.</summary>
    public bool Begun { get; set; }

    /// <summary>True when that is a change.</summary>
    public bool SetZone(CiliumNode? node)
    {
        var before = _zone;
        _zone = node?.Metadata.Labels?.GetValueOrDefault(ZoneLabel) ?? "";
        return _zone != before;
    }

    /// <summary>True when that is a change.</summary>
    public bool SetUnreachable(IReadOnlySet<uint> clusters)
    {
        if (_unreachable.SetEquals(clusters))
            return false;
        _unreachable = clusters.ToHashSet();
        return true;
    }

    public void Forget(ServiceName service) => _uptakes.Remove(service);

    /// <param name="notReady">Of the own cluster, and what the others say of themselves.</param>
    public ChoiceContext Of(LocalService service, IEnumerable<NamedBackend> local, (int Local, IReadOnlyCollection<RemoteService> Remote) notReady)
    {
        var unreachable = service.Choice.MinHealthy > 0 ? _unreachable : [];
        return new ChoiceContext(
            self,
            _zone,
            cluster => cluster == self ? notReady.Local : notReady.Remote.FirstOrDefault(one => one.ClusterId == cluster)?.NotReady ?? 0,
            cluster => !unreachable.Contains(cluster),
            service.Affinity == ServiceAffinity.Local ? TakeUp(service, local, notReady.Remote) : 1);
    }

    /// <summary>Services whose local side may take more by now.</summary>
    public IEnumerable<ServiceName> Due()
    {
        var due = new List<ServiceName>();
        while (_steps.TryPeek(out var service, out var at) && at <= time.GetUtcNow())
        {
            _steps.Dequeue();
            due.Add(service);
        }
        return due.Distinct();
    }

    private double TakeUp(LocalService service, IEnumerable<NamedBackend> local, IReadOnlyCollection<RemoteService> remote)
    {
        var now = time.GetUtcNow();
        var live = Live(local);
        var uptake = _uptakes.TryGetValue(service.Name, out var before)
            ? before.With(live, now)
            : Begun ? LocalUptake.Old(0).With(live, now) : LocalUptake.Old(live);
        _uptakes[service.Name] = uptake;
        var (share, changesAt) = uptake.At(now, remote.Sum(one => Live(one.Backends)), service.Choice.SlowStart);
        if (changesAt is { } at)
            _steps.Enqueue(service.Name, at);
        return share;
    }

    private static int Live(IEnumerable<NamedBackend> backends) =>
        backends.Where(backend => backend.State == BackendState.Active).Select(backend => backend.Address.Address).Distinct().Count();
}
