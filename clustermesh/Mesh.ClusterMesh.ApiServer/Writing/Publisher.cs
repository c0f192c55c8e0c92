using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Writing;

/// <summary>
/// Objects into etcd, by one replica at a time. Every replica follows the objects and knows what ought to be written; only the elected
/// one writes it, each transaction fenced. So a successor has everything at hand when its turn comes, and since it takes the keys'
/// leases over as they are, readers see nothing but a canary written again.
/// </summary>
internal sealed class Publisher
{
    private const string ElectionKey = "mesh/apiserver/writer";
    private static readonly TimeSpan ResignPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan StandbyPause = TimeSpan.FromMilliseconds(500);

    private readonly ApiServerOptions _options;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly Reflector _reflector;
    private readonly TaskCompletionSource _complete = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _published = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _gate = new();
    private Term? _term;
    private EtcdElection? _election;
    private string? _candidate;

    public Publisher(ApiServerOptions options, TimeProvider time, Action<string> log)
    {
        (_options, _time, _log) = (options, time, log);
        _reflector = new Reflector(options.Self, options.NamespacesAreGlobal, options.ServiceExports);
    }

    /// <summary>The kinds of objects to follow.</summary>
    public IReadOnlySet<ObjectKind> Kinds => _reflector.Kinds;

    /// <summary>This replica writes.</summary>
    public bool IsWriter
    {
        get
        {
            lock (_gate)
                return _term is not null;
        }
    }

    /// <summary>What is written; empty while another replica writes.</summary>
    public IReadOnlyDictionary<RemoteResource, SyncStoreStatus> Stores
    {
        get
        {
            lock (_gate)
                return _term?.Status ?? new Dictionary<RemoteResource, SyncStoreStatus>();
        }
    }

    /// <summary>Objects that stay at home though they should not, as "object: what to mend".</summary>
    public IReadOnlyList<string> Problems
    {
        get
        {
            lock (_gate)
                return [.. _reflector.Problems.Select(problem => $"{problem.Key}: {problem.Value}")];
        }
    }

    /// <summary>Counts of what ought to be there, for the log.</summary>
    public string Summary
    {
        get
        {
            lock (_gate)
                return string.Join(", ", _reflector.All.Select(publication => $"{publication.Count} {publication.Resource}"));
        }
    }

    /// <summary>Takes the objects over until cancelled.</summary>
    public async Task ReflectAsync(IObjectSource source, CancellationToken cancellation)
    {
        var problems = new Dictionary<string, string>(StringComparer.Ordinal);
        await foreach (var batch in source.WatchAsync(_reflector.Kinds, cancellation))
        {
            lock (_gate)
            {
                var wholeBefore = _reflector.All.Select(publication => publication.Resource).Where(_reflector.IsWhole).ToHashSet();
                if (_reflector.Apply(batch))
                    _complete.TrySetResult();
                foreach (var publication in _reflector.All)
                {
                    var changes = publication.TakeChanges();
                    Hand(publication, wholeBefore.Contains(publication.Resource) ? changes : publication.Wanted);
                }
                LogProblems(problems);
            }
        }
    }

    /// <summary>Writes whenever it is our turn, until cancelled.</summary>
    /// <param name="candidate">Our name in the election; null when nobody else can write to this etcd.</param>
    public async Task WriteAsync(EtcdKVStore store, Func<EtcdKVStore, IKVStore> measured, string? candidate, CancellationToken cancellation)
    {
        if (candidate is null)
        {
            await ServeTermAsync(measured(store), cancellation);
            return;
        }
        await using var election = new EtcdElection(store, ElectionKey, candidate, _options.WriterLease, _log);
        (_election, _candidate) = (election, candidate);
        // Who does not know yet what ought to be written must not be the one to delete what ought not.
        await _complete.Task.WaitAsync(cancellation);
        while (true)
            await RunTermAsync(store, measured, election, cancellation);
    }

    /// <summary>Completes when everything has been written once, by us or by the replica that writes.</summary>
    public async Task WaitUntilPublishedAsync(IKVStore store, CancellationToken cancellation)
    {
        while (!_published.Task.IsCompleted && !await IsPublishedByOtherAsync(store, cancellation))
        {
            await Task.WhenAny(_published.Task, Task.Delay(StandbyPause, _time, cancellation));
            cancellation.ThrowIfCancellationRequested();
        }
    }

    private async Task RunTermAsync(
        EtcdKVStore store, Func<EtcdKVStore, IKVStore> measured, EtcdElection election, CancellationToken cancellation)
    {
        var fence = await election.CampaignAsync(cancellation);
        _log($"elected: this replica writes, from revision {fence.ModRevision} on");
        using var end = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var lost = election.WaitForLossAsync(fence, end.Token);
        var serving = ServeTermAsync(measured(store.Behind(fence)), end.Token);
        await Task.WhenAny(lost, serving);
        await end.CancelAsync();
        await serving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (lost.IsCompletedSuccessfully)
            _log($"standing by: {await lost}");
        else if (cancellation.IsCancellationRequested)
            await ResignAsync(election, fence);
        await ((Task)lost).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (!cancellation.IsCancellationRequested && serving.IsFaulted)
            await serving;
        cancellation.ThrowIfCancellationRequested();
    }

    private async Task ResignAsync(EtcdElection election, WriteFence fence)
    {
        using var patience = new CancellationTokenSource(ResignPatience, _time);
        try
        {
            await election.ResignAsync(fence, patience.Token);
        }
        catch (Exception e) when (e is KVStoreException or OperationCanceledException)
        {
            _log($"election: not resigned, the next writer waits for our lease to end: {e.Message}");
        }
    }

    /// <summary>Writes until cancelled.</summary>
    private async Task ServeTermAsync(IKVStore store, CancellationToken cancellation)
    {
        try
        {
            await using var term = await Term.BeginAsync(
                store, _options, _reflector.All.Select(publication => publication.Resource), _time, _log, cancellation);
            _log($"cluster-config of {_options.Self.Name} (id {_options.Self.Id}) is written");
            Install(term);
            try
            {
                await term.WaitForSyncedAsync(cancellation);
                _published.TrySetResult();
                await Task.Delay(Timeout.InfiniteTimeSpan, _time, cancellation);
            }
            finally
            {
                Install(null);
            }
        }
        finally
        {
            await store.DisposeAsync();
        }
    }

    private void Install(Term? term)
    {
        lock (_gate)
        {
            _term = term;
            foreach (var publication in _reflector.All)
                Hand(publication, publication.Wanted);
        }
    }

    /// <summary>What cannot be complete is not called so: nothing of it is pruned, and no canary speaks for it.</summary>
    private void Hand(Publication publication, IEnumerable<KeyValuePair<string, byte[]?>> changes)
    {
        if (_reflector.IsWhole(publication.Resource))
            _term?.Hand(publication.Resource, changes, _complete.Task.IsCompleted && _reflector.IsComplete(publication.Resource));
    }

    private async Task<bool> IsPublishedByOtherAsync(IKVStore store, CancellationToken cancellation)
    {
        if (_election?.Holder is not { } holder || holder == _candidate)
            return false;
        try
        {
            return await store.CountAsync(Keys.SyncedPrefix(_options.Self.Name), cancellation) >= _reflector.All.Count;
        }
        catch (KVStoreException)
        {
            // The election says the same in the log.
            return false;
        }
    }

    private void LogProblems(Dictionary<string, string> known)
    {
        foreach (var (subject, message) in _reflector.Problems)
        {
            if (known.GetValueOrDefault(subject) != message)
                _log($"{subject}: {message}");
            known[subject] = message;
        }
        foreach (var subject in known.Keys.Except(_reflector.Problems.Keys).ToArray())
        {
            known.Remove(subject);
            _log($"{subject}: mended");
        }
    }
}
