using Mesh.Kubernetes.Manifests;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes;

/// <summary>
/// A directory of ordinary Kubernetes manifests as the source of a cluster's objects: *.yaml, *.yml and *.json, at any depth, many
/// documents to a file. A file is read when its writer closes it or moves it into place. Whatever cannot be understood changes
/// nothing: the last good version stays, and <see cref="Problems"/> names file, document, line and mend until it is put right.
/// A directory that is missing, at start or later, is a problem and not an empty cluster: nothing is withdrawn, Synced waits. What was
/// there from the start and was never readable makes its kinds incomplete (<see cref="ObjectEvent.Incomplete"/>) until it is mended or removed.
/// </summary>
public sealed class ManifestDirectory : IObjectSource
{
    /// <summary>How often everything is looked at again, in case the kernel told us nothing (network file systems).</summary>
    private static readonly TimeSpan SafetyPoll = TimeSpan.FromSeconds(5);

    /// <summary>How often a missing directory is looked for.</summary>
    private static readonly TimeSpan MissingPoll = TimeSpan.FromMilliseconds(200);

    /// <summary>A file that disappears gets this long to come back (editors save by moving away and writing anew) and its
    /// directory to disappear too, before its objects go.</summary>
    private static readonly TimeSpan RemovalGrace = TimeSpan.FromMilliseconds(30);

    private const int MaxFileBytes = 256 << 20;

    private readonly string _root;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly Inotify _inotify = new();
    private readonly ObjectFeed _feed = new();
    private readonly Definitions _definitions = new();
    private readonly SortedDictionary<string, ManifestFile> _files = new(StringComparer.Ordinal);
    private readonly HashSet<string> _writing = new(StringComparer.Ordinal);
    private readonly Dictionary<string, FileStamp?> _suspects = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _following;
    private string? _rootProblem;
    private bool _started;
    private volatile IReadOnlyList<SourceProblem> _problems = [];

    /// <param name="directory">Need not exist yet.</param>
    /// <param name="log">Gets one line per problem that appears or goes.</param>
    public ManifestDirectory(string directory, TimeProvider? time = null, Action<string>? log = null)
    {
        _root = Path.GetFullPath(directory);
        _time = time ?? TimeProvider.System;
        _log = log ?? (_ => { });
        _following = Task.Run(FollowAsync);
    }

    public IReadOnlyList<SourceProblem> Problems => _problems;

    public IAsyncEnumerable<IReadOnlyList<ObjectEvent>> WatchAsync(IReadOnlySet<ObjectKind> kinds, CancellationToken cancellation) =>
        _feed.WatchAsync(kinds, cancellation);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _following;
        _inotify.Dispose();
        _stop.Dispose();
    }

    private async Task FollowAsync()
    {
        var seen = new Batch { Everything = true };
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                Apply(seen);
                seen = await NextAsync();
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                return;
            }
            catch (Exception e)
            {
                // Whatever it was, nothing is withdrawn because of it, and the next poll tries again.
                _rootProblem = $"cannot be followed: {e.Message}";
                UpdateProblems();
                seen = new Batch { Everything = true, Polled = true };
                await Task.Delay(MissingPoll, _time, CancellationToken.None);
            }
        }
    }

    /// <summary>Waits for something to happen, and takes all that has happened until then.</summary>
    private async Task<Batch> NextAsync()
    {
        var batch = new Batch();
        using var poll = new CancellationTokenSource(_rootProblem is null ? SafetyPoll : MissingPoll, _time);
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token, poll.Token);
        try
        {
            await _inotify.Notices.WaitToReadAsync(deadline.Token);
        }
        catch (OperationCanceledException) when (!_stop.IsCancellationRequested)
        {
            batch.Everything = batch.Polled = true;
        }
        Drain(batch);
        if (batch.Everything || batch.Settled.Any(path => _files.ContainsKey(path) && !File.Exists(path)))
        {
            await Task.Delay(RemovalGrace, _time, _stop.Token);
            Drain(batch);
        }
        return batch;
    }

    private void Drain(Batch batch)
    {
        while (_inotify.Notices.TryRead(out var notice))
        {
            switch (notice.Change)
            {
                case FileChange.Writing:
                    _writing.Add(notice.Path);
                    batch.Settled.Remove(notice.Path);
                    break;
                case FileChange.Settled when IsHidden(notice.Path):
                    // The symbolic link ..data of a mounted ConfigMap: every file behind it changed at once.
                    batch.Everything |= Path.GetFileName(notice.Path).StartsWith("..", StringComparison.Ordinal);
                    break;
                case FileChange.Settled:
                    _writing.Remove(notice.Path);
                    batch.Settled.Add(notice.Path);
                    break;
                default:
                    batch.Everything = true;
                    break;
            }
        }
    }

    private void Apply(Batch batch)
    {
        if (!Directory.Exists(_root))
        {
            _rootProblem = "does not exist: create it; what it defined before stays";
            UpdateProblems();
            return;
        }
        var events = new List<ObjectEvent>();
        try
        {
            // Back from absence it may still be filling up: files missing now count as removed at the next poll.
            if (batch.Everything || _rootProblem is not null)
                Scan(batch.Polled && _rootProblem is null, mayRemove: _rootProblem is null, events);
            foreach (var path in batch.Settled.Where(IsManifest))
                Reload(path, events);
            _rootProblem = null;
        }
        finally
        {
            UpdateProblems();
            _started |= _rootProblem is null;
            _feed.Publish(events, complete: _rootProblem is null, _files.Values.SelectMany(file => file.Incomplete).ToHashSet());
        }
    }

    /// <summary>Looks at every file. By a poll a change counts when two polls agree on it, else unless somebody is writing it.</summary>
    private void Scan(bool polled, bool mayRemove, List<ObjectEvent> events)
    {
        var present = new HashSet<string>(StringComparer.Ordinal);
        foreach (var path in ManifestsBelow(_root))
        {
            present.Add(path);
            var stamp = StampOf(path);
            if (_files.TryGetValue(path, out var known) && known.Stamp == stamp && stamp is not null)
            {
                _suspects.Remove(path);
                continue;
            }
            var agreed = _suspects.TryGetValue(path, out var before) && before == stamp;
            _suspects[path] = stamp;
            if (agreed || (!polled && !_writing.Contains(path)))
                Reload(path, events);
        }
        foreach (var path in _files.Keys.Where(path => mayRemove && !present.Contains(path)).ToArray())
            Reload(path, events);
    }

    /// <summary>Files in path order; each directory is watched before it is listed, so that nothing slips in between.</summary>
    private IEnumerable<string> ManifestsBelow(string directory)
    {
        if (!_inotify.Watch(directory) && Directory.Exists(directory) && directory == _root)
            throw new IOException("the kernel refuses another watch: raise fs.inotify.max_user_watches");
        var entries = Directory.EnumerateFileSystemEntries(directory).Order(StringComparer.Ordinal).ToArray();
        foreach (var entry in entries)
        {
            if (IsHidden(entry))
                continue;
            var attributes = new FileInfo(entry).Attributes;
            if ((attributes & (FileAttributes.Directory | FileAttributes.ReparsePoint)) == FileAttributes.Directory)
            {
                foreach (var below in ManifestsBelow(entry))
                    yield return below;
            }
            else if (IsManifest(entry) && File.Exists(entry))
            {
                yield return entry;
            }
        }
    }

    private void Reload(string path, List<ObjectEvent> events)
    {
        _suspects.Remove(path);
        if (!_files.TryGetValue(path, out var file))
        {
            if (!File.Exists(path))
                return;
            _files[path] = file = new ManifestFile(path, Path.GetRelativePath(_root, path), fromStart: !_started);
        }
        var before = file.Objects;
        if (!TryRead(file))
        {
            _files.Remove(path);
            file.Clear();
        }
        _definitions.Replace(file, before, events);
    }

    /// <summary>False when the file is gone.</summary>
    private static bool TryRead(ManifestFile file)
    {
        try
        {
            file.Stamp = StampOf(file.Path);
            var length = new FileInfo(file.Path).Length;
            if (length > MaxFileBytes)
                file.Unreadable($"has {length >> 20} MiB, more than the {MaxFileBytes >> 20} MiB allowed: split it");
            else
                file.Load(File.ReadAllBytes(file.Path));
            return true;
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return false;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            file.Unreadable($"cannot be read: {e.Message}");
            return true;
        }
    }

    private static FileStamp? StampOf(string path)
    {
        var file = new FileInfo(path);
        var target = file.LinkTarget is null ? file : file.ResolveLinkTarget(returnFinalTarget: true);
        return target is FileInfo { Exists: true } real ? new FileStamp(real.LastWriteTimeUtc.Ticks, real.Length) : null;
    }

    private static bool IsManifest(string path) =>
        Path.GetExtension(path) is ".yaml" or ".yml" or ".json" && !IsHidden(path);

    /// <summary>Editors keep their temporary files under such names.</summary>
    private static bool IsHidden(string path) => Path.GetFileName(path.AsSpan()) is ['.' or '#', ..];

    private void UpdateProblems()
    {
        var now = _time.GetUtcNow();
        var known = _problems.ToDictionary(problem => (problem.Where, problem.Message), problem => problem.Since);
        IEnumerable<(string, string)> root = _rootProblem is null ? [] : [(_root, _rootProblem)];
        var found = root.Concat(_files.Values.SelectMany(file => file.Problems)).Concat(_definitions.Conflicts)
            .Distinct()
            .Select(problem => new SourceProblem(problem.Item1, problem.Item2, known.GetValueOrDefault(problem, now)))
            .OrderBy(problem => problem.Since)
            .ToArray();
        foreach (var problem in found.Where(problem => !known.Remove((problem.Where, problem.Message))))
            _log($"manifests: {problem.Where}: {problem.Message}");
        foreach (var (where, message) in known.Keys)
            _log($"manifests: {where}: mended ({message})");
        _problems = found;
    }

    /// <summary>What happened since the last look.</summary>
    private sealed class Batch
    {
        public bool Everything { get; set; }

        /// <summary>Nothing happened: it is only time to look.</summary>
        public bool Polled { get; set; }

        /// <summary>Files closed, moved or removed.</summary>
        public SortedSet<string> Settled { get; } = new(StringComparer.Ordinal);
    }
}
