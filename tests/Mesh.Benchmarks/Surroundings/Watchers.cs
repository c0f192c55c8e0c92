using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Net.Client;
using Mesh.TestKit;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// Many watches of one prefix, by clients that do next to nothing: several on a connection, each on a stream of its own. Values that
/// begin with <see cref="Mark"/> carry the time of their put.
/// </summary>
internal sealed class Watchers : IAsyncDisposable
{
    private static readonly TimeSpan CreationPatience = TimeSpan.FromSeconds(60);
    private readonly CancellationTokenSource _stop = new();
    private readonly List<RawReader> _readers = [];
    private readonly List<Task> _loops = [];
    private readonly CountdownEvent _created;

    private Watchers(int room, int watchers)
    {
        Latencies = new Latencies(room);
        _created = new CountdownEvent(watchers);
    }

    public static ReadOnlySpan<byte> Mark => "<MESHMARK>"u8;

    public Latencies Latencies { get; }

    /// <param name="room">Deliveries that can be noted.</param>
    /// <returns>When the server has confirmed every watch.</returns>
    public static async Task<Watchers> StartAsync(
        EtcdServer etcd, int port, string reader, string prefix, int watchers, int connections, int room, CancellationToken cancellation)
    {
        var all = new Watchers(room, watchers);
        try
        {
            await all.ConnectAsync(etcd, port, reader, prefix, watchers, connections, cancellation);
            return all;
        }
        catch
        {
            await all.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        foreach (var reader in _readers)
            await reader.DisposeAsync();
        await Task.WhenAll(_loops).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _created.Dispose();
        _stop.Dispose();
    }

    private async Task ConnectAsync(
        EtcdServer etcd, int port, string reader, string prefix, int watchers, int connections, CancellationToken cancellation)
    {
        var create = new WatchRequest
        {
            CreateRequest = new WatchCreateRequest
            {
                Key = ByteString.CopyFromUtf8(prefix),
                RangeEnd = ByteString.CopyFromUtf8(prefix[..^1] + (char)(prefix[^1] + 1)),
            },
        }.ToByteArray();
        var tls = DoorProcess.Tls(etcd, reader);
        for (var i = 0; i < connections; i++)
        {
            cancellation.ThrowIfCancellationRequested();
            var raw = await RawReader.ConnectAsync("127.0.0.1", port, tls, cancellation: cancellation);
            raw.OnMessage = (_, message) => Take(message.Span);
            _readers.Add(raw);
            _loops.Add(raw.ReadAsync(_stop.Token));
            for (var watcher = i; watcher < watchers; watcher += connections)
            {
                var stream = (2 * (watcher / connections)) + 1;
                await raw.OpenAsync(stream, "/etcdserverpb.Watch/Watch");
                await raw.SendAsync(stream, create);
            }
        }
        if (!_created.Wait(CreationPatience, cancellation))
            throw new InvalidOperationException($"{_created.CurrentCount} of {watchers} watches were not created");
    }

    private void Take(ReadOnlySpan<byte> message)
    {
        var now = Stopwatch.GetTimestamp();
        var any = false;
        while (message.IndexOf(Mark) is var at and >= 0)
        {
            message = message[(at + Mark.Length)..];
            Latencies.Add(now - MemoryMarshal.Read<long>(message));
            any = true;
        }
        if (!any && _created.CurrentCount > 0)
            _created.Signal();
    }
}

/// <summary>Every latency of a round; room for all is made beforehand.</summary>
internal sealed class Latencies(int room)
{
    private readonly long[] _ticks = new long[room];
    private int _count;

    public volatile bool Recording;

    public long Count => Math.Min(Volatile.Read(ref _count), _ticks.Length);

    public void Add(long ticks)
    {
        if (!Recording)
            return;
        var at = Interlocked.Increment(ref _count) - 1;
        if (at < _ticks.Length)
            _ticks[at] = ticks;
    }

    /// <summary>In microseconds.</summary>
    public Sample Sample() => new(_ticks.Take((int)Count).Select(ticks => ticks * 1e6 / Stopwatch.Frequency));

    /// <summary>Waits until so many have arrived, or nothing more does.</summary>
    public async Task UntilAsync(long expected, TimeSpan patience, CancellationToken cancellation)
    {
        for (var clock = Stopwatch.StartNew(); Count < expected && clock.Elapsed < patience;)
            await Task.Delay(20, cancellation);
    }
}

/// <summary>Puts at a steady pace, never waiting for one before the next is due, each with the time it began.</summary>
internal sealed class SteadyWriter : IDisposable
{
    public const int ValueBytes = 250;
    private const int Keys = 500;
    private readonly GrpcChannel _channel;
    private readonly KV.KVClient _kv;
    private readonly string _prefix;

    public SteadyWriter(EtcdServer etcd, string prefix)
    {
        _prefix = prefix;
        _channel = GrpcChannel.ForAddress(etcd.Endpoint, new GrpcChannelOptions
        {
            HttpHandler = new SocketsHttpHandler { SslOptions = DoorProcess.Tls(etcd, "root") },
            DisposeHttpClient = true,
        });
        _kv = new KV.KVClient(_channel);
    }

    /// <returns>Puts that etcd took, by its own revision: it refuses some when it cannot keep up, and takes some too late to say so.</returns>
    public async Task<long> WriteAsync(int rate, int count, CancellationToken cancellation)
    {
        var before = await RevisionAsync(cancellation);
        var puts = new List<Task>();
        var began = Stopwatch.GetTimestamp();
        for (var i = 0; i < count; i++)
        {
            var wait = Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), began + (i * Stopwatch.Frequency / rate));
            if (wait > TimeSpan.Zero)
                await Task.Delay(wait, cancellation);
            var value = new byte[ValueBytes];
            Watchers.Mark.CopyTo(value);
            var now = Stopwatch.GetTimestamp();
            MemoryMarshal.Write(value.AsSpan(Watchers.Mark.Length), in now);
            puts.Add(_kv.PutAsync(new PutRequest
            {
                Key = ByteString.CopyFromUtf8(string.Create(CultureInfo.InvariantCulture, $"{_prefix}{i % Keys:d4}")),
                Value = UnsafeByteOperations.UnsafeWrap(value),
            }, cancellationToken: cancellation).ResponseAsync);
        }
        await Task.WhenAll(puts).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        cancellation.ThrowIfCancellationRequested();
        return await RevisionAsync(cancellation) - before;
    }

    private async Task<long> RevisionAsync(CancellationToken cancellation) =>
        (await _kv.RangeAsync(new RangeRequest { Key = ByteString.CopyFromUtf8(_prefix) }, cancellationToken: cancellation)).Header.Revision;

    public void Dispose() => _channel.Dispose();
}
