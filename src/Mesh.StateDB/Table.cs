using System.Diagnostics.CodeAnalysis;

namespace Mesh.StateDB;

/// <summary>
/// A table of desired state: rows by key, a revision per row, the status of each row's realisation, and change feeds.
/// Rows are immutable values; a change is a new row in a transaction. Whoever writes holds the table; whoever only reads gets
/// <see cref="ITable{TKey,TRow}"/>, so a signature shows who may write. Transactions and reads are short and synchronous, under
/// one lock; nothing is called back while it is held.
/// </summary>
public sealed class Table<TKey, TRow> : ITable<TKey, TRow>
    where TKey : notnull
    where TRow : class
{
    private readonly Lock _lock = new();
    private readonly Dictionary<TKey, Entry<TRow>> _entries = [];
    private readonly List<ChangeFeed<TKey, TRow>> _feeds = [];
    private readonly HashSet<string> _initializers = [];
    private readonly TaskCompletionSource _initialized = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _sealed;
    private long _revision;

    public Table(string name) => Name = name;

    public string Name { get; }

    public long Revision
    {
        get
        {
            lock (_lock)
                return _revision;
        }
    }

    public int Count
    {
        get
        {
            lock (_lock)
                return _entries.Count;
        }
    }

    public Task Initialized => _initialized.Task;

    public bool TryGet(TKey key, [MaybeNullWhen(false)] out TRow row)
    {
        lock (_lock)
        {
            var found = _entries.TryGetValue(key, out var entry);
            row = entry.Row;
            return found;
        }
    }

    /// <summary>The row with its revision and status; null when there is none.</summary>
    public Entry<TRow>? Find(TKey key)
    {
        lock (_lock)
            return _entries.TryGetValue(key, out var entry) ? entry : null;
    }

    public IReadOnlyList<KeyValuePair<TKey, Entry<TRow>>> Snapshot()
    {
        lock (_lock)
            return [.. _entries];
    }

    public ChangeFeed<TKey, TRow> Subscribe()
    {
        lock (_lock)
        {
            var feed = new ChangeFeed<TKey, TRow>(RemoveFeed);
            foreach (var (key, entry) in _entries)
                feed.Note(key, entry.Row, entry.Revision);
            _feeds.Add(feed);
            feed.Signal();
            return feed;
        }
    }

    /// <summary>Runs <paramref name="write"/> as one transaction: readers and feeds see all of it or nothing.
    /// If it throws, what it had written stays unseen and the exception goes on.</summary>
    public void Write(Action<WriteTransaction> write)
    {
        lock (_lock)
        {
            var transaction = new WriteTransaction(this);
            write(transaction);
            transaction.Commit();
        }
    }

    /// <summary>Announces a source whose first complete list this table must wait for before anything may be pruned.
    /// All sources announce themselves, then <see cref="SealInitializers"/> is called once.</summary>
    public void AddInitializer(string source)
    {
        lock (_lock)
        {
            if (_sealed)
                throw new InvalidOperationException($"table {Name}: source {source} came after the list of sources was sealed");
            _initializers.Add(source);
        }
    }

    /// <summary>The source has delivered its first complete list, or has gone for good. Repeats are ignored.</summary>
    public void InitializerDone(string source)
    {
        lock (_lock)
        {
            _initializers.Remove(source);
            CompleteInitialization();
        }
    }

    /// <summary>No further source will announce itself.</summary>
    public void SealInitializers()
    {
        lock (_lock)
        {
            _sealed = true;
            CompleteInitialization();
        }
    }

    /// <summary>Sources still awaited, for status and logs.</summary>
    public IReadOnlyList<string> PendingInitializers
    {
        get
        {
            lock (_lock)
                return [.. _initializers.Order(StringComparer.Ordinal)];
        }
    }

    public bool SetStatus(TKey key, long revision, RowStatus status)
    {
        lock (_lock)
        {
            if (!_entries.TryGetValue(key, out var entry) || entry.Revision != revision)
                return false;
            _entries[key] = entry with { Status = status };
            return true;
        }
    }

    private void CompleteInitialization()
    {
        if (_sealed && _initializers.Count == 0)
            _initialized.TrySetResult();
    }

    private void RemoveFeed(ChangeFeed<TKey, TRow> feed)
    {
        lock (_lock)
            _feeds.Remove(feed);
    }

    /// <summary>Valid only inside <see cref="Write"/>. Reads see its own writes.</summary>
    public sealed class WriteTransaction
    {
        private readonly Table<TKey, TRow> _table;
        private readonly Dictionary<TKey, TRow?> _pending = [];

        internal WriteTransaction(Table<TKey, TRow> table) => _table = table;

        public bool TryGet(TKey key, [MaybeNullWhen(false)] out TRow row)
        {
            if (_pending.TryGetValue(key, out var pending))
            {
                row = pending;
                return row is not null;
            }
            var found = _table._entries.TryGetValue(key, out var entry);
            row = entry.Row;
            return found;
        }

        /// <summary>Inserts or replaces. A row equal to the present one is no change: no revision, no event.</summary>
        public void Upsert(TKey key, TRow row) => _pending[key] = row;

        /// <summary>Deletes; an absent key is no error.</summary>
        public void Delete(TKey key) => _pending[key] = null;

        /// <summary>Keys and rows as they were when the transaction began.</summary>
        public IEnumerable<KeyValuePair<TKey, TRow>> RowsBefore() =>
            _table._entries.Select(pair => KeyValuePair.Create(pair.Key, pair.Value.Row));

        internal void Commit()
        {
            var changed = false;
            foreach (var (key, row) in _pending)
            {
                var exists = _table._entries.TryGetValue(key, out var present);
                if (row is null ? !exists : exists && present.Row.Equals(row))
                    continue;
                var revision = ++_table._revision;
                if (row is null)
                    _table._entries.Remove(key);
                else
                    _table._entries[key] = new Entry<TRow>(row, revision, RowStatus.Pending);
                foreach (var feed in _table._feeds)
                    feed.Note(key, row, revision);
                changed = true;
            }
            if (!changed)
                return;
            foreach (var feed in _table._feeds)
                feed.Signal();
        }
    }
}

/// <summary>The reader's side of a table.</summary>
public interface ITable<TKey, TRow>
    where TKey : notnull
    where TRow : class
{
    string Name { get; }

    /// <summary>Grows by one with each changed row; 0 for a table never written.</summary>
    long Revision { get; }

    int Count { get; }

    /// <summary>Completes when every announced source has delivered its first complete list.</summary>
    Task Initialized { get; }

    bool TryGet(TKey key, [MaybeNullWhen(false)] out TRow row);

    /// <summary>A copy of all rows, in no order.</summary>
    IReadOnlyList<KeyValuePair<TKey, Entry<TRow>>> Snapshot();

    /// <summary>A feed that begins with every present row. The caller disposes it.</summary>
    ChangeFeed<TKey, TRow> Subscribe();

    /// <summary>Called by the reconciler alone. False when the row has changed since <paramref name="revision"/>:
    /// a result about an older row says nothing about the present one.</summary>
    bool SetStatus(TKey key, long revision, RowStatus status);
}

/// <summary>A row as the table holds it.</summary>
public readonly record struct Entry<TRow>(TRow Row, long Revision, RowStatus Status);
