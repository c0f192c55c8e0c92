using System.Collections.Immutable;
using Mesh.ClusterMesh.Door;
using Mesh.ClusterMesh.Imports;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.Relay;

/// <summary>
/// One peer's part of the cache: turns what its source shows into changes under its own prefixes, within its quotas, and commits
/// them. Values are copied as they are. It outlives connections: a new list is compared with what earlier ones left.
/// <para>A commit has changes of one resource, and no more deletions than a producer can put into one transaction: an agent takes
/// anything else for a store that lost its data, and holds it.</para>
/// </summary>
internal sealed class PeerCache(string cluster, MirrorView mirror)
{
    /// <summary>Changes of one commit: how long another peer's commit may have to wait.</summary>
    private const int CommitMax = 1024;
    private const int DeletionsMax = 100;

    private readonly List<MirrorChange> _pending = [];
    private readonly Dictionary<RelayedResource, MirrorListing> _listings = [];

    /// <summary>The store of the last complete list, and the revision up to which it was read.</summary>
    private readonly Dictionary<RelayedResource, (ulong StoreId, long Revision)> _read = [];
    private volatile ImmutableHashSet<RelayedResource> _synced = [];
    private ImportQuotas _quotas = new();
    private RelayedResource _pendingOf;
    private int _pendingDeletions;
    private bool _measured;
    private long _keys;
    private long _bytes;
    private long _pendingKeys;
    private long _pendingBytes;
    private long _ownKeys;
    private long _ownBytes;
    private bool _full;
    private bool _renews;

    /// <summary>Revision of the source's heartbeat when it was seen last.</summary>
    public long HeartbeatRevision { get; set; }

    /// <summary>Resources of which the source lacks more than may go at once.</summary>
    public Dictionary<RelayedResource, MissingKeys> Missing { get; } = [];

    /// <summary>From any thread.</summary>
    public bool IsMissingAny => Missing.Count > 0;

    public long Refused { get; private set; }

    public string? LastRefusal { get; private set; }

    public long Bytes => Volatile.Read(ref _bytes);

    /// <summary>From any thread.</summary>
    public IReadOnlySet<RelayedResource> Synced => _synced;

    /// <summary>Keys of each resource. From any thread.</summary>
    public IReadOnlyDictionary<RelayedResource, int> Counts => RelayKeys.All.ToDictionary(resource => resource, Count);

    /// <summary>Something was refused for lack of room and there is room again: the source must be listed anew.</summary>
    public bool WantsRelist => _full && _keys < _quotas.Keys * 0.9 && _bytes < _quotas.Bytes * 0.9;

    public int Count(RelayedResource resource) => mirror.Count(RelayKeys.CachePrefix(cluster, resource));

    /// <summary>A new connection begins: unfinished lists mean nothing any more.</summary>
    public void Begin(ImportQuotas quotas)
    {
        _quotas = quotas;
        _full = false;
        _listings.Clear();
        Drop();
        if (_measured)
            return;
        foreach (var resource in RelayKeys.All)
        {
            _keys += Count(resource);
            _bytes += mirror.BytesBelow(RelayKeys.CachePrefix(cluster, resource));
        }
        _measured = true;
    }

    /// <summary>The peer was removed; its keys are gone.</summary>
    public void Forget()
    {
        _synced = [];
        _read.Clear();
        Missing.Clear();
        (_keys, _bytes, _full) = (0, 0, false);
    }

    /// <summary>Its keys of the resource were taken away, not by its source: the next list is a first one. Between two connections.</summary>
    public void Forget(RelayedResource resource)
    {
        _synced = _synced.Remove(resource);
        _read.Remove(resource);
        Missing.Remove(resource);
        (_keys, _bytes, _measured) = (0, 0, false);
    }

    /// <summary>Publishes the cluster-config. Another one makes the canaries be written again, which tells readers to look at it.</summary>
    public void SetConfig(string key, ReadOnlyMemory<byte> value)
    {
        var before = mirror.Get(key);
        _renews = before is not null && !before.Value.Span.SequenceEqual(value.Span);
        SetOwn(key, value);
    }

    /// <summary>Writes the cluster-config or a canary: ours, and not counted.</summary>
    private void SetOwn(string key, ReadOnlyMemory<byte> value)
    {
        var before = mirror.Get(key);
        _ownKeys += before is null ? 1 : 0;
        _ownBytes += value.Length - (before?.Length ?? -key.Length);
        _pending.Add(new MirrorChange(key, value));
    }

    public async ValueTask BeginListAsync(RelayedResource resource, CancellationToken cancellation)
    {
        await CommitAsync(cancellation);
        _listings[resource] = mirror.BeginListing(RelayKeys.CachePrefix(cluster, resource));
    }

    public async ValueTask PutAsync(RelayedResource resource, string suffix, KeyValue item, CancellationToken cancellation)
    {
        var key = RelayKeys.CachePrefix(cluster, resource) + suffix;
        // Seen also when it is refused: too large is no deletion.
        if (_listings.TryGetValue(resource, out var listing))
            listing.See(key);
        Found(resource, suffix);
        if (resource != _pendingOf)
            await CommitAsync(cancellation);
        if (!Admits(key, suffix, item.Value))
            return;
        _pendingOf = resource;
        _pending.Add(new MirrorChange(key, item.Value));
        if (_pending.Count >= CommitMax)
            await CommitAsync(cancellation);
    }

    public async ValueTask DeleteAsync(RelayedResource resource, string suffix, CancellationToken cancellation)
    {
        if (resource != _pendingOf)
            await CommitAsync(cancellation);
        _pendingOf = resource;
        _pending.Add(new MirrorChange(RelayKeys.CachePrefix(cluster, resource) + suffix, null));
        if (++_pendingDeletions >= DeletionsMax || _pending.Count >= CommitMax)
            await CommitAsync(cancellation);
    }

    /// <summary>Withholds the deletion of keys until they are back, or until a later list confirms it.</summary>
    /// <returns>Whether nothing of the resource was withheld before.</returns>
    public bool Miss(RelayedResource resource, IEnumerable<string> suffixes, DateTimeOffset now)
    {
        var first = !Missing.TryGetValue(resource, out var missing);
        if (first)
            Missing[resource] = missing = new MissingKeys(now, HeartbeatRevision);
        missing!.Keys.UnionWith(suffixes);
        return first;
    }

    private void Found(RelayedResource resource, string suffix)
    {
        if (Missing.TryGetValue(resource, out var missing) && missing.Keys.Remove(suffix) && missing.Keys.Count == 0)
            Missing.Remove(resource);
    }

    /// <summary>Ends of the keys that the list under way has not shown.</summary>
    public IEnumerable<string> UnseenSuffixes(RelayedResource resource)
    {
        var prefix = RelayKeys.CachePrefix(cluster, resource).Length;
        return _listings.TryGetValue(resource, out var listing) ? listing.Unseen().Select(key => key[prefix..]) : [];
    }

    /// <summary>What the list under way has not shown, of how many.</summary>
    public (int Unseen, int Count) Unseen(RelayedResource resource) =>
        _listings.TryGetValue(resource, out var listing) ? (listing.Count - listing.Seen, listing.Count) : (0, 0);

    /// <summary>The list is confirmed complete: what it did not show is gone, and the canary says so to our readers.</summary>
    /// <param name="withhold">What it did not show stays all the same.</param>
    public async ValueTask EndListAsync(
        RelayedResource resource, ReadOnlyMemory<byte> canary, bool withhold, CancellationToken cancellation)
    {
        if (_listings.Remove(resource, out var listing) && !withhold)
        {
            var prefix = RelayKeys.CachePrefix(cluster, resource);
            foreach (var key in listing.Unseen())
                await DeleteAsync(resource, key[prefix.Length..], cancellation);
        }
        await CommitAsync(cancellation);
        var name = RelayKeys.Canary(cluster, cached: true, resource);
        if (mirror.Get(name) is null || _renews)
            SetOwn(name, canary);
        _synced = _synced.Add(resource);
    }

    /// <summary>Whether a list comes from another history than what was listed before, on this connection or an earlier one: the store is
    /// another, went back, or is known to its watch to hold other data. Remembers it for the next.</summary>
    /// <param name="storeId">The store's own cluster ID; 0 where there is none.</param>
    public bool IsOtherHistory(RelayedResource resource, ulong storeId, in WatchBatch end)
    {
        var other = end.OtherHistory
            || (_read.TryGetValue(resource, out var before) && (before.StoreId != storeId || end.Revision < before.Revision));
        _read[resource] = (storeId, end.Revision);
        return other;
    }

    /// <summary>Whether that is the store that was listed last.</summary>
    public bool IsOf(RelayedResource resource, ulong storeId) => _read.TryGetValue(resource, out var read) && read.StoreId == storeId;

    /// <summary>An event of the history that was listed.</summary>
    public void ReadUpTo(RelayedResource resource, long revision)
    {
        if (_read.TryGetValue(resource, out var read) && revision > read.Revision)
            _read[resource] = read with { Revision = revision };
    }

    /// <summary>Whether a list of the resource is under way.</summary>
    public bool IsListing(RelayedResource resource) => _listings.ContainsKey(resource);

    public async ValueTask CommitAsync(CancellationToken cancellation)
    {
        if (_pending.Count == 0)
            return;
        var commit = await mirror.CommitAsync(_pending, cancellation);
        _keys += commit.Keys - _ownKeys;
        _bytes += commit.Bytes - _ownBytes;
        Drop();
    }

    private void Drop()
    {
        _pending.Clear();
        (_pendingKeys, _pendingBytes, _ownKeys, _ownBytes, _pendingDeletions) = (0, 0, 0, 0, 0);
    }

    private bool Admits(string key, string suffix, ReadOnlyMemory<byte> value)
    {
        if (suffix.Length == 0)
            return Refuse($"{key}: no name after the prefix");
        if (value.Length > _quotas.ValueBytes)
            return Refuse($"{key}: {value.Length} bytes; allowed are {_quotas.ValueBytes} per value");
        var before = mirror.Get(key);
        var (keys, bytes) = before is { } old ? (0, value.Length - old.Length) : (1, key.Length + value.Length);
        if (_keys + _pendingKeys + keys > _quotas.Keys)
            return Full($"{key}: {cluster} has {_keys + _pendingKeys} keys here; allowed are {_quotas.Keys}");
        if (bytes > 0 && _bytes + _pendingBytes + bytes > _quotas.Bytes)
            return Full($"{key}: {cluster} has {_bytes + _pendingBytes} bytes here; allowed are {_quotas.Bytes}");
        _pendingKeys += keys;
        _pendingBytes += Math.Max(0, bytes);
        return true;
    }

    private bool Full(string reason)
    {
        _full = true;
        return Refuse(reason);
    }

    private bool Refuse(string reason)
    {
        Refused++;
        LastRefusal = reason;
        return false;
    }
}

/// <summary>Keys of one resource that the cache has and the source has not, and whose deletion is not believed.</summary>
/// <param name="heartbeat">Revision of the source's heartbeat then.</param>
internal sealed class MissingKeys(DateTimeOffset since, long heartbeat)
{
    public DateTimeOffset Since { get; } = since;

    public long Heartbeat { get; } = heartbeat;

    /// <summary>Ends of the keys. One that comes back leaves; with the last one nothing is doubted any more.</summary>
    public HashSet<string> Keys { get; } = new(StringComparer.Ordinal);
}
