using Mesh.ControlPlane.LoadBalancing.Decisions;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>The story of each row: what was offered for it, and what became of that.</summary>
public sealed partial class LoadBalancingWriter
{
    private readonly HashSet<ServiceName> _untold = [];

    /// <summary>Services whose decision may have changed since they were last taken here.</summary>
    public IReadOnlyList<ServiceName> TakeUntold(int most)
    {
        lock (_lock)
        {
            var taken = _untold.Take(most).ToList();
            _untold.ExceptWith(taken);
            return taken;
        }
    }

    /// <summary>They are told later.</summary>
    public void PutBack(IEnumerable<ServiceName> services)
    {
        lock (_lock)
            _untold.UnionWith(services);
    }

    /// <summary>Null when there is no such Service, or it has no virtual address.</summary>
    public ServiceDecision? Decision(ServiceName name)
    {
        lock (_lock)
        {
            if (!_services.TryGetValue(name, out var service))
                return null;
            var offers = Offers(name);
            var frontends = service.Frontends().Select(one => Explain(service, one.Address, one.Port, one.Type, offers)).ToList();
            return frontends.Count == 0 ? null : new ServiceDecision
            {
                Service = name.ToString(),
                Global = service.Global,
                Choice = service.Choice.Words(),
                Remarks = [.. Remarks(name)],
                Frontends = frontends,
            };
        }
    }

    private FrontendDecision Explain(LocalService service, L3n4Addr address, FrontendPort port, ServiceType type, IReadOnlyCollection<Offer> offers)
    {
        var owner = _owners.TryGetValue(address, out var found) ? found : service.Name;
        var row = owner == service.Name && _frontends.TryGet(address, out var inForce) ? inForce : null;
        return Decide.Explain(service, _self, address, port, type, row, offers,
            owner == service.Name ? null : $"the address belongs to Service {owner}");
    }

    private List<Offer> Offers(ServiceName name)
    {
        var offers = new List<Offer>();
        foreach (var (_, slice) in (_slices.GetValueOrDefault(name) ?? []).OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            offers.AddRange(slice.Backends.Select(backend => new Offer(backend, _self.Name, _self.Id, 0, 0, slice.Since)));
            offers.AddRange(slice.Unready.Select(backend => new Offer(backend, _self.Name, _self.Id, 0, 0, slice.Since, Ready: false)));
        }
        foreach (var (_, record) in (_remote.GetValueOrDefault(name) ?? []).OrderBy(pair => pair.Key, StringComparer.Ordinal))
            offers.AddRange(record.Backends.Select(
                backend => new Offer(backend, record.Cluster, record.ClusterId, record.Sequence, record.Revision, record.Since)));
        return offers;
    }

    private IEnumerable<string> Remarks(ServiceName name)
    {
        foreach (var said in new[] { _refused, _remarks, _misread })
            if (said.TryGetValue(name, out var remark))
                yield return remark;
        foreach (var record in (_remote.GetValueOrDefault(name) ?? []).Values.OrderBy(record => record.Cluster, StringComparer.Ordinal))
            if (record.NotReady > 0)
                yield return $"{record.NotReady} more of {record.Cluster} are not ready";
    }
}
