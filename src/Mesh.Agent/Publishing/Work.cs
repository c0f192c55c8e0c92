using System.Threading.Channels;

namespace Mesh.Agent.Publishing;

/// <summary>
/// What is to be looked at again, each thing once however often it was touched. What fails comes back later, ever later, up to a bound;
/// nothing else waits for it.
/// </summary>
internal sealed class Work<TKey>(TimeProvider time, Random random, TimeSpan backoffMin, TimeSpan backoffMax)
    where TKey : notnull
{
    private readonly Lock _lock = new();
    private readonly HashSet<TKey> _touched = [];
    private readonly Dictionary<TKey, (int Failures, long Due)> _later = [];
    private readonly Channel<bool> _signal = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    /// <summary>Things that failed the last time.</summary>
    public int Failing
    {
        get
        {
            lock (_lock)
                return _later.Count;
        }
    }

    public void Touch(params IEnumerable<TKey> keys)
    {
        lock (_lock)
        {
            _touched.UnionWith(keys);
            if (_touched.Count > 0)
                _signal.Writer.TryWrite(true);
        }
    }

    /// <summary>Waits until there is something to do, and takes all of it.</summary>
    public async Task<IReadOnlyList<TKey>> TakeAsync(CancellationToken cancellation)
    {
        while (true)
        {
            TimeSpan? wait;
            lock (_lock)
            {
                var now = time.GetTimestamp();
                foreach (var (key, later) in _later)
                {
                    if (later.Due <= now)
                        _touched.Add(key);
                }
                if (_touched.Count > 0)
                {
                    var taken = _touched.ToList();
                    _touched.Clear();
                    return taken;
                }
                wait = _later.Count == 0 ? null : time.GetElapsedTime(now, _later.Values.Min(later => later.Due));
            }
            await WaitAsync(wait, cancellation);
        }
    }

    public void Done(TKey key)
    {
        lock (_lock)
            _later.Remove(key);
    }

    /// <param name="atLeast">What the server asked for.</param>
    public void Failed(TKey key, TimeSpan? atLeast)
    {
        lock (_lock)
        {
            var failures = _later.GetValueOrDefault(key).Failures + 1;
            var ceiling = Math.Min(backoffMax.TotalMilliseconds, backoffMin.TotalMilliseconds * Math.Pow(2, Math.Min(failures - 1, 20)));
            var wait = TimeSpan.FromMilliseconds(ceiling * (0.5 + random.NextDouble() / 2));
            if (atLeast > wait)
                wait = atLeast.Value;
            _later[key] = (failures, time.GetTimestamp() + (long)(wait.TotalSeconds * time.TimestampFrequency));
        }
    }

    private async Task WaitAsync(TimeSpan? wait, CancellationToken cancellation)
    {
        if (wait is null)
        {
            await _signal.Reader.ReadAsync(cancellation);
            return;
        }
        using var timer = new CancellationTokenSource(wait.Value < TimeSpan.Zero ? TimeSpan.Zero : wait.Value, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, timer.Token);
        try
        {
            await _signal.Reader.ReadAsync(either.Token);
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // Something that failed is due.
        }
    }
}
