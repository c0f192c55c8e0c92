using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json.Nodes;
using System.Threading.Channels;

namespace Mesh.KubeApi.Store;

/// <summary>One change: before null = created, after null = removed. The revision is that of the change, also for a removal.</summary>
internal sealed record Change(long Revision, ResourceType Type, StoredObject? Before, StoredObject? After)
{
    /// <summary>The object as it was last, with the revision of its removal.</summary>
    public StoredObject? Removed { get; init; }
}

/// <summary>
/// All objects of the cluster under one revision that every change moves on by one, as etcd does for a kube-apiserver. Tables are
/// immutable, so a list of any length is a snapshot for nothing; a bounded history serves watches that begin in the past.
/// </summary>
internal sealed class ObjectStore(int historyMax, int backlogMax)
{
    private const int SnapshotsMax = 256;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, ImmutableSortedDictionary<string, StoredObject>> _tables = [];
    private readonly Dictionary<string, List<Watcher>> _watchers = [];
    private readonly LinkedList<(string Key, long Revision, ImmutableSortedDictionary<string, StoredObject> Table)> _snapshots = new();
    private readonly List<Change> _history = [];
    private int _historyStart;
    private long _revision = 1;
    private long _compacted;

    /// <summary>Called with every change, in order, before anybody else sees it; must be quick.</summary>
    public Action<Change>? Committed { get; set; }

    public long Revision
    {
        get
        {
            lock (_lock)
                return _revision;
        }
    }

    public static ImmutableSortedDictionary<string, StoredObject> Empty { get; } =
        ImmutableSortedDictionary.Create<string, StoredObject>(StringComparer.Ordinal);

    public (long Revision, ImmutableSortedDictionary<string, StoredObject> Table) Snapshot(ResourceType type)
    {
        lock (_lock)
            return (_revision, _tables.GetValueOrDefault(type.Key, Empty));
    }

    public StoredObject? Get(ResourceType type, string @namespace, string name)
    {
        lock (_lock)
            return _tables.GetValueOrDefault(type.Key, Empty).GetValueOrDefault(StoredObject.KeyOf(@namespace, name));
    }

    /// <summary>
    /// Replaces <paramref name="before"/> (null = must not be there) by <paramref name="after"/> (null = remove). False when somebody
    /// else was first. The node given becomes the store's; its resourceVersion is set here.
    /// </summary>
    public bool TryCommit(ResourceType type, string @namespace, string name, StoredObject? before, JsonObject? after, out StoredObject? stored)
    {
        var key = StoredObject.KeyOf(@namespace, name);
        lock (_lock)
        {
            stored = null;
            var table = _tables.GetValueOrDefault(type.Key, Empty);
            if (table.GetValueOrDefault(key) != before)
                return false;
            var revision = ++_revision;
            StoredObject? removed = null;
            if (after is null)
            {
                _tables[type.Key] = table.Remove(key);
                var last = (JsonObject)before!.Node.DeepClone();
                last["metadata"]!["resourceVersion"] = revision.ToString(CultureInfo.InvariantCulture);
                removed = stored = new StoredObject(type, last, revision);
            }
            else
            {
                after["metadata"]!["resourceVersion"] = revision.ToString(CultureInfo.InvariantCulture);
                stored = new StoredObject(type, after, revision);
                _tables[type.Key] = table.SetItem(key, stored);
            }
            Tell(new Change(revision, type, before, after is null ? null : stored) { Removed = removed });
            return true;
        }
    }

    private void Tell(Change change)
    {
        Committed?.Invoke(change);
        _history.Add(change);
        if (_history.Count - _historyStart > historyMax)
        {
            _compacted = _history[_historyStart].Revision;
            _history[_historyStart++] = null!;
            if (_historyStart > historyMax)
            {
                _history.RemoveRange(0, _historyStart);
                _historyStart = 0;
            }
        }
        if (_watchers.TryGetValue(change.Type.Key, out var watchers))
            foreach (var watcher in watchers)
                watcher.Offer(change);
        foreach (var watcher in _watchers.GetValueOrDefault("*", []))
            watcher.Offer(change);
    }

    /// <summary>
    /// Follows a resource from after the revision given; null = first everything there is now. Throws Expired (410) when that part of the history is gone.
    /// </summary>
    public Watcher Watch(ResourceType type, long? after)
    {
        lock (_lock)
        {
            if (after > _revision)
                throw new KubeApiException(504, "Timeout", string.Create(CultureInfo.InvariantCulture,
                    $"Too large resource version: {after}, current: {_revision}"),
                    new()
                    {
                        ["causes"] = new JsonArray(
                        new JsonObject { ["reason"] = "ResourceVersionTooLarge", ["message"] = "Too large resource version" })
                    });
            if (after < _compacted)
                throw KubeApiException.Expired(string.Create(CultureInfo.InvariantCulture, $"too old resource version: {after} ({_compacted})"));
            var watcher = new Watcher(this, type.Key, _revision, backlogMax);
            if (after is { } from)
            {
                var low = _historyStart;
                var high = _history.Count;
                while (low < high)
                {
                    var middle = (low + high) / 2;
                    if (_history[middle].Revision <= from)
                        low = middle + 1;
                    else
                        high = middle;
                }
                for (; low < _history.Count; low++)
                    if (_history[low].Type.Key == type.Key)
                        watcher.Offer(_history[low]);
            }
            else
            {
                foreach (var stored in _tables.GetValueOrDefault(type.Key, Empty).Values)
                    watcher.Offer(new Change(stored.Revision, type, null, stored));
            }
            Register(type.Key, watcher);
            return watcher;
        }
    }

    private void Register(string key, Watcher watcher)
    {
        if (!_watchers.TryGetValue(key, out var watchers))
            _watchers[key] = watchers = [];
        watchers.Add(watcher);
    }

    /// <summary>Follows all resources from now on; such a reader is ours and never cut off.</summary>
    public Watcher WatchAll()
    {
        lock (_lock)
        {
            var watcher = new Watcher(this, "*", _revision, int.MaxValue);
            Register("*", watcher);
            return watcher;
        }
    }

    /// <summary>Keeps a list's snapshot for its later pages.</summary>
    public void Keep(ResourceType type, long revision, ImmutableSortedDictionary<string, StoredObject> table)
    {
        lock (_lock)
        {
            if (_snapshots.Any(one => one.Key == type.Key && one.Revision == revision))
                return;
            _snapshots.AddLast((type.Key, revision, table));
            if (_snapshots.Count > SnapshotsMax)
                _snapshots.RemoveFirst();
        }
    }

    /// <summary>The snapshot that an earlier page was cut from; Expired (410) when it is gone.</summary>
    public ImmutableSortedDictionary<string, StoredObject> Kept(ResourceType type, long revision)
    {
        lock (_lock)
        {
            foreach (var (key, kept, table) in _snapshots)
                if (key == type.Key && kept == revision)
                    return table;
        }
        throw KubeApiException.Expired("The provided continue parameter is too old to display a consistent list result. "
            + "You must start a new list without the continue parameter to retrieve the full list.");
    }

    /// <summary>Forgets all history and snapshots: watches from before now and later pages of lists are answered 410.</summary>
    public long Compact()
    {
        lock (_lock)
        {
            // A revision of its own, so that whoever stands at the last change is too old as well.
            _compacted = ++_revision;
            _history.Clear();
            _historyStart = 0;
            _snapshots.Clear();
            return _compacted;
        }
    }

    /// <summary>Ends the watches of a resource (null = all) as a dying connection does.</summary>
    public void CutWatches(ResourceType? type, Exception? why = null)
    {
        lock (_lock)
            foreach (var watcher in _watchers.Where(pair => type is null ? pair.Key != "*" : pair.Key == type.Key).SelectMany(pair => pair.Value).ToList())
                watcher.Cut(why);
    }

    /// <summary>Removes a resource with all its objects, when its CRD goes.</summary>
    public void Drop(ResourceType type)
    {
        lock (_lock)
            foreach (var stored in _tables.GetValueOrDefault(type.Key, Empty).Values)
                TryCommit(type, stored.Namespace, stored.Name, stored, null, out _);
    }

    public int WatchCount(ResourceType? type)
    {
        lock (_lock)
            return _watchers.Where(pair => pair.Key != "*" && (type is null || pair.Key == type.Key)).Sum(pair => pair.Value.Count);
    }

    /// <summary>One reader of changes (the general kind of channel: that for a single reader cannot count).
    /// It is cut off when more wait than the store allows.</summary>
    internal sealed class Watcher(ObjectStore store, string key, long revision, int backlogMax) : IDisposable
    {
        private readonly Channel<Change> _changes = Channel.CreateUnbounded<Change>();

        /// <summary>Revision at which it began.</summary>
        public long Start { get; } = revision;

        public ChannelReader<Change> Changes => _changes.Reader;

        /// <summary>
        /// A revision that says all: every change up to it has been read. Null while changes wait.
        /// </summary>
        public long? Settled()
        {
            lock (store._lock)
                return _changes.Reader.Count == 0 ? store._revision : null;
        }

        internal void Offer(Change change)
        {
            if (_changes.Reader.Count >= backlogMax)
                _changes.Writer.TryComplete();
            else
                _changes.Writer.TryWrite(change);
        }

        internal void Cut(Exception? why) => _changes.Writer.TryComplete(why);

        public void Dispose()
        {
            lock (store._lock)
                if (store._watchers.TryGetValue(key, out var watchers))
                    watchers.Remove(this);
            _changes.Writer.TryComplete();
        }
    }
}
