using Mesh.ClusterMesh.Wire;
using Mesh.ControlPlane.LoadBalancing.Choice;
using Mesh.ControlPlane.Restored;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>
/// Keeps what each source says about services and writes the merged rows. Any change marks the services it touches; then each of
/// them is merged once, and all rows of a batch go into one transaction: a thousand changed endpoints of one service cost one
/// merge, and a change to one service costs nothing to the others.
/// Two services that claim one virtual address: the first keeps it, the other waits until it is free, and is told so.
/// </summary>
public sealed partial class LoadBalancingWriter
{
    private readonly Lock _lock = new();
    private readonly Table<L3n4Addr, Frontend> _frontends;
    private readonly ClusterIdentity _self;
    private readonly Dictionary<ServiceName, LocalService> _services = [];
    private readonly Dictionary<ServiceName, Dictionary<string, Slice>> _slices = [];
    private readonly Dictionary<(string Namespace, string Name), ServiceName> _sliceOwners = [];
    private readonly Dictionary<ServiceName, Dictionary<string, RemoteService>> _remote = [];
    private readonly Dictionary<ServiceName, List<L3n4Addr>> _addressesOf = [];
    private readonly Dictionary<L3n4Addr, ServiceName> _owners = [];
    private readonly Dictionary<L3n4Addr, SortedSet<ServiceName>> _waiting = [];
    private readonly Dictionary<L3n4Addr, List<RestoredBackend>> _restored;
    private readonly Dictionary<ServiceName, string> _refused = [];
    private readonly Dictionary<ServiceName, string> _remarks = [];
    private readonly Dictionary<ServiceName, string> _misread = [];
    private readonly string _nodeName;
    private readonly (ushort First, ushort Last) _nodePorts;
    private readonly ChoiceSurroundings _surroundings;
    private readonly TimeProvider _time;
    private long _sequence;

    private static readonly TimeSpan UptakeInterval = TimeSpan.FromSeconds(1);

    /// <summary>Backends behind one frontend at the most.</summary>
    public const int BackendsMax = 10_000;

    /// <param name="restored">Backends of other clusters that the kernel had before this run.</param>
    /// <param name="nodeName">This node; "" = unknown, and no backend is on it.</param>
    /// <param name="nodePorts">Range of NodePorts that the kernel looks for; null = 30000 to 32767.</param>
    /// <param name="time">By which young local sides are taken up.</param>
    public LoadBalancingWriter(Table<L3n4Addr, Frontend> frontends, ClusterIdentity self, IEnumerable<RestoredBackend> restored,
        string nodeName = "", (ushort First, ushort Last)? nodePorts = null, TimeProvider? time = null)
    {
        _time = time ?? TimeProvider.System;
        _surroundings = new ChoiceSurroundings(self.Id, _time);
        _nodeName = nodeName;
        _nodePorts = nodePorts ?? (30000, 32767);
        _frontends = frontends;
        _self = self;
        _restored = restored.Where(backend => backend.ClusterId != self.Id)
            .GroupBy(backend => backend.Frontend)
            .ToDictionary(group => group.Key, group => group.ToList());
    }

    /// <summary>Services that another cluster offers, whether a local Service takes them up or not.</summary>
    public int GlobalServices
    {
        get
        {
            lock (_lock)
                return _remote.Count;
        }
    }

    /// <summary>What was not done as asked, and the mend: virtual addresses claimed by more than one service, too many backends (the last
    /// good state stays), ports that the datapath cannot serve.</summary>
    public IReadOnlyList<string> Conflicts
    {
        get
        {
            lock (_lock)
                return [.. _waiting.SelectMany(pair => pair.Value.Select(waiting =>
                    $"Service {waiting}: {pair.Key} already belongs to Service {_owners[pair.Key]}: give one of them another address"))
                    .Concat(_refused.Values).Concat(_remarks.Values).Concat(_misread.Values)
                    .Order(StringComparer.Ordinal)];
        }
    }

    /// <summary>Applies a batch of local objects; those of other kinds are passed over.</summary>
    public void ApplyLocal(IReadOnlyList<ObjectEvent> events)
    {
        lock (_lock)
        {
            var touched = new HashSet<ServiceName>();
            foreach (var change in events)
            {
                var present = change.Type == ObjectEventType.Upsert;
                if (change.Object is Service service)
                    NoteService(Read(service), present, touched);
                else if (change.Object is CiliumNode node && node.Metadata.Name == _nodeName && _surroundings.SetZone(present ? node : null))
                    touched.UnionWith(_services.Values.Where(one => one.Choice.PreferZone).Select(one => one.Name));
                else if (change.Object is EndpointSlice slice)
                    NoteSlice(slice, present, touched);
            }
            Write(touched);
            _surroundings.Begun = true;
        }
    }

    /// <summary>Clusters that traffic proves to be out of reach, or a drill takes out: they have no health. Only services with a
    /// minimum are touched; for all others the kernel takes such a cluster out by itself.</summary>
    public void SetUnreachable(IReadOnlySet<uint> clusters)
    {
        lock (_lock)
            if (_surroundings.SetUnreachable(clusters))
                Write([.. _services.Values.Where(one => one.Choice.MinHealthy > 0).Select(one => one.Name)]);
    }

    /// <summary>Takes young local sides up step by step until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(UptakeInterval, _time);
        while (await timer.WaitForNextTickAsync(cancellation))
        {
            lock (_lock)
                Write([.. _surroundings.Due()]);
        }
    }

    /// <summary>Applies one remote cluster's changed records; null deletes, and so does a record that is not shared.</summary>
    /// <param name="revisions">Of the records in the cluster's etcd, as far as they are known.</param>
    public void ApplyRemote(string cluster, uint clusterId, IReadOnlyList<KeyValuePair<ServiceName, ClusterService?>> changes,
        IReadOnlyDictionary<ServiceName, long>? revisions = null)
    {
        lock (_lock)
        {
            var touched = new HashSet<ServiceName>();
            foreach (var (name, record) in changes)
            {
                if (record is null || !record.Shared)
                    Forget(cluster, name, touched);
                else
                    Note(
                        new RemoteService(cluster, clusterId, ++_sequence, BackendsOf.Record(record))
                        {
                            NotReady = BackendsOf.NotReady(record),
                            Revision = revisions?.GetValueOrDefault(name) ?? 0,
                            Since = _time.GetUtcNow(),
                        },
                        name, touched);
            }
            Write(touched);
        }
    }

    /// <summary>Forgets everything the cluster offered.</summary>
    public void Drain(string cluster)
    {
        lock (_lock)
        {
            var touched = new HashSet<ServiceName>();
            foreach (var name in _remote.Where(pair => pair.Value.ContainsKey(cluster)).Select(pair => pair.Key).ToList())
                Forget(cluster, name, touched);
            Write(touched);
        }
    }

    /// <summary>Gives up what the kernel had of these clusters: they have been heard, or nobody configures them any more.</summary>
    public void Release(Predicate<uint> clusterId)
    {
        lock (_lock)
        {
            var touched = new HashSet<ServiceName>();
            foreach (var (frontend, backends) in _restored.ToList())
            {
                if (backends.RemoveAll(backend => clusterId(backend.ClusterId)) > 0 && _owners.TryGetValue(frontend, out var owner))
                    touched.Add(owner);
                if (backends.Count == 0)
                    _restored.Remove(frontend);
            }
            Write(touched);
        }
    }

    /// <summary>With annotations that cannot be read the last good choice stays, and that is told.</summary>
    private LocalService Read(Service service)
    {
        var name = new ServiceName(service.Metadata.Namespace ?? "", service.Metadata.Name ?? "");
        _misread.Remove(name);
        if (ServiceChoice.TryRead(service.Metadata, out var choice, out var problem))
            return LocalService.From(service, choice);
        var kept = _services.TryGetValue(name, out var before);
        _misread[name] = $"Service {name}: {problem}; {(kept ? "its last good choice stays" : "all clusters alike until it is mended")}";
        return LocalService.From(service, before?.Choice ?? ServiceChoice.Default);
    }

    private void NoteService(LocalService service, bool present, HashSet<ServiceName> touched)
    {
        if (present)
            _services[service.Name] = service;
        else
        {
            _services.Remove(service.Name);
            _misread.Remove(service.Name);
            _surroundings.Forget(service.Name);
        }
        touched.Add(service.Name);
    }

    private void NoteSlice(EndpointSlice slice, bool present, HashSet<ServiceName> touched)
    {
        var key = (slice.Metadata.Namespace ?? "", slice.Metadata.Name ?? "");
        if (_sliceOwners.Remove(key, out var before) && _slices.TryGetValue(before, out var siblings))
        {
            siblings.Remove(key.Item2);
            if (siblings.Count == 0)
                _slices.Remove(before);
            touched.Add(before);
        }
        if (!present || BackendsOf.ServiceOf(slice) is not { } owner)
            return;
        _sliceOwners[key] = owner;
        if (!_slices.TryGetValue(owner, out var slices))
            _slices[owner] = slices = [];
        slices[key.Item2] = new Slice(
            BackendsOf.Slice(slice), BackendsOf.NotReady(slice), BackendsOf.Slice(slice, ready: false), _time.GetUtcNow());
        touched.Add(owner);
    }

    private void Note(RemoteService offer, ServiceName name, HashSet<ServiceName> touched)
    {
        if (!_remote.TryGetValue(name, out var clusters))
            _remote[name] = clusters = [];
        // A record that says the same again is no new claim: a relist must not move an address between two clusters.
        if (clusters.TryGetValue(offer.Cluster, out var before) && before.ClusterId == offer.ClusterId
            && before.NotReady == offer.NotReady && before.Backends.AsSpan().SequenceEqual(offer.Backends.AsSpan()))
        {
            clusters[offer.Cluster] = before with { Revision = offer.Revision };
            return;
        }
        clusters[offer.Cluster] = offer;
        touched.Add(name);
    }

    private void Forget(string cluster, ServiceName name, HashSet<ServiceName> touched)
    {
        if (!_remote.TryGetValue(name, out var clusters) || !clusters.Remove(cluster))
            return;
        if (clusters.Count == 0)
            _remote.Remove(name);
        touched.Add(name);
    }

    private void Write(HashSet<ServiceName> touched)
    {
        if (touched.Count == 0)
            return;
        _frontends.Write(transaction =>
        {
            var queue = new Queue<ServiceName>(touched.Where(name => _services.ContainsKey(name) || _addressesOf.ContainsKey(name)));
            while (queue.TryDequeue(out var name))
                WriteService(name, transaction, queue);
        });
    }

    private void WriteService(ServiceName name, Table<L3n4Addr, Frontend>.WriteTransaction transaction, Queue<ServiceName> queue)
    {
        var rows = Merge(name);
        _untold.Add(name);
        Judge(name, rows);
        if (_refused.ContainsKey(name))
            return;
        foreach (var address in _addressesOf.GetValueOrDefault(name) ?? [])
            if (rows.All(row => row.Address != address))
                Withdraw(name, address, transaction, queue);
        foreach (var row in rows)
            if (_owners.TryAdd(row.Address, name) || _owners[row.Address] == name)
                transaction.Upsert(row.Address, row);
            else
                Wait(row.Address, name);
        if (rows.Count == 0)
            _addressesOf.Remove(name);
        else
            _addressesOf[name] = [.. rows.Select(row => row.Address)];
    }

    /// <summary>What the datapath would not, or only in part, make of these rows.</summary>
    private void Judge(ServiceName name, IReadOnlyList<Frontend> rows)
    {
        _refused.Remove(name);
        _remarks.Remove(name);
        foreach (var row in rows)
        {
            if (row.Backends.Count > BackendsMax)
                _refused[name] = $"Service {name}: {row.Address} would have {row.Backends.Count} backends, at most {BackendsMax} are served: "
                    + "its last good state stays; split the service";
            else if (row.Type == ServiceType.NodePort && (row.Address.Port < _nodePorts.First || row.Address.Port > _nodePorts.Last))
                _remarks[name] = $"Service {name}: nodePort {row.Address.Port} is not among {_nodePorts.First} to {_nodePorts.Last} and is not served: "
                    + "choose another, or start the agents with --node-port-range";
            else if (row.Address.Protocol == L4Protocol.SCTP
                && row.Backends.Items.FirstOrDefault(backend => backend.Address.Port != row.Address.Port) is { Address.Port: > 0 } other)
                _remarks[name] = $"Service {name}: {row.Address} has the backend {other.Address}, whose other port SCTP's checksum would not survive: "
                    + "give port and targetPort the same number";
        }
    }

    private void Withdraw(ServiceName name, L3n4Addr address, Table<L3n4Addr, Frontend>.WriteTransaction transaction, Queue<ServiceName> queue)
    {
        if (_owners[address] != name)
        {
            StopWaiting(address, name);
            return;
        }
        _owners.Remove(address);
        transaction.Delete(address);
        if (!_waiting.TryGetValue(address, out var waiting))
            return;
        var next = waiting.Min;
        _owners[address] = next;
        StopWaiting(address, next);
        queue.Enqueue(next);
    }

    private void Wait(L3n4Addr address, ServiceName name)
    {
        if (!_waiting.TryGetValue(address, out var waiting))
            _waiting[address] = waiting = [];
        waiting.Add(name);
    }

    private void StopWaiting(L3n4Addr address, ServiceName name)
    {
        if (_waiting.TryGetValue(address, out var waiting) && waiting.Remove(name) && waiting.Count == 0)
            _waiting.Remove(address);
    }

    private IReadOnlyList<Frontend> Merge(ServiceName name)
    {
        if (!_services.TryGetValue(name, out var service))
            return [];
        var local = _slices.TryGetValue(name, out var slices)
            ? slices.OrderBy(pair => pair.Key, StringComparer.Ordinal).SelectMany(pair => pair.Value.Backends)
            : [];
        IReadOnlyCollection<RemoteService> remote = _remote.TryGetValue(name, out var clusters) ? clusters.Values : [];
        var notReady = (slices?.Values.Sum(slice => slice.NotReady) ?? 0, remote);
        return ServiceMerge.Merge(service, _self, local, remote, address => _restored.TryGetValue(address, out var left) ? left : [], _nodeName,
            _surroundings.Of(service, local, notReady));
    }

    private readonly record struct Slice(System.Collections.Immutable.ImmutableArray<NamedBackend> Backends, int NotReady,
        System.Collections.Immutable.ImmutableArray<NamedBackend> Unready, DateTimeOffset Since);
}
