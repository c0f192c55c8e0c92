using System.Threading.Channels;
using Mesh.Model;

namespace Mesh.Operator.Multicluster;

/// <summary>Services that have to be looked at: each once, however often it was touched, and again a while after a failure. One reader.</summary>
internal sealed class DueServices(TimeProvider time)
{
    /// <summary>What is touched within this time is looked at together: a rollout is many events.</summary>
    private static readonly TimeSpan Gathering = TimeSpan.FromMilliseconds(50);

    private static readonly TimeSpan FirstRetry = TimeSpan.FromMilliseconds(200);
    private static readonly TimeSpan LongestRetry = TimeSpan.FromSeconds(30);

    private readonly Lock _lock = new();
    private readonly HashSet<ServiceName> _due = [];
    private readonly Dictionary<ServiceName, (int Failures, DateTimeOffset At)> _failed = [];
    private readonly Channel<bool> _wake = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });

    public void Touch(ServiceName name)
    {
        lock (_lock)
            _due.Add(name);
        _wake.Writer.TryWrite(true);
    }

    public void Touch(IEnumerable<ServiceName> names)
    {
        lock (_lock)
            _due.UnionWith(names);
        _wake.Writer.TryWrite(true);
    }

    public void Done(ServiceName name)
    {
        lock (_lock)
            _failed.Remove(name);
    }

    public void Failed(ServiceName name, TimeSpan? after)
    {
        lock (_lock)
        {
            var failures = _failed.GetValueOrDefault(name).Failures + 1;
            var pause = FirstRetry * Math.Pow(2, Math.Min(failures - 1, 10));
            pause = after > pause ? after.Value : pause < LongestRetry ? pause : LongestRetry;
            _failed[name] = (failures, time.GetUtcNow() + pause);
        }
    }

    /// <summary>Waits for some, and takes them.</summary>
    public async Task<IReadOnlyList<ServiceName>> TakeAsync(CancellationToken cancellation)
    {
        while (true)
        {
            TimeSpan? wait = null;
            lock (_lock)
            {
                var now = time.GetUtcNow();
                foreach (var (name, (failures, at)) in _failed.Where(pair => pair.Value.At <= now).ToList())
                {
                    _due.Add(name);
                    _failed[name] = (failures, DateTimeOffset.MaxValue);
                }
                if (_due.Count == 0 && _failed.Count > 0 && _failed.Values.Min(failed => failed.At) is var next && next < DateTimeOffset.MaxValue)
                    wait = next - now;
            }
            if (IsDue)
            {
                await Task.Delay(Gathering, time, cancellation);
                return Taken();
            }
            using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            await Task.WhenAny(_wake.Reader.ReadAsync(enough.Token).AsTask(), Task.Delay(wait ?? Timeout.InfiniteTimeSpan, time, enough.Token));
            await enough.CancelAsync();
            cancellation.ThrowIfCancellationRequested();
        }
    }

    private bool IsDue
    {
        get
        {
            lock (_lock)
                return _due.Count > 0;
        }
    }

    private List<ServiceName> Taken()
    {
        lock (_lock)
        {
            var taken = _due.ToList();
            _due.Clear();
            return taken;
        }
    }
}
