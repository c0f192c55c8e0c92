namespace Mesh.ClusterMesh.Imports;

/// <summary>
/// How fast one peer's records are taken: a bucket that holds some and fills at a rate. Whoever takes more waits, which stops
/// reading that peer's streams and so makes its own store hold its changes back; nobody else notices. For any thread.
/// </summary>
/// <param name="capacity">What may come at once.</param>
/// <param name="perSecond">Rate of refill.</param>
internal sealed class EventAllowance(long capacity, double perSecond, TimeProvider time)
{
    private readonly Lock _lock = new();
    private double _left = capacity;
    private long _at = time.GetTimestamp();

    /// <summary>Time spent waiting so far, all takers together.</summary>
    public TimeSpan Waited { get; private set; }

    public ValueTask TakeAsync(int count, CancellationToken cancellation)
    {
        TimeSpan wait;
        lock (_lock)
        {
            var now = time.GetTimestamp();
            _left = Math.Min(capacity, _left + time.GetElapsedTime(_at, now).TotalSeconds * perSecond) - count;
            _at = now;
            if (_left >= 0)
                return ValueTask.CompletedTask;
            // A debt: later takers wait behind this one.
            wait = TimeSpan.FromSeconds(-_left / perSecond);
            Waited += wait;
        }
        return new ValueTask(Task.Delay(wait, time, cancellation));
    }
}

/// <summary>Bounds what one peer's readers have read and its loop has not yet applied, in records, whatever the size of the batches.</summary>
internal sealed class InFlight(int most)
{
    private readonly Lock _lock = new();
    private readonly Queue<(int Count, TaskCompletionSource Free)> _waiting = [];
    private int _count;

    /// <summary>Waits for room. A batch larger than all of it gets in alone.</summary>
    public async ValueTask EnterAsync(int count, CancellationToken cancellation)
    {
        TaskCompletionSource free;
        lock (_lock)
        {
            if (_waiting.Count == 0 && (_count == 0 || _count + count <= most))
            {
                _count += count;
                return;
            }
            free = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            _waiting.Enqueue((count, free));
        }
        // A cancelled reader leaves its place behind: with one connection's readers all end together.
        await free.Task.WaitAsync(cancellation);
    }

    public void Leave(int count)
    {
        lock (_lock)
        {
            _count -= count;
            while (_waiting.TryPeek(out var next) && (_count == 0 || _count + next.Count <= most))
            {
                _waiting.Dequeue();
                _count += next.Count;
                next.Free.TrySetResult();
            }
        }
    }
}
