using System.Globalization;
using System.Text;

namespace Mesh.KVStore;

/// <summary>The key that tells readers that a prefix is complete. Its value is the time of writing; only its presence on our present
/// lease matters.</summary>
internal sealed class SyncCanary(IKVStore store, string key, LeasePool? leases, TimeProvider time, Action wake)
{
    private readonly Lock _lock = new();
    private KVLease? _lease;
    private bool _present;
    private bool _seen;
    private long _actualLease;

    public string Key { get; } = key;

    /// <summary>It stands in the store as it should.</summary>
    public bool Written
    {
        get
        {
            lock (_lock)
                return IsRight_NeedsLock();
        }
    }

    public bool NeedsWriting => !Written;

    public ValueTask ApplyAsync(WatchBatch batch)
    {
        lock (_lock)
        {
            switch (batch.Kind)
            {
                case WatchBatchKind.ListStart:
                    _seen = false;
                    break;
                case WatchBatchKind.ListEnd:
                    _present &= _seen;
                    break;
                default:
                    foreach (var item in batch.Events)
                    {
                        if (item.Key != Key)
                            continue;
                        _seen = true;
                        _present = batch.Kind == WatchBatchKind.Put;
                        _actualLease = item.Lease;
                    }
                    break;
            }
        }
        return ValueTask.CompletedTask;
    }

    public async Task WriteAsync(CancellationToken cancellation)
    {
        if (leases is not null && _lease is null)
        {
            var acquired = await leases.AcquireAsync(cancellation).ConfigureAwait(false);
            lock (_lock)
                _lease = acquired;
        }
        var now = Encoding.UTF8.GetBytes(time.GetUtcNow().ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture));
        await store.WriteAsync([new WriteOperation(Key, now, _lease)], cancellation).ConfigureAwait(false);
        lock (_lock)
        {
            _present = true;
            _seen = true;
            _actualLease = _lease?.Id ?? 0;
        }
        wake();
    }

    private bool IsRight_NeedsLock() => _present && (leases is null ? _actualLease == 0 : _lease is not null && _actualLease == _lease.Id);
}
