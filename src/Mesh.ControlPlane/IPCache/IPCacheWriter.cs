using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.ControlPlane.IPCache;

/// <summary>Who says so. One source speaks of a prefix once: saying it again replaces what it said.</summary>
/// <param name="Name">Object or node; "" for a remote cluster's address record, of which there is one per cluster and prefix.</param>
public readonly record struct IPCacheOrigin(IPCacheSource Source, string Cluster, string Name);

/// <param name="Entry">Null takes back what the origin had said.</param>
public readonly record struct IPCacheChange(IpPrefix Prefix, IPCacheOrigin Origin, IPCacheEntry? Entry);

/// <summary>
/// Decides which of several sources is believed about a prefix: the highest <see cref="IPCacheSource"/>, among equals the last
/// writer. The others are kept, so that a deletion by one brings back what another still says: a pod's address given to the next
/// pod survives the late deletion of the first.
/// A mesh has hundreds of thousands of prefixes and hardly any dispute, so the row in the table is itself the record of the one
/// who is believed, and only the others take memory here.
/// </summary>
public sealed class IPCacheWriter
{
    private readonly Lock _lock = new();
    private readonly Table<IpPrefix, IPCacheEntry> _table;

    /// <summary>Name of the believed origin, where it has one.</summary>
    private readonly Dictionary<IpPrefix, string> _names = [];

    /// <summary>Those not believed at present, oldest first.</summary>
    private readonly Dictionary<IpPrefix, List<Said>> _shadowed = [];

    public IPCacheWriter(Table<IpPrefix, IPCacheEntry> table) => _table = table;

    /// <summary>Prefixes that more than one source speaks of.</summary>
    public int Disputed
    {
        get
        {
            lock (_lock)
                return _shadowed.Count;
        }
    }

    /// <summary>Applies the changes in order, as one transaction.</summary>
    public void Write(IEnumerable<IPCacheChange> changes)
    {
        lock (_lock)
            _table.Write(transaction =>
            {
                foreach (var change in changes)
                    if (change.Entry is { } entry)
                        Say(transaction, change.Origin, entry);
                    else
                        TakeBack(transaction, change.Prefix, change.Origin);
            });
    }

    /// <summary>Takes back everything that the chosen origins have said: walks the whole table.</summary>
    public void Forget(Func<IPCacheSource, IPCacheEntry, bool> chosen)
    {
        lock (_lock)
            _table.Write(transaction =>
            {
                foreach (var (prefix, said) in _shadowed.ToList())
                {
                    said.RemoveAll(one => chosen(one.Origin.Source, one.Entry));
                    if (said.Count == 0)
                        _shadowed.Remove(prefix);
                }
                foreach (var (prefix, entry) in transaction.RowsBefore())
                    if (chosen(entry.Source, entry))
                        Succeed(transaction, prefix);
            });
    }

    private void Say(Table<IpPrefix, IPCacheEntry>.WriteTransaction transaction, IPCacheOrigin origin, IPCacheEntry entry)
    {
        var prefix = entry.Prefix;
        if (transaction.TryGet(prefix, out var believed))
        {
            var former = OriginOf(believed);
            if (former != origin)
            {
                if (SaidBefore(prefix, origin, entry))
                    return;
                if (entry.Source < believed.Source)
                {
                    Shadow(prefix, new Said(origin, entry));
                    return;
                }
                // What an earlier run left only stood in for whoever speaks now.
                if (former.Source != IPCacheSource.Restored)
                    Shadow(prefix, new Said(former, believed));
            }
        }
        Believe(transaction, origin, entry);
    }

    private void TakeBack(Table<IpPrefix, IPCacheEntry>.WriteTransaction transaction, IpPrefix prefix, IPCacheOrigin origin)
    {
        if (transaction.TryGet(prefix, out var believed) && OriginOf(believed) == origin)
            Succeed(transaction, prefix);
        else
            Unshadow(prefix, origin);
    }

    /// <summary>Puts the best of the others in the place of the one believed so far, or nobody.</summary>
    private void Succeed(Table<IpPrefix, IPCacheEntry>.WriteTransaction transaction, IpPrefix prefix)
    {
        _names.Remove(prefix);
        if (!_shadowed.TryGetValue(prefix, out var others))
        {
            transaction.Delete(prefix);
            return;
        }
        var best = others[0];
        foreach (var other in others)
            if (other.Origin.Source >= best.Origin.Source)
                best = other;
        Unshadow(prefix, best.Origin);
        Believe(transaction, best.Origin, best.Entry);
    }

    private void Believe(Table<IpPrefix, IPCacheEntry>.WriteTransaction transaction, IPCacheOrigin origin, IPCacheEntry entry)
    {
        if (origin.Name.Length > 0)
            _names[entry.Prefix] = origin.Name;
        else
            _names.Remove(entry.Prefix);
        transaction.Upsert(entry.Prefix, entry);
    }

    private IPCacheOrigin OriginOf(IPCacheEntry believed) =>
        new(believed.Source, believed.Cluster, _names.GetValueOrDefault(believed.Prefix, ""));

    /// <summary>True when the origin, not believed at present, says only what it said before; otherwise its old word is dropped.</summary>
    private bool SaidBefore(IpPrefix prefix, IPCacheOrigin origin, IPCacheEntry entry)
    {
        if (!_shadowed.TryGetValue(prefix, out var others))
            return false;
        var index = others.FindIndex(other => other.Origin == origin);
        if (index < 0)
            return false;
        if (others[index].Entry == entry)
            return true;
        Unshadow(prefix, origin);
        return false;
    }

    private void Shadow(IpPrefix prefix, Said said)
    {
        if (!_shadowed.TryGetValue(prefix, out var others))
            _shadowed[prefix] = others = [];
        others.Add(said);
    }

    private void Unshadow(IpPrefix prefix, IPCacheOrigin origin)
    {
        if (_shadowed.TryGetValue(prefix, out var others) && others.RemoveAll(other => other.Origin == origin) > 0 && others.Count == 0)
            _shadowed.Remove(prefix);
    }

    private readonly record struct Said(IPCacheOrigin Origin, IPCacheEntry Entry);
}
