using System.Runtime.CompilerServices;
using System.Threading.Channels;
using Mesh.ClusterMesh.Imports;
using Mesh.Model;

namespace Mesh.ClusterMesh.Config;

/// <summary>
/// Follows the directory that lists the peers, in Cilium's format: each file whose text contains "endpoints:" is a peer and its name
/// is the cluster's; certificates and keys lie beside them. Mounted ConfigMaps swap all files at once through a symbolic link.
/// <para>
/// A look at the whole directory decides, never a single file event: events only say when to look, and a slow poll covers the ones
/// that are lost. A peer has to stay missing for half a second before it counts as removed, because removal drains a cluster and a
/// file being rewritten in place is empty for a moment.
/// </para>
/// </summary>
public sealed class ConfigDirectory
{
    private static readonly TimeSpan PollInterval = TimeSpan.FromSeconds(5);

    /// <summary>Where the system tells of changes, each peer makes the poll this much rarer: to find hundreds of files as they were is work.</summary>
    private static readonly TimeSpan PollPerPeer = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan RemovalConfirmation = TimeSpan.FromMilliseconds(500);

    /// <summary>A file that was not written for so long is taken to be what it was when it looks as it did.</summary>
    private static readonly TimeSpan Settled = TimeSpan.FromSeconds(1);

    /// <summary>A peer file is a page of YAML; whatever is larger is something else.</summary>
    private const int LargestFile = 1 << 20;

    private readonly string _path;
    private readonly string _localCluster;
    private readonly TimeProvider _time;
    private readonly Dictionary<string, PeerChange> _known = new(StringComparer.Ordinal);
    private readonly Dictionary<string, long> _missingSince = new(StringComparer.Ordinal);
    private readonly TaskCompletionSource<IReadOnlyList<string>> _listed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Dictionary<string, long> _importsMissingSince = new(StringComparer.Ordinal);

    /// <summary>Texts that were read, each with what the file looked like then: hundreds of files are not read again to find them as they
    /// were.</summary>
    private readonly Dictionary<string, (DateTime Written, long Length, string Text)> _texts = new(StringComparer.Ordinal);
    private volatile string? _problem;
    private bool _looked;

    /// <param name="path">May not exist yet: no peers until it does.</param>
    /// <param name="localCluster">Own name; the file of that name is for the others.</param>
    public ConfigDirectory(string path, string localCluster, TimeProvider time)
    {
        _path = path;
        _localCluster = localCluster;
        _time = time;
    }

    /// <summary>Why the directory cannot be read at present, null when it can. Peers are kept meanwhile.</summary>
    public string? Problem => _problem;

    /// <summary>The peers of the first look at an existing directory, once its reader has them all. A directory that does not exist
    /// yet says nothing about which peers there are: whoever holds something on behalf of one goes on holding it.</summary>
    public Task<IReadOnlyList<string>> Listed => _listed.Task;

    /// <summary>The peers there are, then every change, for ever. For one reader.</summary>
    public async IAsyncEnumerable<PeerChange> WatchAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        var wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
        FileSystemWatcher? watcher = null;
        try
        {
            while (true)
            {
                // A directory that was made, or replaced, after the last look needs a watcher of its own.
                if (watcher is null && Directory.Exists(_path))
                    watcher = Watch(wake.Writer);
                foreach (var change in Look())
                    yield return change;
                if (_looked)
                    _listed.TrySetResult([.. _known.Values.Where(peer => peer.Kind == PeerChangeKind.Set).Select(peer => peer.Name)]);
                if (!Directory.Exists(_path))
                {
                    watcher?.Dispose();
                    watcher = null;
                }
                var poll = watcher is null ? PollInterval : PollInterval + (_known.Count * PollPerPeer);
                await WaitAsync(wake.Reader, _missingSince.Count + _importsMissingSince.Count > 0 ? RemovalConfirmation : poll, cancellation);
            }
        }
        finally
        {
            watcher?.Dispose();
        }
    }

    private FileSystemWatcher? Watch(ChannelWriter<bool> wake)
    {
        try
        {
            var watcher = new FileSystemWatcher(_path)
            {
                NotifyFilter = NotifyFilters.FileName | NotifyFilters.DirectoryName | NotifyFilters.LastWrite,
            };
            watcher.Changed += (_, _) => wake.TryWrite(true);
            watcher.Created += (_, _) => wake.TryWrite(true);
            watcher.Deleted += (_, _) => wake.TryWrite(true);
            watcher.Renamed += (_, _) => wake.TryWrite(true);
            watcher.Error += (_, _) => wake.TryWrite(true);
            watcher.EnableRaisingEvents = true;
            return watcher;
        }
        catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
        {
            // Out of inotify instances, or the directory went away again: the poll still sees everything, only later.
            _problem = $"{_path}: changes are noticed only every {PollInterval.TotalSeconds} s: {e.Message}";
            return null;
        }
    }

    private async Task WaitAsync(ChannelReader<bool> wake, TimeSpan atMost, CancellationToken cancellation)
    {
        using var poll = new CancellationTokenSource(atMost, _time);
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation, poll.Token);
        try
        {
            await wake.ReadAsync(timeout.Token);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // The poll is due.
        }
    }

    private List<PeerChange> Look()
    {
        var changes = new List<PeerChange>();
        Dictionary<string, PeerChange> found;
        try
        {
            found = Read(out var problem);
            _problem = problem;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _problem = $"{_path}: {e.Message}; the peers known so far are kept";
            return changes;
        }
        foreach (var (name, change) in found)
        {
            _missingSince.Remove(name);
            if (_known.TryGetValue(name, out var known)
                && (ReferenceEquals(known, change) || (known.Config?.Hash == change.Config?.Hash && known.Kind == change.Kind)))
                continue;
            _known[name] = change;
            changes.Add(change);
        }
        foreach (var name in _known.Keys.Except(found.Keys).ToList())
        {
            if (_missingSince.TryAdd(name, _time.GetTimestamp()) || _time.GetElapsedTime(_missingSince[name]) < RemovalConfirmation)
                continue;
            _missingSince.Remove(name);
            _importsMissingSince.Remove(name);
            _known.Remove(name);
            changes.Add(new PeerChange(PeerChangeKind.Removed, name));
        }
        return changes;
    }

    /// <param name="problem">Files of known peers that cannot be used as they are now; null without any.</param>
    private Dictionary<string, PeerChange> Read(out string? problem)
    {
        var found = new Dictionary<string, PeerChange>(StringComparer.Ordinal);
        problem = null;
        if (!Directory.Exists(_path))
            return found;
        foreach (var path in Directory.EnumerateFiles(_path))
        {
            var name = Path.GetFileName(path);
            if (name == _localCluster || name.StartsWith("..", StringComparison.Ordinal))
                continue;
            if (ReadText(path) is not { } text || !text.Contains("endpoints:", StringComparison.Ordinal))
            {
                // A file cut short, or written over with something else, is no wish to leave: who means that removes it.
                if (!_known.TryGetValue(name, out var known) || known.Kind != PeerChangeKind.Set || !File.Exists(path))
                    continue;
                found[name] = known;
                problem = $"{path} cannot be read or names no endpoints: the peer is kept as it was; mend the file, or remove it to remove the peer";
                continue;
            }
            if (IsAsKnown(name, text) is { } same)
            {
                found[name] = same;
                continue;
            }
            found[name] = ClusterName.Validate(name) is { } fault
                ? new PeerChange(PeerChangeKind.Invalid, name, Problem: $"{path}: {fault}; rename the file")
                : new PeerChange(PeerChangeKind.Set, name, WithImports(new PeerConfig(name, path, text)));
        }
        _looked = true;
        return found;
    }

    /// <summary>What is known of a peer whose files have not been written since; null when they have.</summary>
    private PeerChange? IsAsKnown(string name, string text)
    {
        if (!_known.TryGetValue(name, out var known) || known.Config is not { } config || config.Text != text
            || config.ImportsProblem is not null || _importsMissingSince.ContainsKey(name))
            return null;
        var imports = Path.Combine(_path, name + ImportPolicyFile.Suffix);
        return config.ImportsText == (File.Exists(imports) ? ReadText(imports) : null) ? known : null;
    }

    /// <summary>Adds what CLUSTER.imports.json says. A malformed one changes nothing but the problem. Neither does one that vanished:
    /// nobody lifts a peer's limits by losing a file, only by writing so into it, by removing the peer, or by starting anew.</summary>
    private PeerConfig WithImports(PeerConfig peer)
    {
        var before = _known.GetValueOrDefault(peer.Name)?.Config;
        var path = Path.Combine(_path, peer.Name + ImportPolicyFile.Suffix);
        if (!File.Exists(path))
        {
            var confirmed = before?.ImportsText is not null && IsConfirmed(peer.Name);
            if (!confirmed)
                return Keep(before?.ImportsProblem);
            _importsMissingSince.Remove(peer.Name);
            return before!.Imports is null ? peer : Keep($"{path} is gone, {peer.Name} is not pinned by any file: what it said last stays in force "
                + "until this process ends; put it back, or write {} into it to lift the ranges") with
            { ImportsText = null };
        }
        _importsMissingSince.Remove(peer.Name);
        if (ReadText(path) is not { } text)
            return Keep($"{path}: cannot be read, or is larger than {LargestFile} bytes");
        try
        {
            return peer with { Imports = ImportPolicyFile.Parse(text, peer.Name), ImportsText = text };
        }
        catch (FormatException e)
        {
            var held = before?.Imports is null ? "the peer is not connected until it is mended" : "the last good one is in force";
            return Keep($"{path}: {e.Message}; {held}") with { ImportsText = text };
        }

        PeerConfig Keep(string? problem) => peer with
        {
            Imports = before?.Imports,
            ImportsText = before?.ImportsText,
            ImportsProblem = problem,
        };
    }

    private bool IsConfirmed(string peer) =>
        !_importsMissingSince.TryAdd(peer, _time.GetTimestamp()) && _time.GetElapsedTime(_importsMissingSince[peer]) >= RemovalConfirmation;

    // An unreadable file is no peer, as a missing one.
    private string? ReadText(string path)
    {
        try
        {
            // Of the file that a link leads to: mounted ones are links that never change.
            using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
            var (written, length) = (File.GetLastWriteTimeUtc(file.SafeFileHandle), file.Length);
            if (_texts.TryGetValue(path, out var read) && (read.Written, read.Length) == (written, length))
                return read.Text;
            if (length > LargestFile)
                return null;
            using var reader = new StreamReader(file);
            var text = reader.ReadToEnd();
            // One that was written a moment ago may be written again in the same tick of the file system's clock.
            if (DateTime.UtcNow - written > Settled)
                _texts[path] = (written, length, text);
            else
                _texts.Remove(path);
            return text;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _texts.Remove(path);
            return null;
        }
    }
}
