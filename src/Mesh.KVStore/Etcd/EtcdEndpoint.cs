using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using Etcdserverpb;
using Grpc.Core;
using Grpc.Net.Client;

namespace Mesh.KVStore;

/// <summary>
/// One etcd server: two HTTP/2 connections, one for streams and keepalives and one for bulk, so that a long list never delays an
/// event. Dialling is ours: no hidden retries, no connection backoff inside the channel (gRPC's default reaches two minutes), and a
/// TLS failure says which side is at fault.
/// </summary>
internal sealed class EtcdEndpoint : IDisposable
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(3);

    /// <summary>
    /// Handshakes are work for the processor, and those of one process share it: with hundreds of peers to connect at once, one patience
    /// for all lets none of them finish, and all begin again. So each gets this more for every other that is under way.
    /// </summary>
    private static readonly TimeSpan PatiencePerHandshake = TimeSpan.FromMilliseconds(60);

    private const int LargestRequestBytes = 256 * 1024 * 1024;

    private static int _handshakes;

    private readonly GrpcChannel _bulk;
    private readonly GrpcChannel _streams;
    private readonly TimeProvider _time;
    private long _heardAt;

    /// <param name="receiveLimit">Bytes of one answer; null for no limit.</param>
    public EtcdEndpoint(
        string address, int index, EtcdOptions options, int? receiveLimit, TimeProvider? time = null)
    {
        Address = address;
        Index = index;
        _time = time ?? TimeProvider.System;
        if (address.StartsWith("https:", StringComparison.OrdinalIgnoreCase))
            Tls = new ClientTls(new Uri(address), options, _time);
        _bulk = NewChannel(receiveLimit, null);
        _streams = NewChannel(receiveLimit, () => Volatile.Write(ref _heardAt, _time.GetTimestamp()));
        KV = new KV.KVClient(_bulk);
        Auth = new Auth.AuthClient(_bulk);
        Watch = new Watch.WatchClient(_streams);
        Lease = new Lease.LeaseClient(_streams);
        Probe = new KV.KVClient(_streams);
        Maintenance = new Maintenance.MaintenanceClient(_streams);
    }

    public string Address { get; }

    /// <summary>Place in the shuffled list of endpoints.</summary>
    public int Index { get; }

    /// <summary>It has answered a call, so its TLS accepts us.</summary>
    public bool Answered { get; set; }

    /// <summary>Null for plain http.</summary>
    public ClientTls? Tls { get; }

    /// <summary>It is a door of ours and not an etcd: its own answers say so.</summary>
    public bool IsDoor { get; set; }

    /// <summary>It does not grant several reads in one transaction.</summary>
    public bool ReadsOneByOne { get; set; }

    /// <summary>When something came on the connection of the watches, be it the answer to a ping: a sign that the server's process lives,
    /// though not that it can do its work. Null before the first.</summary>
    public long? HeardAt => Volatile.Read(ref _heardAt) is var heard and not 0 ? heard : null;

    public KV.KVClient KV { get; }

    /// <summary>For the small reads of a watch, on the watch's own connection.</summary>
    public KV.KVClient Probe { get; }

    public Maintenance.MaintenanceClient Maintenance { get; }

    public Auth.AuthClient Auth { get; }

    public Watch.WatchClient Watch { get; }

    public Lease.LeaseClient Lease { get; }

    /// <summary>For calls of one answer, however long.</summary>
    public ChannelBase Bulk => _bulk;

    /// <summary>For streams, which a long answer must not delay.</summary>
    public ChannelBase Streams => _streams;

    public void Dispose()
    {
        _bulk.Dispose();
        _streams.Dispose();
    }

    /// <param name="heard">Called whenever something came.</param>
    private GrpcChannel NewChannel(int? receiveLimit, Action? heard)
    {
        var handler = new SharedHttp(new Uri(Address), cancellation => DialAsync(heard, cancellation));
        return GrpcChannel.ForAddress(handler.Address, new GrpcChannelOptions
        {
            HttpHandler = handler,
            DisposeHttpClient = true,
            MaxReceiveMessageSize = receiveLimit,
            MaxSendMessageSize = LargestRequestBytes,
        });
    }

    private async ValueTask<Stream> DialAsync(Action? heard, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(ConnectTimeout);
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        var address = new Uri(Address);
        var (host, port) = (address.IdnHost, address.Port);
        var step = StoreFault.Dns;
        try
        {
            var addresses = IPAddress.TryParse(host, out var literal) ? [literal]
                : await Dns.GetHostAddressesAsync(host, patience.Token).ConfigureAwait(false);
            step = StoreFault.Unreachable;
            await socket.ConnectAsync(addresses, port, patience.Token).ConfigureAwait(false);
            step = StoreFault.Frozen;
            var stream = Tls is null ? new HeardStream(socket, heard) : new NetworkStream(socket, ownsSocket: true);
            return Tls is null ? stream : await HandshakeAsync(Tls, stream, heard, patience).ConfigureAwait(false);
        }
        catch (OperationCanceledException e)
        {
            socket.Dispose();
            throw new DialException(step, step switch
            {
                StoreFault.Dns => $"no answer in time to the question for the addresses of {host}",
                StoreFault.Unreachable => $"no answer in time from {host}:{port} to the attempt to connect",
                _ => $"{host}:{port} takes connections and then says nothing",
            }, e);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static async Task<Stream> HandshakeAsync(ClientTls tls, Stream stream, Action? heard, CancellationTokenSource patience)
    {
        var others = Interlocked.Increment(ref _handshakes) - 1;
        try
        {
            patience.CancelAfter(ConnectTimeout + (others * PatiencePerHandshake));
            return await tls.HandshakeAsync(stream, heard, patience.Token).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _handshakes);
        }
    }
}

/// <summary>A connection that tells when something came: HTTP/2 reads on as soon as it has dealt with what it read.</summary>
internal sealed class HeardStream(Socket socket, Action? heard) : NetworkStream(socket, ownsSocket: true)
{
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        heard?.Invoke();
        return base.ReadAsync(buffer, cancellationToken);
    }
}

/// <summary>The same with TLS.</summary>
internal sealed class HeardTlsStream(Stream transport, Action? heard) : SslStream(transport, leaveInnerStreamOpen: false)
{
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        heard?.Invoke();
        return base.ReadAsync(buffer, cancellationToken);
    }
}
