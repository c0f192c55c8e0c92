using Mesh.ControlPlane.IPCache;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.ControlPlane.Endpoints;

/// <summary>
/// Joins the two things known about a pod: its interface on this node, registered by whoever made it, and its CiliumEndpoint object,
/// which gives its identity and, for pods of other nodes too, its address and node. Either may come first.
/// </summary>
public sealed class EndpointsWriter
{
    private readonly Lock _lock = new();
    private readonly Table<ushort, Endpoint> _endpoints;
    private readonly IPCacheWriter _ipcache;
    private readonly ClusterIdentity _self;
    private readonly Func<IpAddr, bool> _isLocalAddress;
    private readonly Dictionary<(string Namespace, string Pod), CiliumEndpoint> _objects = [];

    /// <param name="isLocalAddress">True for an address of this node.</param>
    public EndpointsWriter(Table<ushort, Endpoint> endpoints, IPCacheWriter ipcache, ClusterIdentity self, Func<IpAddr, bool> isLocalAddress)
    {
        _endpoints = endpoints;
        _ipcache = ipcache;
        _self = self;
        _isLocalAddress = isLocalAddress;
    }

    /// <summary>Takes over a pod's interface. Its identity is filled in from its object.</summary>
    /// <returns>The row as written.</returns>
    public Endpoint Register(Endpoint endpoint)
    {
        lock (_lock)
        {
            var row = endpoint with { Identity = IdentityOf(endpoint.Namespace, endpoint.PodName) };
            _endpoints.TryGet(row.Id, out var before);
            _endpoints.Write(transaction => transaction.Upsert(row.Id, row));
            _ipcache.Write(AddressesOf(before, row));
            return row;
        }
    }

    /// <summary>False when there is no such endpoint.</summary>
    public bool Remove(ushort id)
    {
        lock (_lock)
        {
            if (!_endpoints.TryGet(id, out var row))
                return false;
            _endpoints.Write(transaction => transaction.Delete(id));
            _ipcache.Write(AddressesOf(row, null));
            return true;
        }
    }

    /// <summary>Applies a batch of local objects; those of other kinds are passed over.</summary>
    public void ApplyLocal(IReadOnlyList<ObjectEvent> events)
    {
        lock (_lock)
        {
            var changes = new List<IPCacheChange>();
            var touched = new HashSet<(string, string)>();
            foreach (var change in events)
            {
                if (change.Object is not CiliumEndpoint endpoint)
                    continue;
                var key = (endpoint.Metadata.Namespace ?? "", endpoint.Metadata.Name ?? "");
                var before = _objects.GetValueOrDefault(key);
                if (change.Type == ObjectEventType.Upsert)
                    _objects[key] = endpoint;
                else
                    _objects.Remove(key);
                changes.AddRange(AddressesOf(before, _objects.GetValueOrDefault(key)));
                touched.Add(key);
            }
            if (touched.Count == 0)
                return;
            _ipcache.Write(changes);
            WriteIdentities(touched);
        }
    }

    /// <summary>Says every object's addresses anew, after this node's own addresses have changed.</summary>
    public void LocalNodeChanged()
    {
        lock (_lock)
            _ipcache.Write([.. _objects.Values.SelectMany(endpoint => AddressesOf(null, endpoint))]);
    }

    private void WriteIdentities(HashSet<(string, string)> touched)
    {
        var rows = _endpoints.Snapshot().Select(pair => pair.Value.Row)
            .Where(row => touched.Contains((row.Namespace, row.PodName)))
            .Select(row => (Before: row, After: row with { Identity = IdentityOf(row.Namespace, row.PodName) }))
            .Where(pair => pair.Before != pair.After).ToList();
        if (rows.Count == 0)
            return;
        _endpoints.Write(transaction =>
        {
            foreach (var (_, row) in rows)
                transaction.Upsert(row.Id, row);
        });
        _ipcache.Write([.. rows.SelectMany(pair => AddressesOf(pair.Before, pair.After))]);
    }

    private uint IdentityOf(string @namespace, string pod) =>
        _objects.TryGetValue((@namespace, pod), out var endpoint) ? endpoint.Status?.Identity?.Id ?? 0 : 0;

    /// <summary>A registered pod's addresses need no tunnel. Said only once its identity is known: until then the packets are
    /// delivered all the same, by the endpoint's own entry.</summary>
    private IEnumerable<IPCacheChange> AddressesOf(Endpoint? before, Endpoint? after)
    {
        var origin = new IPCacheOrigin(IPCacheSource.Local, _self.Name, $"endpoint {(before ?? after)!.Id}");
        var now = after is null or { Identity: 0 } ? [] : after.Addresses.Select(IpPrefix.Host).ToHashSet();
        foreach (var address in before?.Addresses ?? default)
            if (!now.Contains(IpPrefix.Host(address)))
                yield return new IPCacheChange(IpPrefix.Host(address), origin, null);
        foreach (var prefix in now)
            yield return new IPCacheChange(prefix, origin, Entry(prefix, after!.Identity, null, 0, after.Namespace, after.PodName));
    }

    private IEnumerable<IPCacheChange> AddressesOf(CiliumEndpoint? before, CiliumEndpoint? after)
    {
        var subject = (before ?? after)!;
        var origin = new IPCacheOrigin(IPCacheSource.Local, _self.Name, $"pod {subject.Metadata.Namespace}/{subject.Metadata.Name}");
        var now = after is null ? [] : Addresses(after).ToHashSet();
        foreach (var address in before is null ? [] : Addresses(before))
            if (!now.Contains(address))
                yield return new IPCacheChange(IpPrefix.Host(address), origin, null);
        if (now.Count == 0)
            yield break;
        var tunnel = IpAddr.TryParse(after!.Status?.Networking?.Node, out var node) && !_isLocalAddress(node) ? node : (IpAddr?)null;
        foreach (var address in now)
            yield return new IPCacheChange(IpPrefix.Host(address), origin,
                Entry(IpPrefix.Host(address), after.Status?.Identity?.Id ?? 0, tunnel, (byte)(after.Status?.Encryption?.Key ?? 0),
                    after.Metadata.Namespace ?? "", after.Metadata.Name ?? ""));
    }

    private static IEnumerable<IpAddr> Addresses(CiliumEndpoint endpoint) =>
        from pair in endpoint.Status?.Networking?.Addressing ?? []
        from text in new[] { pair.Ipv4, pair.Ipv6 }
        let parsed = (Ok: IpAddr.TryParse(text, out var ip), Ip: ip)
        where parsed.Ok
        select parsed.Ip;

    private IPCacheEntry Entry(IpPrefix prefix, uint identity, IpAddr? tunnel, byte key, string @namespace, string pod) =>
        new(prefix, identity, tunnel, key, IPCacheSource.Local, _self.Name, _self.Id, @namespace, pod);
}
