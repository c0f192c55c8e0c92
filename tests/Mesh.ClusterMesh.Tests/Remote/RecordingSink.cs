using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>A sink that keeps the state a control plane would keep, and lets a test wait for it.</summary>
internal sealed class RecordingSink : IRemoteClusterSink
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly Lock _lock = new();
    private TaskCompletionSource _changed = NewSignal();

    public Dictionary<(string Cluster, string Node), NodeRecord> Nodes { get; } = [];

    public Dictionary<(string Cluster, ServiceName Service), ClusterService> Services { get; } = [];

    public Dictionary<(string Cluster, IpPrefix Prefix), IpIdentityPair> IpEntries { get; } = [];

    public Dictionary<(string Cluster, uint Identity), string> Identities { get; } = [];

    public Dictionary<(string Cluster, ServiceName Service), ExportedService> Exports { get; } = [];

    public Dictionary<string, RemoteClusterStatus> Statuses { get; } = [];

    public List<(string Cluster, uint ClusterId)> Drains { get; } = [];

    /// <summary>Number of ip entries of each batch that had some.</summary>
    public List<int> IpBatches { get; } = [];

    /// <summary>Deletions handed on since the start, drains aside.</summary>
    public int Deletions { get; private set; }

    /// <summary>Backends taken out of services since the start, by whatever message.</summary>
    public int BackendsLost { get; private set; }

    public int Backends => Services.Values.Sum(service => service.Backends?.Count ?? 0);

    public int SyncedMessages { get; private set; }

    /// <summary>While reset, Apply waits: a sink that has much to do.</summary>
    public ManualResetEventSlim Open { get; } = new(initialState: true);

    public void Apply(RemoteChanges changes)
    {
        Open.Wait(Patience);
        Change(() => Take(changes));
    }

    private void Take(RemoteChanges changes)
    {
        foreach (var (name, node) in changes.Nodes)
            Set(Nodes, (changes.Cluster, name), node);
        foreach (var (name, service) in changes.Services)
        {
            var before = Services.TryGetValue((changes.Cluster, name), out var known) ? known.Backends?.Keys ?? [] : [];
            BackendsLost += before.Except(service?.Backends?.Keys ?? []).Count();
            Set(Services, (changes.Cluster, name), service);
        }
        foreach (var (prefix, pair) in changes.IpEntries)
            Set(IpEntries, (changes.Cluster, prefix), pair);
        foreach (var (identity, labels) in changes.Identities)
            Set(Identities, (changes.Cluster, identity), labels);
        foreach (var (name, export) in changes.ServiceExports)
            Set(Exports, (changes.Cluster, name), export);
        if (changes.IpEntries.Count > 0)
            IpBatches.Add(changes.IpEntries.Count);
        SyncedMessages += changes.Synced.Count;
    }

    private void Set<TKey, TRecord>(Dictionary<TKey, TRecord> table, TKey key, TRecord? record)
        where TKey : notnull
        where TRecord : class
    {
        if (record is not null)
        {
            table[key] = record;
            return;
        }
        Deletions++;
        table.Remove(key);
    }

    public void Drain(string cluster, uint clusterId) => Change(() =>
    {
        Drains.Add((cluster, clusterId));
        Forget(Nodes, key => key.Cluster == cluster);
        Forget(Services, key => key.Cluster == cluster);
        Forget(IpEntries, key => key.Cluster == cluster);
        Forget(Identities, key => key.Cluster == cluster);
        Forget(Exports, key => key.Cluster == cluster);
        Statuses.Remove(cluster);
    });

    private static void Forget<TKey, TRecord>(Dictionary<TKey, TRecord> table, Func<TKey, bool> matches)
        where TKey : notnull
    {
        foreach (var key in table.Keys.Where(matches).ToList())
            table.Remove(key);
    }

    public void StatusChanged(RemoteClusterStatus status) => Change(() => Statuses[status.Name] = status);

    /// <summary>What the tables hold, one word per record, sorted.</summary>
    public string Text => Read(sink => string.Join(' ', sink.Nodes.Keys.Select(key => $"{key.Cluster}/{key.Node}")
        .Concat(sink.Services.Keys.Select(key => $"{key.Cluster}:{key.Service}"))
        .Concat(sink.IpEntries.Select(entry => $"{entry.Key.Cluster}:{entry.Key.Prefix}={entry.Value.ID}"))
        .Concat(sink.Identities.Keys.Select(key => $"{key.Cluster}#{key.Identity}"))
        .Order(StringComparer.Ordinal)));

    public T Read<T>(Func<RecordingSink, T> read)
    {
        lock (_lock)
            return read(this);
    }

    /// <summary>Waits until the condition holds; fails with what there is instead.</summary>
    public async Task UntilAsync(Func<RecordingSink, bool> condition, string what)
    {
        using var deadline = new CancellationTokenSource(Patience);
        while (true)
        {
            Task changed;
            lock (_lock)
            {
                if (condition(this))
                    return;
                changed = _changed.Task;
            }
            try
            {
                await changed.WaitAsync(deadline.Token);
            }
            catch (OperationCanceledException)
            {
                var statuses = Read(sink => string.Join("; ", sink.Statuses.Values.Select(status => status.ToString())));
                throw new TimeoutException($"not within {Patience}: {what}. There is: {Text}. Statuses: {statuses}");
            }
        }
    }

    public Task UntilReadyAsync(string cluster) =>
        UntilAsync(sink => sink.Statuses.TryGetValue(cluster, out var status) && status.Ready, $"{cluster} ready");

    public Task UntilStatusAsync(string cluster, string text) => UntilAsync(
        sink => sink.Statuses.TryGetValue(cluster, out var status) && status.Status.Contains(text, StringComparison.Ordinal),
        $"the status of {cluster} says '{text}'");

    private void Change(Action change)
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            change();
            changed = _changed;
            _changed = NewSignal();
        }
        changed.TrySetResult();
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);
}
