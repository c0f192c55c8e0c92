using System.Diagnostics;
using Mesh.Model;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Sees when an address appears in an agent's kernel map: a thread in SCHED_FIFO that looks every
/// <see cref="LookEveryMicroseconds"/> and sleeps in between, for the reasons told at <see cref="Propagation"/>.</summary>
internal sealed class KernelEye : IDisposable
{
    private const int LookEveryMicroseconds = 25;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private readonly AgentProcess _agent;
    private readonly Thread _thread;
    private Order? _order;
    private volatile bool _stop;

    public KernelEye(AgentProcess agent)
    {
        _agent = agent;
        _thread = new Thread(Run) { IsBackground = true, Name = "observer" };
        _thread.Start();
    }

    /// <summary>Time stamp of its first sight.</summary>
    public Task<long> Watch(IpAddr address)
    {
        var order = new Order(address, new(TaskCreationOptions.RunContinuationsAsynchronously));
        Volatile.Write(ref _order, order);
        return order.Seen.Task;
    }

    public void Dispose()
    {
        _stop = true;
        _thread.Join();
    }

    private void Run()
    {
        Native.RunAtOnce();
        while (!_stop)
        {
            Native.SleepMicroseconds(LookEveryMicroseconds);
            if (Interlocked.Exchange(ref _order, null) is not { } order)
                continue;
            try
            {
                order.Seen.SetResult(Watch(order));
            }
            catch (Exception failure)
            {
                order.Seen.SetException(failure);
            }
        }
    }

    private long Watch(Order order)
    {
        var start = Stopwatch.GetTimestamp();
        while (_agent.IdentityOf(order.Address) == 0)
        {
            if (_stop || Stopwatch.GetElapsedTime(start) > Patience)
                throw new TimeoutException($"{order.Address} is not in the kernel after {Patience.TotalSeconds} s");
            Native.SleepMicroseconds(LookEveryMicroseconds);
        }
        return Stopwatch.GetTimestamp();
    }

    private sealed record Order(IpAddr Address, TaskCompletionSource<long> Seen);
}
