using System.Collections.Concurrent;
using System.Globalization;

namespace Mesh.KVStore;

/// <summary>
/// What all gRPC channels of the process send through: one HTTP handler, because each handler has a timer of its own for its pings that
/// wakes the processor every second, and an agent of 510 peers would have a thousand of them. Every channel has connections of its own
/// all the same: to the handler each goes to a host of its own name, and says at dialling where that is.
/// </summary>
internal sealed class SharedHttp : HttpMessageHandler
{
    /// <summary>How much the server may send on one stream before we have read it.</summary>
    private const int StreamWindowBytes = 4 * 1024 * 1024;

    private const string Domain = ".mesh.invalid";

    /// <summary>etcd closes connections whose pings come more often than every 5 s.</summary>
    private static readonly TimeSpan PingDelay = TimeSpan.FromSeconds(6);

    /// <summary>Where there are many, below what readers take for silence.</summary>
    private static readonly TimeSpan PingDelayOfMany = TimeSpan.FromSeconds(11);
    private static readonly TimeSpan PingTimeout = TimeSpan.FromSeconds(3);

    /// <summary>Channels that are pinged often; an etcd has two.</summary>
    private const int Many = 128;

    private static readonly ConcurrentDictionary<string, SharedHttp> Channels = new(StringComparer.OrdinalIgnoreCase);
    private static readonly HttpMessageInvoker Few = NewHandler(PingDelay);
    private static readonly HttpMessageInvoker Others = NewHandler(PingDelayOfMany);

    private static long _last;

    private readonly string _name = string.Create(CultureInfo.InvariantCulture, $"c{Interlocked.Increment(ref _last)}{Domain}");
    private readonly HttpMessageInvoker _handler = Channels.Count < Many ? Few : Others;
    private readonly Uri _address;
    private readonly Func<CancellationToken, ValueTask<Stream>> _dial;
    private readonly Lock _lock = new();
    private readonly List<Stream> _connections = [];
    private bool _disposed;

    /// <param name="address">Where the server is.</param>
    /// <param name="dial">Makes a connection there, with TLS if the scheme says so.</param>
    public SharedHttp(Uri address, Func<CancellationToken, ValueTask<Stream>> dial)
    {
        (_address, _dial) = (address, dial);
        Address = new UriBuilder(address) { Host = _name }.Uri;
        Channels[_name] = this;
    }

    /// <summary>What the channel is to be made for.</summary>
    public Uri Address { get; }

    private static HttpMessageInvoker NewHandler(TimeSpan pingDelay) => new(new SocketsHttpHandler
    {
        KeepAlivePingDelay = pingDelay,
        KeepAlivePingTimeout = PingTimeout,
        KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,
        PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
        EnableMultipleHttp2Connections = false,
        InitialHttp2StreamWindowSize = StreamWindowBytes,
        UseProxy = false,
        ConnectCallback = (context, cancellation) => Channels.TryGetValue(context.DnsEndPoint.Host, out var channel)
            ? channel.ConnectAsync(cancellation)
            : throw new ObjectDisposedException(nameof(SharedHttp)),
    });

    protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
    {
        // The name that the server is called by is its own.
        request.Headers.Host = _address.Authority;
        return _handler.SendAsync(request, cancellationToken);
    }

    /// <summary>Closes this channel's connections; the handler stays for the others.</summary>
    protected override void Dispose(bool disposing)
    {
        Stream[] connections;
        lock (_lock)
        {
            _disposed = true;
            connections = [.. _connections];
            _connections.Clear();
        }
        Channels.TryRemove(_name, out _);
        foreach (var connection in connections)
            connection.Dispose();
        base.Dispose(disposing);
    }

    private async ValueTask<Stream> ConnectAsync(CancellationToken cancellation)
    {
        var connection = await _dial(cancellation).ConfigureAwait(false);
        lock (_lock)
        {
            // What has been closed meanwhile cannot be read any more.
            _connections.RemoveAll(former => !former.CanRead);
            if (!_disposed)
            {
                _connections.Add(connection);
                return connection;
            }
        }
        await connection.DisposeAsync().ConfigureAwait(false);
        throw new ObjectDisposedException(nameof(SharedHttp));
    }
}
