using System.Collections.Concurrent;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>A reader of the services as an agent is one: it lists, follows, and keeps what it has when it hears nothing more.</summary>
internal sealed class Watching : IAsyncDisposable
{
    private const string Prefix = "cilium/state/services/v1/tokyo/shop/";

    private readonly ConcurrentDictionary<string, string> _held = new(StringComparer.Ordinal);
    private readonly ConcurrentQueue<string> _deleted = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _reading;
    private readonly HashSet<string> _listed = [];

    public Watching(EtcdKVStore store)
    {
        Store = store;
        _reading = Task.Run(ReadAsync);
    }

    public EtcdKVStore Store { get; }

    /// <summary>Why the watch ended for good.</summary>
    public KVStoreException? Ended { get; private set; }

    public bool IsCut => Ended is not null || !Store.Status.Connected;

    /// <summary>Names of services that were taken away, in order.</summary>
    public IReadOnlyCollection<string> Deleted => _deleted;

    public bool Has(string service) => _held.ContainsKey(Prefix + service);

    public string? Text(string service) => _held.GetValueOrDefault(Prefix + service);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _reading;
        await Store.DisposeAsync();
        _stop.Dispose();
    }

    private async Task ReadAsync()
    {
        try
        {
            await foreach (var batch in Store.ListWatchAsync(Prefix, _stop.Token))
                Apply(batch);
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            return;
        }
        catch (KVStoreException e)
        {
            Ended = e;
        }
    }

    private void Apply(WatchBatch batch)
    {
        if (batch.Kind == WatchBatchKind.ListStart)
            _listed.Clear();
        foreach (var item in batch.Events)
        {
            _listed.Add(item.Key);
            if (batch.Kind == WatchBatchKind.Put)
                _held[item.Key] = System.Text.Encoding.UTF8.GetString(item.Value.Span);
            else
                Drop(item.Key);
        }
        if (batch.Kind != WatchBatchKind.ListEnd)
            return;
        foreach (var key in _held.Keys.Where(key => !_listed.Contains(key)))
            Drop(key);
    }

    private void Drop(string key)
    {
        if (_held.TryRemove(key, out _))
            _deleted.Enqueue(key[Prefix.Length..]);
    }
}
