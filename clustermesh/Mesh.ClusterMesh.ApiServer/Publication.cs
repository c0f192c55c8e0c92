using Mesh.ClusterMesh.ApiServer.Converters;
using Mesh.ClusterMesh.Remote;
using Mesh.Kubernetes.Objects;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>
/// The keys of one resource that ought to be in etcd, and who wants each of them. Two objects may want one key: a pod's address is
/// given to the next pod before the first one's CiliumEndpoint is gone. The later wins, and when it goes the other's value returns;
/// so the end of the old pod never takes the new pod's address away.
/// </summary>
internal sealed class Publication(RemoteResource resource)
{
    private readonly Dictionary<ObjectKey, IReadOnlyList<EtcdRecord>> _byOwner = [];
    private readonly Dictionary<string, (ObjectKey Owner, byte[] Value)> _holders = new(StringComparer.Ordinal);

    /// <summary>For keys that several objects want: those waiting behind the holder, the latest last.</summary>
    private readonly Dictionary<string, List<ObjectKey>> _waiting = new(StringComparer.Ordinal);

    private Dictionary<string, byte[]?> _changes = new(StringComparer.Ordinal);

    public RemoteResource Resource { get; } = resource;

    /// <summary>Keys that ought to be there.</summary>
    public int Count => _holders.Count;

    /// <summary>All of them with their values, for whoever begins to write now.</summary>
    public IEnumerable<KeyValuePair<string, byte[]?>> Wanted =>
        _holders.Select(pair => KeyValuePair.Create<string, byte[]?>(pair.Key, pair.Value.Value));

    /// <summary>Says all that one object wants published, in place of what it wanted before.</summary>
    public void Set(ObjectKey owner, IReadOnlyList<EtcdRecord> records)
    {
        var before = _byOwner.GetValueOrDefault(owner) ?? [];
        if (records.Count == 0)
            _byOwner.Remove(owner);
        else
            _byOwner[owner] = records;
        foreach (var record in before)
        {
            if (!records.Any(wanted => wanted.Key == record.Key))
                Release(owner, record.Key);
        }
        foreach (var record in records)
            Claim(owner, record);
    }

    /// <summary>Keys changed since the last call; null is a deletion.</summary>
    public IReadOnlyDictionary<string, byte[]?> TakeChanges()
    {
        var taken = _changes;
        _changes = new Dictionary<string, byte[]?>(StringComparer.Ordinal);
        return taken;
    }

    private void Claim(ObjectKey owner, EtcdRecord record)
    {
        var held = _holders.TryGetValue(record.Key, out var holder);
        if (held && holder.Owner != owner)
        {
            if (_waiting.TryGetValue(record.Key, out var waiting) && waiting.Contains(owner))
            {
                // It already wants the key and another has it by right: its new value shows when its turn comes.
                return;
            }
            if (waiting is null)
                _waiting[record.Key] = waiting = [];
            waiting.Add(holder.Owner);
        }
        _holders[record.Key] = (owner, record.Value);
        if (!held || !holder.Value.AsSpan().SequenceEqual(record.Value))
            _changes[record.Key] = record.Value;
    }

    private void Release(ObjectKey owner, string key)
    {
        if (_waiting.TryGetValue(key, out var waiting) && waiting.Remove(owner))
        {
            if (waiting.Count == 0)
                _waiting.Remove(key);
            return;
        }
        if (waiting is null)
        {
            _holders.Remove(key);
            _changes[key] = null;
            return;
        }
        var heir = waiting[^1];
        waiting.RemoveAt(waiting.Count - 1);
        if (waiting.Count == 0)
            _waiting.Remove(key);
        var value = _byOwner[heir].First(record => record.Key == key).Value;
        _holders[key] = (heir, value);
        _changes[key] = value;
    }
}
