using System.Text;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>A reader as consumers are: keeps what it was told, deletes at ListEnd what was not listed, counts what happened.</summary>
internal sealed class Reader : IAsyncDisposable
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly Lock _lock = new();
    private readonly SortedDictionary<string, string> _items = new(StringComparer.Ordinal);
    private readonly Dictionary<string, long> _revisions = [];
    private readonly HashSet<string> _listed = [];
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _loop;
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _listing;

    public Reader(IKVStore store, string prefix) => _loop = Task.Run(() => ReadAsync(store, prefix));

    /// <summary>Finished lists: 1 as long as nothing made it list again.</summary>
    public int Lists { get; private set; }

    /// <summary>Put and delete events outside of lists.</summary>
    public int Events { get; private set; }

    /// <summary>Events older than one of the same key before: must stay 0.</summary>
    public int Backwards { get; private set; }

    public Action? OnEvent { get; set; }

    /// <summary>What the reader believes: "key=value key=value" in key order.</summary>
    public string State
    {
        get
        {
            lock (_lock)
                return string.Join(' ', _items.Select(i => $"{i.Key}={i.Value}"));
        }
    }

    public Task UntilAsync(string state) => UntilAsync(() => Lists > 0 && !_listing && State == state, () => $"expected '{state}'");

    public async Task UntilAsync(Func<bool> holds, Func<string>? expected = null)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(Patience);
        while (true)
        {
            Task changed;
            lock (_lock)
            {
                if (holds())
                    return;
                changed = _changed.Task;
            }
            if (_loop.IsCompleted)
                await _loop;
            try
            {
                await Task.WhenAny(changed, _loop).WaitAsync(patience.Token);
            }
            catch (OperationCanceledException)
            {
                var state = State;
                Assert.Fail($"not reached in {Patience.TotalSeconds} s: {expected?.Invoke()}; lists {Lists}, events {Events}, " +
                    $"state '{(state.Length > 500 ? state[..500] + "…" : state)}'");
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _loop.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task ReadAsync(IKVStore store, string prefix)
    {
        await foreach (var batch in store.ListWatchAsync(prefix, _stop.Token))
        {
            TaskCompletionSource changed;
            lock (_lock)
            {
                Apply(batch);
                changed = _changed;
                _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
            }
            changed.SetResult();
            OnEvent?.Invoke();
        }
    }

    private void Apply(WatchBatch batch)
    {
        switch (batch.Kind)
        {
            case WatchBatchKind.ListStart:
                _listing = true;
                _listed.Clear();
                _revisions.Clear();
                break;
            case WatchBatchKind.ListEnd:
                foreach (var gone in _items.Keys.Where(k => !_listed.Contains(k)).ToArray())
                    _items.Remove(gone);
                _listing = false;
                Lists++;
                break;
            default:
                foreach (var item in batch.Events)
                {
                    if (_revisions.TryGetValue(item.Key, out var before) && before >= item.ModRevision)
                        Backwards++;
                    _revisions[item.Key] = item.ModRevision;
                    if (batch.Kind == WatchBatchKind.Put)
                        _items[item.Key] = Encoding.UTF8.GetString(item.Value.Span);
                    else
                        _items.Remove(item.Key);
                    if (_listing)
                        _listed.Add(item.Key);
                    else
                        Events++;
                }
                break;
        }
    }
}
