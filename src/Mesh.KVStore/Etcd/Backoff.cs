namespace Mesh.KVStore;

/// <summary>Doubling waits with jitter: each is between half and the whole of its step, so that many clients of one server that
/// came back do not arrive together.</summary>
internal sealed class Backoff(TimeSpan min, TimeSpan max, TimeProvider time, Random random)
{
    private int _failures;

    public void Reset() => _failures = 0;

    public TimeSpan Next()
    {
        var step = Math.Min(min.TotalMilliseconds * Math.Pow(2, Math.Min(_failures, 20)), max.TotalMilliseconds);
        _failures++;
        double share;
        lock (random)
            share = random.NextDouble();
        return TimeSpan.FromMilliseconds(step * (0.5 + share / 2));
    }

    public Task WaitAsync(CancellationToken cancellation) => Task.Delay(Next(), time, cancellation);
}
