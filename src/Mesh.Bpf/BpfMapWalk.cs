namespace Mesh.Bpf;

/// <summary>
/// A walk over a hash map in steps of at most <see cref="BpfMap{TKey,TValue}.BatchSize"/> elements, which may be spread over any time.
/// Elements written or deleted meanwhile may or may not be met. Not safe for several threads.
/// </summary>
public sealed class BpfMapWalk<TKey, TValue>
    where TKey : unmanaged
    where TValue : unmanaged
{
    private readonly BpfMap<TKey, TValue> _map;
    private readonly List<KeyValuePair<TKey, TValue>> _batch = [];
    private byte[]? _cursor;

    public BpfMapWalk(BpfMap<TKey, TValue> map) => _map = map;

    /// <summary>What the last step met.</summary>
    public IReadOnlyList<KeyValuePair<TKey, TValue>> Batch => _batch;

    /// <summary>Goes one step.</summary>
    /// <returns>False when it was the last one.</returns>
    public bool Next()
    {
        _batch.Clear();
        _cursor = _map.DumpFrom(_cursor, _batch);
        return _cursor is not null;
    }

    /// <summary>Begins anew.</summary>
    public void Restart()
    {
        _cursor = null;
        _batch.Clear();
    }
}
