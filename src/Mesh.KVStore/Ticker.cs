namespace Mesh.KVStore;

/// <summary>
/// One timer for all who have to look at something every so often: hundreds of timers of their own would wake the processor as many
/// times, and each time for next to nothing. Runs while somebody listens. For any thread.
/// </summary>
public sealed class Ticker(TimeSpan interval, TimeProvider time)
{
    private readonly Lock _lock = new();
    private volatile Listener[] _listeners = [];
    private ITimer? _timer;

    /// <param name="tick">Called at each interval, one call after another; must be quick and must not throw.</param>
    /// <returns>Dispose to be called no more, except for a call that is under way.</returns>
    public IDisposable Each(Action tick)
    {
        var listener = new Listener(this, tick);
        lock (_lock)
        {
            _listeners = [.. _listeners, listener];
            _timer ??= time.CreateTimer(_ => Tick(), null, interval, interval);
        }
        return listener;
    }

    private void Tick()
    {
        foreach (var listener in _listeners)
            listener.Tick();
    }

    private void Leave(Listener listener)
    {
        lock (_lock)
        {
            _listeners = [.. _listeners.Where(other => other != listener)];
            if (_listeners.Length > 0)
                return;
            _timer?.Dispose();
            _timer = null;
        }
    }

    private sealed class Listener(Ticker of, Action tick) : IDisposable
    {
        public Action Tick { get; } = tick;

        public void Dispose() => of.Leave(this);
    }
}
