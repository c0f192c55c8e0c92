namespace Mesh.ClusterMesh.Remote;

/// <summary>Which records of one resource the sink holds, each marked with the number of the list or watch that last showed it.
/// What the marks of a finished list leave out is gone. 40 bytes per ip entry, and no text.</summary>
internal sealed class KnownKeys<TKey>
    where TKey : notnull
{
    private readonly Dictionary<TKey, int> _marks = [];
    private int _list;

    public int Count => _marks.Count;

    public void BeginList() => _list++;

    public void Add(TKey key) => _marks[key] = _list;

    /// <summary>False when it was not known: the sink need not hear of its deletion.</summary>
    public bool Remove(TKey key) => _marks.Remove(key);

    public List<TKey> TakeUnlisted()
    {
        var unlisted = new List<TKey>();
        foreach (var (key, mark) in _marks)
        {
            if (mark != _list)
                unlisted.Add(key);
        }
        foreach (var key in unlisted)
            _marks.Remove(key);
        return unlisted;
    }

    public void Clear() => _marks.Clear();
}
