using System.Diagnostics;
using System.Globalization;
using System.IO.Pipes;
using System.Text;
using Mesh.Benchmarks.Surroundings;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A change in one cluster's etcd → visible in another cluster's kernel map, next to a bare `etcdctl watch`.
///
/// Each put is one new address, written by one client to one etcd (TLS, no disk sync) that both follow at the same time: the real
/// mesh-agent, and etcdctl watching the same prefix. Both times run from the start of the same put. One thread observes both: every
/// <see cref="LookEveryMicroseconds"/> it reads etcdctl's standard output without waiting, then looks the address up in the pinned
/// map; half of the time the other way round. So neither pays for the wake-up of a reader of its own, and both are seen with the
/// same delay. The thread is in SCHED_FIFO, for one that waits for a CPU until both are done would find no difference between them;
/// and it sleeps between its looks, so that it leaves the CPUs to those whom it measures. Puts are 3 to 9 ms apart, so that
/// everybody sleeps when the next one comes. Which of the two is started first alternates by round, as etcd serves its watchers in
/// some order.
/// </summary>
internal static class Propagation
{
    private const int Rounds = 8;
    private const int PutsPerRound = 250;
    private const int WarmUpPuts = 25;
    private const int LookEveryMicroseconds = 25;
    private const double Aim = 1.5;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    public static async Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var peer = await PeerCluster.StartAsync(cancellation);
        var kernel = new List<double>();
        var watch = new List<double>();
        var looks = new List<double>();
        var address = 0;
        for (var round = 0; round < Rounds; round++)
        {
            var agentFirst = round % 2 == 0;
            var agent = agentFirst ? await ReadyAgentAsync(node, peer, cancellation) : null;
            using var etcdctl = new EtcdctlWatch(peer.Etcd);
            await etcdctl.ReadyAsync(peer, cancellation);
            agent ??= await ReadyAgentAsync(node, peer, cancellation);
            await using var stopAgent = agent;
            using var observer = new Observer(agent, etcdctl, looks);
            for (var put = 0; put < WarmUpPuts + PutsPerRound; put++)
            {
                cancellation.ThrowIfCancellationRequested();
                var (inKernel, inWatch) = await ObserveAsync(peer, observer, PeerCluster.PodAddress(address++), cancellation);
                if (put >= WarmUpPuts)
                {
                    kernel.Add(inKernel);
                    watch.Add(inWatch);
                }
                await Task.Delay(Random.Shared.Next(3, 10), cancellation);
            }
        }
        Tell(report, kernel, watch, looks);
    }

    private static void Tell(Report report, List<double> kernel, List<double> watch, List<double> looks)
    {
        var (ours, peer) = (new Sample(kernel), new Sample(watch));
        var ratio = ours.P50 / peer.P50;
        report.Add($"change in a peer's etcd → kernel map ({ours.Count} puts)", ours.Milliseconds(),
            $"etcdctl watch: {peer.Milliseconds()}", ratio,
            $"p50 ≤ {Aim.ToString(CultureInfo.InvariantCulture)} × etcdctl's", ratio <= Aim);
        report.Add("  its p99 next to etcdctl's", string.Create(CultureInfo.InvariantCulture, $"{ours.P99 / 1000:0.00} ms"),
            string.Create(CultureInfo.InvariantCulture, $"{peer.P99 / 1000:0.00} ms"), ours.P99 / peer.P99);
        report.Add("  in the kernel after etcdctl's line (same put)",
            new Sample(kernel.Zip(watch, (inKernel, inWatch) => inKernel - inWatch)).Milliseconds());
        report.Add("  time between two looks of the observer", new Sample(looks).Milliseconds());
    }

    private static async Task<AgentProcess> ReadyAgentAsync(Node node, PeerCluster peer, CancellationToken cancellation)
    {
        var agent = AgentProcess.Start(node, peer);
        await agent.ReadyAsync(cancellation);
        return agent;
    }

    /// <summary>Microseconds from the start of the put.</summary>
    private static async Task<(double Kernel, double Watch)> ObserveAsync(
        PeerCluster peer, Observer observer, IpAddr address, CancellationToken cancellation)
    {
        var entry = PeerCluster.Entry(address.ToString(), PeerCluster.Identity(1));
        var seen = observer.Observe(address, entry.Key);
        var start = Stopwatch.GetTimestamp();
        await peer.Store.WriteAsync([entry], cancellation);
        var (kernel, watch) = await seen;
        return (Stopwatch.GetElapsedTime(start, kernel).TotalMicroseconds, Stopwatch.GetElapsedTime(start, watch).TotalMicroseconds);
    }

    /// <summary>The thread that sees both.</summary>
    private sealed class Observer : IDisposable
    {
        private readonly AgentProcess _agent;
        private readonly EtcdctlWatch _etcdctl;
        private readonly Thread _thread;
        private Order? _order;
        private readonly List<double> _looks;
        private volatile bool _stop;
        private bool _kernelFirst;

        public Observer(AgentProcess agent, EtcdctlWatch etcdctl, List<double> looks)
        {
            _looks = looks;
            _agent = agent;
            _etcdctl = etcdctl;
            _thread = new Thread(Run) { IsBackground = true, Name = "observer" };
            _thread.Start();
        }

        /// <summary>Time stamps of the first sight of each.</summary>
        public Task<(long Kernel, long Watch)> Observe(IpAddr address, string key)
        {
            var order = new Order(address, key, new(TaskCreationOptions.RunContinuationsAsynchronously));
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

        private (long Kernel, long Watch) Watch(Order order)
        {
            long kernel = 0, watch = 0;
            var start = Stopwatch.GetTimestamp();
            var last = start;
            for (_kernelFirst = !_kernelFirst; kernel == 0 || watch == 0; Native.SleepMicroseconds(LookEveryMicroseconds))
            {
                if (_kernelFirst)
                    LookAtKernel(order, ref kernel);
                if (watch == 0 && _etcdctl.HasSaid(order.Key))
                    watch = Stopwatch.GetTimestamp();
                if (!_kernelFirst)
                    LookAtKernel(order, ref kernel);
                var now = Stopwatch.GetTimestamp();
                _looks.Add(Stopwatch.GetElapsedTime(last, now).TotalMicroseconds);
                last = now;
                if (_stop || Stopwatch.GetElapsedTime(start) > Patience)
                {
                    throw new TimeoutException(
                        $"{order.Key}: {(watch == 0 ? "etcdctl" : "the agent")} has not got it after {Patience.TotalSeconds} s");
                }
            }
            return (kernel, watch);
        }

        private void LookAtKernel(Order order, ref long seen)
        {
            if (seen == 0 && _agent.IdentityOf(order.Address) != 0)
                seen = Stopwatch.GetTimestamp();
        }

        private sealed record Order(IpAddr Address, string Key, TaskCompletionSource<(long Kernel, long Watch)> Seen);
    }

    /// <summary>`etcdctl watch --prefix` on the addresses, and what it has printed.</summary>
    private sealed class EtcdctlWatch : IDisposable
    {
        private readonly Process _process;
        private readonly int _output;
        private readonly byte[] _buffer = new byte[65536];
        private int _length;

        public EtcdctlWatch(EtcdServer etcd)
        {
            _process = Process.Start(etcd.EtcdctlInfo("watch", "--prefix", "cilium/state/ip/v1/default/"))!;
            var pipe = (AnonymousPipeClientStream)_process.StandardOutput.BaseStream;
            _output = (int)pipe.SafePipeHandle.DangerousGetHandle();
        }

        /// <summary>Writes until a write has been seen: etcdctl does not tell when its watch stands.</summary>
        public async Task ReadyAsync(PeerCluster peer, CancellationToken cancellation)
        {
            var entry = PeerCluster.Entry("10.2.255.253", PeerCluster.Identity(1));
            for (var clock = Stopwatch.StartNew(); !HasSaid(entry.Key); await Task.Delay(20, cancellation))
            {
                if (clock.Elapsed > Patience)
                    throw new TimeoutException("etcdctl watch prints nothing");
                await peer.Store.WriteAsync([entry], cancellation);
            }
            // The rest of those writes.
            await Task.Delay(100, cancellation);
            HasSaid(entry.Key);
        }

        /// <summary>True once after the line with this key has been printed.</summary>
        public bool HasSaid(string key)
        {
            var read = Native.ReadPresent(_output, _buffer.AsSpan(_length));
            if (read == 0)
                return false;
            _length += read;
            // The event's first line is "PUT", its second the key.
            if (_buffer.AsSpan(0, _length).IndexOf(Encoding.ASCII.GetBytes($"\n{key}\n")) < 0)
                return false;
            _length = 0;
            return true;
        }

        public void Dispose()
        {
            _process.Kill();
            _process.WaitForExit();
            _process.Dispose();
        }
    }
}
