namespace Mesh.StateDB.Reconciler;

/// <summary>
/// How rows become reality in one target (for us: BPF maps). Called by one reconciler from one thread at a time.
/// Every operation is idempotent: it may be repeated after a failure or a restart.
/// </summary>
public interface IOperations<TKey, TRow>
    where TKey : notnull
    where TRow : class
{
    /// <summary>Makes the target hold these rows. <paramref name="fail"/> reports the index of a row that could not be realised
    /// with the cause; rows not reported are done. A thrown exception fails the whole batch.</summary>
    void Update(IReadOnlyList<KeyValuePair<TKey, TRow>> rows, Action<int, RowFault> fail);

    /// <summary>Makes the target forget these keys; an absent one is no error.</summary>
    void Delete(IReadOnlyList<TKey> keys, Action<int, RowFault> fail);

    /// <summary>Removes from the target whatever is not among <paramref name="desired"/>. Called only once every source of the
    /// table has delivered its first complete list, and again at each prune interval.</summary>
    /// <returns>How many leftovers were removed.</returns>
    int Prune(IReadOnlyDictionary<TKey, TRow> desired);
}

/// <summary>Why a row could not be realised.</summary>
/// <param name="Cause">One line that names the thing and the cause.</param>
/// <param name="Full">The part of the target that has no room for it (for us: a BPF map); null when the cause is another.</param>
public readonly record struct RowFault(string Cause, string? Full = null)
{
    public static implicit operator RowFault(string cause) => new(cause);
}
