using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.ClusterMesh.Remote;

/// <summary>What judges the records of one connection.</summary>
/// <param name="StoreId">etcd's own cluster ID at present.</param>
/// <param name="IsDoor">The store is a door of ours, and so its owner is an exporter of ours.</param>
internal sealed record ImportSession(
    Layout Layout, RecordValidator Validator, ImportJudge Judge, ImportPolicy Policy, Func<ulong> StoreId, Func<bool> IsDoor);

/// <summary>
/// What the sink holds of one cluster, and the step from watched bytes to typed changes. It outlives connections: a new list is
/// compared with what earlier ones left. A record refused as an update leaves the previous one in force; refused within a list
/// it counts as not listed. What would take too much away at once is held: see RemoteRecords.Breaker.cs.
/// </summary>
internal sealed partial class RemoteRecords
{
    /// <summary>Entries that wait for their node, and the largest value kept for that.</summary>
    private const int MostAwaiting = 10_000;
    private const int LargestAwaiting = 4_096;

    /// <summary>What is made room for on the word of a store.</summary>
    private const int MostExpected = 1 << 18;

    private readonly TimeProvider _time;
    private readonly ResourceRecords<string, NodeRecord> _nodes;
    private readonly ResourceRecords<ServiceName, ClusterService> _services;
    private readonly ResourceRecords<IpPrefix, IpIdentityPair> _ipEntries;
    private readonly ResourceRecords<uint, string> _identities;
    private readonly ResourceRecords<ServiceName, ExportedService> _exports;
    private readonly ResourceRecords[] _all;
    private readonly HashSet<RemoteResource> _synced = [];
    private readonly Dictionary<string, KeyValue> _awaitingNode = new(StringComparer.Ordinal);
    private readonly HashSet<IpPrefix> _reserved = [];
    private RemoteChanges? _followed;
    private int _nodesFollowed;
    private ulong _storeId;

    public RemoteRecords(TimeProvider time)
    {
        _time = time;
        _nodes = new(RemoteResource.Nodes, time, name => name, changes => changes.Nodes);
        _services = new(RemoteResource.Services, time, name => name.ToString(), changes => changes.Services);
        _ipEntries = new(RemoteResource.IpEntries, time, Keys.IpSuffix, changes => changes.IpEntries);
        _identities = new(RemoteResource.Identities, time,
            identity => identity.ToString(System.Globalization.CultureInfo.InvariantCulture), changes => changes.Identities);
        _exports = new(RemoteResource.ServiceExports, time, name => name.ToString(), changes => changes.ServiceExports);
        _all = [_nodes, _services, _ipEntries, _identities, _exports];
        Quarantine = new Quarantine(time);
    }

    public Quarantine Quarantine { get; }

    public NodeAddresses NodeAddresses { get; } = new();

    public bool IsSynced(RemoteResource resource) => _synced.Contains(resource);

    public int Count(RemoteResource resource) => Of(resource).Count;

    /// <summary>All numbers that a change of a record can change in the cluster's status. For the loop that applies them.</summary>
    public (int Nodes, int Services, int IpEntries, int Identities, int Exports, long Refused, int Quarantined, int Held, long Holds) Tally =>
        (_nodes.Count, _services.Count, _ipEntries.Count, _identities.Count, _exports.Count, Quarantine.Total, Quarantine.Count, Held, Holds);

    /// <summary>The sink was told to forget the cluster.</summary>
    public void Clear()
    {
        _nodes.Clear();
        _services.Clear();
        _ipEntries.Clear();
        _identities.Clear();
        _exports.Clear();
        _synced.Clear();
        _awaitingNode.Clear();
        _reserved.Clear();
        _deletions.Clear();
        _deletionOrder.Clear();
        NodeAddresses.Clear();
        Quarantine.Clear();
    }

    /// <param name="canary">The resource's canary as it stands, at the end of a list; null when the peer has none.</param>
    public void Apply(RemoteResource resource, WatchBatch batch, KeyValue? canary, ImportSession session, RemoteChanges changes)
    {
        _storeId = session.StoreId();
        switch (batch.Kind)
        {
            case WatchBatchKind.ListStart:
                BeginList(resource);
                return;
            case WatchBatchKind.Put:
                if (batch.Expected > 0)
                    Of(resource).Expect((int)Math.Min(batch.Expected, Math.Min(session.Policy.Quotas.Keys, MostExpected)));
                foreach (var item in batch.Events)
                    Put(resource, item, session, changes);
                break;
            case WatchBatchKind.Delete:
                Delete(resource, batch.Events, session, changes);
                break;
            case WatchBatchKind.ListEnd:
                EndList(resource, batch, canary, session, changes);
                _synced.Add(resource);
                changes.Synced.Add(resource);
                break;
        }
        Of(resource).ReadUpTo(_storeId, batch.Revision);
        FollowNodes(session, changes);
    }

    /// <summary>The peer says itself that it has no such thing as exports: there are none of it, and none are waited for.</summary>
    public void HasNoExports(RemoteChanges changes)
    {
        foreach (var name in _exports.Known.Keys.ToList())
            _exports.Refuse(name, changes);
        _exports.Clear();
        _synced.Add(RemoteResource.ServiceExports);
        changes.Synced.Add(RemoteResource.ServiceExports);
    }

    /// <summary>Too old to send anybody there: what is listed next is a first list. Between two connections.</summary>
    public void ForgetServices(RemoteChanges changes)
    {
        foreach (var name in _services.Known.Keys.ToList())
            _services.Refuse(name, changes);
        foreach (var name in _exports.Known.Keys.ToList())
            _exports.Refuse(name, changes);
        _services.Clear();
        _exports.Clear();
        _synced.Remove(RemoteResource.Services);
        _synced.Remove(RemoteResource.ServiceExports);
    }

    private ResourceRecords Of(RemoteResource resource) => _all[(int)resource];

    private void Put(RemoteResource resource, in KeyValue item, ImportSession session, RemoteChanges changes)
    {
        if (TryPut(resource, item, session, changes) is not { } refusal)
        {
            Quarantine.Remove(resource, item.Key);
            if (_awaitingNode.Count > 0)
                _awaitingNode.Remove(item.Key);
            return;
        }
        Quarantine.Add(resource, item.Key, refusal, item.ModRevision);
        if (refusal.AwaitsNode && item.Value.Length <= LargestAwaiting && _awaitingNode.Count < MostAwaiting)
            _awaitingNode[item.Key] = item;
        else
            _awaitingNode.Remove(item.Key);
    }

    // Null when the record was accepted, otherwise why not.
    private Refusal? TryPut(RemoteResource resource, in KeyValue item, ImportSession session, RemoteChanges changes)
    {
        var key = item.Key[session.Layout.Prefix(resource).Length..];
        var value = item.Value.Span;
        var validator = session.Validator;
        string? fault;
        ServiceName name;
        IpPrefix prefix;
        uint identity;
        if (value.Length > session.Policy.Quotas.ValueBytes)
            return new Refusal(RefusalReason.Oversize, $"{value.Length} bytes, allowed are {session.Policy.Quotas.ValueBytes}");
        switch (resource)
        {
            case RemoteResource.Nodes:
                return validator.TryNode(key, value, out var node, out fault)
                    ? Accept(_nodes, key, node, session.Judge.Node(node), 1, item, session, changes)
                    : Spoilt(_nodes, true, key, validator, fault);
            case RemoteResource.Services:
                if (!validator.TryService(key, value, out name, out var service, out fault))
                    return Spoilt(_services, RecordValidator.TryServiceKey(key, out name), name, validator, fault);
                if (service is null)
                {
                    _services.Stand(name);
                    Withdraw(_services, [(name, item.ModRevision)], session, changes);
                    return null;
                }
                changes.ServiceRevisions[name] = item.ModRevision;
                return Accept(_services, name, service, session.Judge.Service(name, service), service.Backends?.Count ?? 0, item, session, changes);
            case RemoteResource.IpEntries:
                return validator.TryIp(key, value, out prefix, out var pair, out fault)
                    ? Accept(_ipEntries, prefix, pair, session.Judge.Ip(prefix, pair), 1, item, session, changes)
                    : Spoilt(_ipEntries, RecordValidator.TryIpKey(key, out prefix), prefix, validator, fault);
            case RemoteResource.Identities:
                return validator.TryIdentity(key, value, out identity, out var labels, out fault)
                    ? Accept(_identities, identity, labels, session.Judge.Identity(labels), 1, item, session, changes)
                    : Spoilt(_identities, RecordValidator.TryIdentityKey(key, out identity), identity, validator, fault);
            case RemoteResource.ServiceExports:
                return validator.TryServiceExport(key, value, out name, out var export, out fault)
                    ? Accept(_exports, name, export, session.Judge.ServiceExport(name), 1, item, session, changes)
                    : Spoilt(_exports, RecordValidator.TryServiceKey(key, out name), name, validator, fault);
            default:
                throw new InvalidOperationException($"no such resource {resource}");
        }
    }

    /// <summary>A record that says nothing any more. In a list its key counts as missing, although the store has it.</summary>
    private Refusal Spoilt<TKey, TRecord>(
        ResourceRecords<TKey, TRecord> records, bool isKey, TKey key, RecordValidator validator, string fault)
        where TKey : notnull
        where TRecord : class
    {
        if (isKey && _listing[(int)records.Resource])
            records.Stand(key);
        return new Refusal(validator.Reason, fault);
    }

    private Refusal? Accept<TKey, TRecord>(ResourceRecords<TKey, TRecord> records, TKey key, TRecord record, Refusal? refusal, int weight,
        in KeyValue item, ImportSession session, RemoteChanges changes)
        where TKey : notnull
        where TRecord : class
    {
        var bytes = item.Key.Length + item.Value.Length;
        refusal ??= OverQuota(records.Known.Contains(key), bytes - records.Known.BytesOf(key), session.Policy.Quotas);
        if (refusal is not null)
        {
            // The policy has been narrowed since the record was accepted: that is our own will, and nothing to be confirmed.
            if (_listing[(int)records.Resource])
                records.Refuse(key, changes);
            return refusal;
        }
        ulong? listedIn = _listing[(int)records.Resource] ? _storeId : null;
        records.Put(key, record, item, bytes, weight, listedIn, session.Policy.Breaker, changes);
        if (key is IpPrefix prefix && record is IpIdentityPair { ID: > NumericIdentity.Unknown and < NumericIdentity.FirstAllocatable })
            _reserved.Add(prefix);
        return null;
    }

    private Refusal? OverQuota(bool known, long more, ImportQuotas quotas)
    {
        var (keys, bytes) = (0L, more);
        foreach (var records in _all)
            (keys, bytes) = (keys + records.Count, bytes + records.Bytes);
        if (!known && keys >= quotas.Keys)
            return new Refusal(RefusalReason.Quota, $"the peer already has {keys} records here, its quota is {quotas.Keys}");
        return more > 0 && bytes > quotas.Bytes
            ? new Refusal(RefusalReason.Quota, $"the peer's records would take {bytes} bytes, its quota is {quotas.Bytes}")
            : null;
    }

    private void Delete(RemoteResource resource, IReadOnlyList<KeyValue> items, ImportSession session, RemoteChanges changes)
    {
        var prefix = session.Layout.Prefix(resource).Length;
        foreach (var item in items)
        {
            Quarantine.Remove(resource, item.Key);
            if (_awaitingNode.Count > 0)
                _awaitingNode.Remove(item.Key);
        }
        switch (resource)
        {
            case RemoteResource.Nodes:
                Withdraw(_nodes, [.. items.Select(item => (item.Key[prefix..], item.ModRevision))], session, changes);
                break;
            case RemoteResource.Services:
                Withdraw(_services, Parsed<ServiceName>(RecordValidator.TryServiceKey), session, changes);
                break;
            case RemoteResource.IpEntries:
                Withdraw(_ipEntries, Parsed<IpPrefix>(RecordValidator.TryIpKey), session, changes);
                break;
            case RemoteResource.Identities:
                Withdraw(_identities, Parsed<uint>(RecordValidator.TryIdentityKey), session, changes);
                break;
            case RemoteResource.ServiceExports:
                Withdraw(_exports, Parsed<ServiceName>(RecordValidator.TryServiceKey), session, changes);
                break;
        }

        List<(TKey, long)> Parsed<TKey>(TryParse<TKey> parse)
        {
            var parsed = new List<(TKey, long)>(items.Count);
            foreach (var item in items)
            {
                if (parse(item.Key[prefix..], out var key))
                    parsed.Add((key, item.ModRevision));
            }
            return parsed;
        }
    }

    private delegate bool TryParse<TKey>(string text, out TKey key);

    private void FollowNodes(ImportSession session, RemoteChanges changes)
    {
        if (!ReferenceEquals(changes, _followed))
            (_followed, _nodesFollowed) = (changes, 0);
        // What goes to the sink, not what was heard: a node whose deletion is held is still one.
        var changed = false;
        for (; _nodesFollowed < changes.Nodes.Count; _nodesFollowed++)
            changed |= NodeAddresses.Set(changes.Nodes[_nodesFollowed].Key, changes.Nodes[_nodesFollowed].Value);
        if (!changed)
            return;
        foreach (var item in _awaitingNode.Values.ToList())
            Put(RemoteResource.IpEntries, item, session, changes);
        if (!session.Policy.FromFile)
            return;
        foreach (var prefix in _reserved.Where(prefix => !prefix.IsHost || !NodeAddresses.Contains(prefix.Address)).ToList())
        {
            _reserved.Remove(prefix);
            if (!_ipEntries.Known.Contains(prefix))
                continue;
            Quarantine.Add(RemoteResource.IpEntries, session.Layout.Prefix(RemoteResource.IpEntries) + Keys.IpSuffix(prefix),
                new Refusal(RefusalReason.ReservedIdentity, $"reserved identity on {prefix}, which is an address of its nodes no more"), 0);
            _ipEntries.Refuse(prefix, changes);
        }
    }
}
