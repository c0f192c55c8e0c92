using System.Collections.Immutable;
using System.Security.Cryptography;
using System.Text;
using Etcdserverpb;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door;

/// <param name="Value">Null deletes the key.</param>
public readonly record struct MirrorChange(string Key, ReadOnlyMemory<byte>? Value);

/// <summary>What a commit really changed.</summary>
/// <param name="Revision">Revision of the key space after it.</param>
/// <param name="Changed">Keys that differ from before; 0 when the commit made no revision.</param>
/// <param name="Keys">Keys added, less those removed.</param>
/// <param name="Bytes">Bytes of keys and values added, less those removed.</param>
public readonly record struct MirrorCommit(long Revision, int Changed, int Keys, long Bytes);

/// <summary>What `status` and the metrics print about the cache view.</summary>
/// <param name="Problem">Why it would not survive a restart, null when it would (or was not meant to).</param>
public sealed record MirrorStatus(ulong ClusterId, long OldestRevision, long Revision, int Keys, long Bytes, long JournalBytes, string? Problem)
{
    /// <summary>Times that revisions were made, some of them several at once, since the start.</summary>
    public long Commits { get; init; }
}

public sealed record MirrorOptions
{
    /// <summary>Directory of the journal; null for a mirror that ends with the process.</summary>
    public string? StateDir { get; init; }

    /// <summary>As <see cref="DoorLimits.HistoryRevisions"/>.</summary>
    public int HistoryRevisions { get; init; } = 16_384;

    /// <summary>As <see cref="DoorLimits.HistoryBytes"/>.</summary>
    public long HistoryBytes { get; init; } = 256L << 20;

    /// <summary>How long a commit waits for others when several came just before it. Zero for never.</summary>
    public TimeSpan Gathering { get; init; } = TimeSpan.FromMilliseconds(1);
}

/// <summary>
/// A key space that this process writes itself and a door serves like an etcd: the cache view. It has revisions and a cluster ID of
/// its own. A commit is one revision, holds only real differences, is in the journal before a reader can see it, and then goes to
/// all readers from memory.
/// <para>Because nothing is served beyond the journal, a process that was killed goes on under the same cluster ID at the same
/// revision and its readers resume. Where that cannot be proved (the machine went down, the file is damaged or could not be written),
/// the cluster ID is another one, so that readers list again, and the canaries are gone until the writer has confirmed each
/// resource, so that an older list withdraws nothing.</para>
/// </summary>
public sealed class MirrorView : IAsyncDisposable
{
    private const string Canaries = "cilium/synced/";
    private static readonly TimeSpan JournalRetry = TimeSpan.FromSeconds(10);

    /// <summary>A commit with more is work enough by itself.</summary>
    private const int FewChanges = 64;

    /// <summary>Changes of commits that are made together: how long readers, and who asked first, may have to wait.</summary>
    private const int GroupMax = 4096;

    /// <summary>FIFO: one who commits without pause lets every other have its turn in between.</summary>
    private readonly SemaphoreSlim _turn = new(1, 1);
    private readonly MirrorOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly CancellationTokenSource _stop = new();
    private readonly Queue<MirrorCommission> _commissions = [];
    private readonly Gathering _gathering;
    private readonly List<MirrorCommission> _group = [];
    private readonly List<RevisionEntry> _entries = [];
    private History _history;
    private HeaderIds _ids;
    private MirrorJournal? _journal;
    private Task _rewriting = Task.CompletedTask;
    private long _bytes;
    private long _commits;
    private long _journalTried;
    private int _disposed;
    private string? _problem;

    private MirrorView(MirrorOptions options, History history, ulong clusterId, TimeProvider time, Action<string> log)
    {
        (_options, _history, _time, _log) = (options, history, time, log);
        _gathering = new Gathering(options.Gathering, time);
        _ids = new HeaderIds(clusterId, NewId(), 1);
        foreach (var key in history.Head.Keys)
            _bytes += Size(key);
    }

    internal WatchCache Cache { get; } = new();

    public MirrorStatus Status => Cache.View is var view
        ? new MirrorStatus(view.Ids.ClusterId, view.History.Oldest, view.History.Head.Revision, view.History.Head.Keys.Count,
            Interlocked.Read(ref _bytes), _journal?.Length ?? 0, _problem)
        {
            Commits = Interlocked.Read(ref _commits),
        }
        : throw new InvalidOperationException();

    internal IEnumerable<string> Problems => _problem is { } problem ? [problem] : [];

    private ImmutableSortedSet<KeyVersion> Head => Cache.View.History.Head.Keys;

    /// <summary>Takes up what an earlier process left in the state directory, or begins with nothing.</summary>
    /// <exception cref="IOException">The directory cannot be used, or another process uses it.</exception>
    public static MirrorView Open(MirrorOptions options, TimeProvider time, Action<string> log)
    {
        var loaded = options.StateDir is { } dir ? MirrorJournal.Load(dir, options, log) : null;
        var history = loaded?.History ?? MirrorJournal.Empty(options);
        var view = new MirrorView(options, history, loaded?.ClusterId ?? NewId(), time, log) { _journal = loaded?.Journal };
        if (options.StateDir is not null && view._journal is null)
            view._journal = MirrorJournal.Create(options.StateDir, view._ids.ClusterId, [history.Head]);
        view.Cache.Publish(history, view._ids);
        if (loaded is not null)
        {
            log($"cache: {history.Head.Keys.Count} keys at revision {history.Head.Revision} from {loaded.Journal?.Path ?? options.StateDir}, " +
                $"as cluster {view._ids.ClusterId:x}{(loaded.Unbroken ? "" : $" anew: {loaded.Break}")}");
            if (!loaded.Unbroken)
                view.Commit([new MirrorCommission([.. view.KeysBelow(Canaries).Select(key => new MirrorChange(key, null))])]);
        }
        return view;
    }

    /// <summary>Makes one revision of what really differs; of several changes to a key the last counts. Callers have their turns in
    /// the order in which they asked; those that wait meanwhile, or come a moment after many others, are committed together.</summary>
    /// <param name="changes">Not changed by the caller until this is done.</param>
    public async ValueTask<MirrorCommit> CommitAsync(IReadOnlyList<MirrorChange> changes, CancellationToken cancellation)
    {
        var mine = new MirrorCommission(changes);
        lock (_commissions)
            _commissions.Enqueue(mine);
        try
        {
            await _turn.WaitAsync(cancellation);
        }
        catch (OperationCanceledException) when (!mine.TryWithdraw())
        {
            // Somebody is committing it with his own.
            await _turn.WaitAsync(CancellationToken.None);
        }
        try
        {
            if (!mine.IsDone && changes.Count < FewChanges)
                await _gathering.PauseAsync(alone: IsAlone);
            while (!mine.IsDone)
                CommitWaiting();
            return mine.Result;
        }
        finally
        {
            _turn.Release();
        }
    }

    private bool IsAlone
    {
        get
        {
            lock (_commissions)
                return _commissions.Count < 2;
        }
    }

    /// <summary>Null when the key is absent.</summary>
    public ReadOnlyMemory<byte>? Get(string key) => Find(Head, key)?.ValueMemory;

    public int Count(string prefix) => MirrorListing.Of(Head, prefix).Count;

    /// <summary>Bytes of keys and values below the prefix. Walks over all of them.</summary>
    public long BytesBelow(string prefix) => MirrorListing.Of(Head, prefix).Keys.Sum(Size);

    /// <summary>The keys below the prefix, in order.</summary>
    public IReadOnlyList<string> KeysBelow(string prefix) => [.. MirrorListing.Of(Head, prefix).Keys.Select(Text)];

    /// <summary>The distinct segments that follow the prefix, however many keys lie below each.</summary>
    public IReadOnlyList<string> SegmentsBelow(string prefix) => MirrorListing.SegmentsBelow(Head, prefix);

    /// <summary>Begins to compare a list with what is below the prefix now.</summary>
    public MirrorListing BeginListing(string prefix) => MirrorListing.Of(Head, prefix);

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        await _stop.CancelAsync();
        await _rewriting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _turn.WaitAsync();
        _journal?.Dispose();
        _journal = null;
    }

    /// <summary>What Maintenance.Status says of the cache.</summary>
    internal StatusResponse EtcdStatus()
    {
        var view = Cache.View;
        var revision = (ulong)view.History.Head.Revision;
        var status = new StatusResponse
        {
            Header = ResponseHeaderBytes.Message(view.Ids, (long)revision),
            Version = "3.4.23",
            DbSize = Interlocked.Read(ref _bytes),
            DbSizeInUse = Interlocked.Read(ref _bytes),
            Leader = view.Ids.MemberId,
            RaftIndex = revision,
            RaftAppliedIndex = revision,
            RaftTerm = view.Ids.RaftTerm,
        };
        status.Errors.Add(Problems);
        return status;
    }

    /// <summary>Commits what waits, up to a bound: each as a revision of its own, with one write of the journal and one word to the readers
    /// for all of them. For who has the turn.</summary>
    private void CommitWaiting()
    {
        _group.Clear();
        lock (_commissions)
        {
            for (var changes = 0; changes < GroupMax && _commissions.TryDequeue(out var next);)
            {
                if (!next.TryTake())
                    continue;
                _group.Add(next);
                changes += next.Changes.Count;
            }
        }
        try
        {
            Commit(_group);
        }
        catch (Exception e)
        {
            _group.ForEach(one => one.Fail(e));
        }
    }

    private void Commit(List<MirrorCommission> group)
    {
        var head = _history.Head;
        _entries.Clear();
        foreach (var one in group)
        {
            var versions = Differences(head, one.Changes);
            if (versions.Count == 0)
            {
                one.Complete(new MirrorCommit(head.Revision, 0, 0, 0));
                continue;
            }
            var entry = History.After(head, head.Revision + 1, versions);
            var bytes = 0L;
            foreach (var (version, previous) in entry.Events)
                bytes += (version.IsDelete ? 0 : Size(version)) - (previous is null ? 0 : Size(previous));
            one.Complete(new MirrorCommit(entry.Revision, versions.Count, entry.Keys.Count - head.Keys.Count, bytes));
            _entries.Add(entry);
            head = entry;
        }
        if (_entries.Count == 0)
            return;
        var entries = System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_entries);
        Journal(entries);
        foreach (var entry in entries)
            _history.Append(entry);
        Interlocked.Add(ref _bytes, group.Sum(one => one.Result.Bytes));
        Cache.Announce(entries);
        _gathering.Committed();
        Interlocked.Increment(ref _commits);
        _entries.Clear();
    }

    private static List<KeyVersion> Differences(RevisionEntry head, IReadOnlyList<MirrorChange> changes)
    {
        var revision = head.Revision + 1;
        var versions = new List<KeyVersion>(changes.Count);
        var seen = changes.Count > 1 ? new HashSet<string>(changes.Count, StringComparer.Ordinal) : null;
        for (var i = changes.Count - 1; i >= 0; i--)
        {
            var (key, value) = changes[i];
            if (seen?.Add(key) == false)
                continue;
            var existing = Find(head.Keys, key);
            if (value is null ? existing is null : existing is not null && existing.Value.SequenceEqual(value.Value.Span))
                continue;
            var name = Encoding.UTF8.GetBytes(key);
            versions.Add(value is { } bytes
                ? new KeyVersion(name, bytes.Span, existing?.CreateRevision ?? revision, revision, (existing?.Version ?? 0) + 1, 0)
                : KeyVersion.Deleted(name, revision));
        }
        versions.Reverse();
        return versions;
    }

    /// <summary>Writes the revisions down before anybody can see them.</summary>
    private void Journal(ReadOnlySpan<RevisionEntry> entries)
    {
        if (_options.StateDir is null)
            return;
        try
        {
            if (_journal is null)
            {
                if (_time.GetElapsedTime(_journalTried) < JournalRetry)
                    return;
                _journal = MirrorJournal.Create(_options.StateDir, _ids.ClusterId, _history.Entries());
                _problem = null;
                _log($"cache: the journal in {_options.StateDir} is written again");
            }
            _journal.Append(entries);
            if (_journal.WantsRewrite && _rewriting.IsCompleted)
                _rewriting = RewriteAsync(_journal, _history.Entries());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            var before = _journal is not null;
            _journalTried = _time.GetTimestamp();
            _journal?.Dispose();
            _journal = null;
            _problem = $"{_options.StateDir}: the cache's journal cannot be written: {e.Message}: a restart would begin with an older cache";
            if (before)
                Rename();
        }
    }

    /// <summary>What follows is in no journal: a restart would give the same revisions to other events, so they get another name.</summary>
    private void Rename()
    {
        _log($"cache: {_problem}");
        _ids = _ids with { ClusterId = NewId() };
        Cache.Publish(_history, _ids);
    }

    /// <summary>Replaces the journal by one that begins where the history in memory does.</summary>
    private async Task RewriteAsync(MirrorJournal old, IReadOnlyList<RevisionEntry> entries)
    {
        await Task.Yield();
        try
        {
            var fresh = MirrorJournal.Create(_options.StateDir!, _ids.ClusterId, entries, inPlace: false);
            await _turn.WaitAsync(_stop.Token);
            try
            {
                for (var revision = entries[^1].Revision + 1; revision <= _history.Head.Revision; revision++)
                {
                    if (_history.Find(revision) is not { } entry)
                        throw new IOException($"revision {revision} was gone before it was copied");
                    fresh.Append(entry);
                }
                if (!ReferenceEquals(_journal, old))
                    throw new IOException("the journal was lost meanwhile");
                fresh.TakePlace();
                _journal = fresh;
                old.Dispose();
            }
            catch
            {
                fresh.Dispose();
                throw;
            }
            finally
            {
                _turn.Release();
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The old one is whole and goes on; it asks again when it has grown further.
            old.Postpone();
            _log($"cache: the journal could not be shortened: {e.Message}");
        }
    }

    private static KeyVersion? Find(ImmutableSortedSet<KeyVersion> keys, string key) =>
        keys.TryGetValue(KeyVersion.Probe(Encoding.UTF8.GetBytes(key)), out var found) ? found : null;

    internal static string Text(KeyVersion key) => Encoding.UTF8.GetString(key.Key);

    private static long Size(KeyVersion key) => key.Key.Length + key.Value.Length;

    internal static ulong NewId() => BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(8)) | 1;
}
