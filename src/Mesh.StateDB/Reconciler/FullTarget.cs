using System.Diagnostics.CodeAnalysis;

namespace Mesh.StateDB.Reconciler;

/// <summary>A part of a target that has no room, for status.</summary>
/// <param name="Name">For us: the BPF map.</param>
/// <param name="Cause">What it said, in one line.</param>
/// <param name="Waiting">Rows that wait for room in it.</param>
/// <param name="Since">When it first refused a row.</param>
public sealed record FullTarget(string Name, string Cause, int Waiting, DateTimeOffset Since);

/// <summary>
/// The rows that wait for room in one part of a target, in the order in which they were refused. They are not retried row by row:
/// whoever asks takes one from the front, and more only when that one found room. A row refused again goes to the end, so that
/// one which needs much room does not hold up those which need little. Not thread-safe: the reconciler's lock is held.
/// </summary>
internal sealed class WaitingRows<TKey, TRow>(string name, string cause, DateTimeOffset since)
    where TKey : notnull
    where TRow : class
{
    private readonly Dictionary<TKey, Change<TKey, TRow>> _changes = [];

    /// <summary>May name keys that wait no more, or twice: <see cref="_changes"/> decides.</summary>
    private Queue<TKey> _order = [];

    internal string Name => name;

    internal int Count => _changes.Count;

    internal FullTarget Status => new(name, cause, _changes.Count, since);

    /// <summary>One for all of them: a million waiting rows must not hold a million texts.</summary>
    internal RowStatus RowStatus { get; } = new(RowState.Error, cause, 1, since);

    /// <summary>When room may be asked for next.</summary>
    internal DateTimeOffset AskAt { get; set; }

    internal void Put(Change<TKey, TRow> change)
    {
        if (!_changes.ContainsKey(change.Key))
            _order.Enqueue(change.Key);
        _changes[change.Key] = change;
    }

    internal bool Remove(TKey key)
    {
        var waited = _changes.Remove(key);
        // Keys that come and go while nothing finds room would otherwise pile up.
        if (_order.Count > 2 * _changes.Count + 64)
            _order = new Queue<TKey>(_order.Where(_changes.ContainsKey).Distinct());
        return waited;
    }

    /// <summary>Takes up to <paramref name="most"/> from the front.</summary>
    internal Change<TKey, TRow>[] Take(int most)
    {
        var taken = new List<Change<TKey, TRow>>(Math.Min(most, _changes.Count));
        while (taken.Count < most && TryNext(out var change))
            taken.Add(change.Value);
        return [.. taken];
    }

    private bool TryNext([NotNullWhen(true)] out Change<TKey, TRow>? change)
    {
        change = null;
        while (_order.TryDequeue(out var key))
            if (_changes.Remove(key, out var waiting))
            {
                change = waiting;
                return true;
            }
        return false;
    }
}
