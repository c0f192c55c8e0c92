namespace Mesh.ClusterMesh.Remote;

/// <summary>Which records of one resource the sink holds, each marked with the number of the list or watch that last showed it, its
/// size, hash and revision, and the lease it lives on. 56 bytes per ip entry, and no text.</summary>
internal sealed class KnownKeys<TKey>
    where TKey : notnull
{
    private readonly Dictionary<TKey, Mark> _marks = [];

    // Leases have small numbers of their own; 0 is for keys without one, and for those of the many leases of a strange producer.
    private readonly Dictionary<long, ushort> _leases = [];
    private readonly List<int> _leaseCounts = [0];
    private readonly Stack<ushort> _freeLeases = [];
    private ushort _list;

    private readonly record struct Mark(ushort List, ushort Lease, int Bytes, long Revision, int Hash);

    public int Count => _marks.Count;

    public IEnumerable<TKey> Keys => _marks.Keys;

    /// <summary>Of keys and values.</summary>
    public long Bytes { get; private set; }

    public void BeginList() => _list++;

    /// <summary>Makes room at once: a table that grows leaves as much behind as it has.</summary>
    public void Expect(int count) => _marks.EnsureCapacity(count);

    public bool Contains(TKey key) => _marks.ContainsKey(key);

    /// <summary>Bytes the record took so far; 0 when it is not known.</summary>
    public int BytesOf(TKey key) => _marks.TryGetValue(key, out var mark) ? mark.Bytes : 0;

    /// <summary>Revision of the value in force; 0 when it is not known.</summary>
    public long RevisionOf(TKey key) => _marks.TryGetValue(key, out var mark) ? mark.Revision : 0;

    /// <summary>The value in force is this one, as far as size and hash tell.</summary>
    public bool IsInForce(TKey key, int bytes, int hash) => _marks.TryGetValue(key, out var mark) && mark.Bytes == bytes && mark.Hash == hash;

    public void Add(TKey key, long lease, int bytes, long revision, int hash)
    {
        Remove(key);
        _marks[key] = new Mark(_list, Enter(lease), bytes, revision, hash);
        Bytes += bytes;
    }

    /// <summary>The present list shows it, though its value may not be the one in force.</summary>
    public void Seen(TKey key)
    {
        if (_marks.TryGetValue(key, out var mark))
            _marks[key] = mark with { List = _list };
    }

    /// <summary>False when it was not known: the sink need not hear of its deletion.</summary>
    public bool Remove(TKey key)
    {
        if (!_marks.Remove(key, out var mark))
            return false;
        Bytes -= mark.Bytes;
        if (mark.Lease != 0)
            _leaseCounts[mark.Lease]--;
        return true;
    }

    /// <summary>A number for the key's lease within this resource; 0 for none.</summary>
    public int LeaseOf(TKey key) => _marks.TryGetValue(key, out var mark) ? mark.Lease : 0;

    public int CountOfLease(int lease) => _leaseCounts[lease];

    /// <summary>Keys that live on the lease with this ID of the store.</summary>
    public int CountOfLeaseId(long id) => _leases.TryGetValue(id, out var lease) ? _leaseCounts[lease] : 0;

    public long LeaseId(int lease) => _leases.FirstOrDefault(pair => pair.Value == lease).Key;

    /// <summary>Known, and not shown since <see cref="BeginList"/>.</summary>
    public List<TKey> Unlisted()
    {
        var unlisted = new List<TKey>();
        foreach (var (key, mark) in _marks)
        {
            if (mark.List != _list)
                unlisted.Add(key);
        }
        return unlisted;
    }

    public void Clear()
    {
        _marks.Clear();
        _leases.Clear();
        _leaseCounts.RemoveRange(1, _leaseCounts.Count - 1);
        _freeLeases.Clear();
        Bytes = 0;
    }

    private ushort Enter(long lease)
    {
        if (lease == 0)
            return 0;
        if (!_leases.TryGetValue(lease, out var number))
        {
            if (_freeLeases.Count == 0 && _leaseCounts.Count > ushort.MaxValue)
                FreeLeases();
            if (_freeLeases.TryPop(out number))
                _leaseCounts[number] = 0;
            else if (_leaseCounts.Count <= ushort.MaxValue)
            {
                number = (ushort)_leaseCounts.Count;
                _leaseCounts.Add(0);
            }
            else
                return 0;
            _leases[lease] = number;
        }
        _leaseCounts[number]++;
        return number;
    }

    private void FreeLeases()
    {
        foreach (var (id, number) in _leases)
        {
            if (_leaseCounts[number] != 0)
                continue;
            _leases.Remove(id);
            _freeLeases.Push(number);
        }
    }
}
