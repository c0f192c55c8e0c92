using System.Buffers.Binary;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;

namespace Mesh.TestKit;

/// <summary>What a server did to a raw client.</summary>
public enum RawFrame : byte
{
    Data = 0,
    Headers = 1,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
}

/// <summary>
/// An HTTP/2 client with nothing in it: it sends the frames it is told to, right or wrong, and reads cheaply enough that a thousand
/// watchers fit beside the server on two processors. Reading is one loop per connection; messages are seen as spans of its buffer.
/// </summary>
public sealed class RawReader : IAsyncDisposable
{
    private const int FrameHead = 9;
    private const byte EndHeaders = 4;
    private const byte EndStream = 1;
    private const int ConnectionWindow = 64 << 20;

    private readonly Stream _stream;
    private readonly SemaphoreSlim _sending = new(1);
    private readonly Dictionary<int, Assembly> _assemblies = [];
    private readonly int _streamWindow;
    private long _unacknowledged;

    private sealed class Assembly
    {
        public byte[] Bytes = new byte[4096];
        public int Length;
        public int Unacknowledged;
    }

    private RawReader(Stream stream, int streamWindow)
    {
        _stream = stream;
        _streamWindow = streamWindow;
    }

    /// <summary>A whole gRPC message of a stream. Called on the reading loop.</summary>
    public Action<int, ReadOnlyMemory<byte>> OnMessage { get; set; } = (_, _) => { };

    /// <summary>Any frame but data: kind, stream, payload.</summary>
    public Action<RawFrame, int, byte[]> OnFrame { get; set; } = (_, _, _) => { };

    public static async Task<RawReader> ConnectAsync(
        string host, int port, SslClientAuthenticationOptions? tls, int streamWindow = 1 << 20, CancellationToken cancellation = default)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        await socket.ConnectAsync(host, port, cancellation);
        Stream stream = new NetworkStream(socket, ownsSocket: true);
        if (tls is not null)
        {
            tls.TargetHost = host;
            tls.ApplicationProtocols = [SslApplicationProtocol.Http2];
            var secured = new SslStream(stream);
            await secured.AuthenticateAsClientAsync(tls, cancellation);
            stream = secured;
        }
        var reader = new RawReader(stream, streamWindow);
        await stream.WriteAsync("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray(), cancellation);
        var settings = new byte[6];
        BinaryPrimitives.WriteUInt16BigEndian(settings, 4);
        BinaryPrimitives.WriteInt32BigEndian(settings.AsSpan(2), streamWindow);
        await reader.SendFrameAsync(RawFrame.Settings, 0, 0, settings);
        await reader.SendFrameAsync(RawFrame.WindowUpdate, 0, 0, Number(ConnectionWindow));
        return reader;
    }

    /// <summary>Sends request headers for a gRPC method, without ending the stream.</summary>
    public Task OpenAsync(int stream, string path, bool end = false)
    {
        var block = new List<byte> { 0x83, 0x87 };
        Literal(block, 0x04, path);
        Literal(block, 0x01, "localhost");
        block.AddRange([0x0f, 0x10]);
        Text(block, "application/grpc");
        block.Add(0x00);
        Text(block, "te");
        Text(block, "trailers");
        return SendFrameAsync(RawFrame.Headers, (byte)(EndHeaders | (end ? EndStream : 0)), stream, [.. block]);
    }

    /// <summary>Sends one gRPC message.</summary>
    public Task SendAsync(int stream, ReadOnlyMemory<byte> message, bool end = false)
    {
        var framed = new byte[5 + message.Length];
        BinaryPrimitives.WriteInt32BigEndian(framed.AsSpan(1), message.Length);
        message.CopyTo(framed.AsMemory(5));
        return SendFrameAsync(RawFrame.Data, end ? EndStream : (byte)0, stream, framed);
    }

    public Task ResetAsync(int stream) => SendFrameAsync(RawFrame.Reset, 0, stream, Number(8));

    public async Task SendFrameAsync(RawFrame kind, byte flags, int stream, byte[] payload)
    {
        var frame = new byte[FrameHead + payload.Length];
        frame[0] = (byte)(payload.Length >> 16);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(1), (ushort)payload.Length);
        frame[3] = (byte)kind;
        frame[4] = flags;
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(5), stream);
        payload.CopyTo(frame, FrameHead);
        await SendBytesAsync(frame);
    }

    public async Task SendBytesAsync(byte[] bytes)
    {
        await _sending.WaitAsync();
        try
        {
            await _stream.WriteAsync(bytes);
        }
        finally
        {
            _sending.Release();
        }
    }

    /// <summary>Reads until the server closes (returns) or the token says so. Not calling it is being a reader that does not read.</summary>
    public async Task ReadAsync(CancellationToken cancellation)
    {
        var buffer = new byte[256 << 10];
        var filled = 0;
        while (true)
        {
            var count = await _stream.ReadAsync(buffer.AsMemory(filled), cancellation);
            if (count == 0)
                return;
            filled += count;
            var at = 0;
            while (filled - at >= FrameHead)
            {
                var length = (buffer[at] << 16) | BinaryPrimitives.ReadUInt16BigEndian(buffer.AsSpan(at + 1));
                if (filled - at < FrameHead + length)
                    break;
                var stream = BinaryPrimitives.ReadInt32BigEndian(buffer.AsSpan(at + 5)) & int.MaxValue;
                await TakeAsync((RawFrame)buffer[at + 3], buffer[at + 4], stream, buffer.AsMemory(at + FrameHead, length));
                at += FrameHead + length;
            }
            buffer.AsSpan(at, filled - at).CopyTo(buffer);
            filled -= at;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stream.DisposeAsync();
        _sending.Dispose();
    }

    private async Task TakeAsync(RawFrame kind, byte flags, int stream, ReadOnlyMemory<byte> payload)
    {
        switch (kind)
        {
            case RawFrame.Data:
                await TakeDataAsync(stream, payload);
                break;
            case RawFrame.Settings when (flags & 1) == 0:
                await SendFrameAsync(RawFrame.Settings, 1, 0, []);
                break;
            case RawFrame.Ping when (flags & 1) == 0:
                await SendFrameAsync(RawFrame.Ping, 1, 0, payload.ToArray());
                break;
            default:
                OnFrame(kind, stream, payload.ToArray());
                break;
        }
    }

    private async Task TakeDataAsync(int stream, ReadOnlyMemory<byte> payload)
    {
        if (!_assemblies.TryGetValue(stream, out var assembly))
            _assemblies[stream] = assembly = new Assembly();
        if (assembly.Length + payload.Length > assembly.Bytes.Length)
            Array.Resize(ref assembly.Bytes, Math.Max(assembly.Bytes.Length * 2, assembly.Length + payload.Length));
        payload.CopyTo(assembly.Bytes.AsMemory(assembly.Length));
        assembly.Length += payload.Length;
        var at = 0;
        while (assembly.Length - at >= 5)
        {
            var length = BinaryPrimitives.ReadInt32BigEndian(assembly.Bytes.AsSpan(at + 1));
            if (assembly.Length - at < 5 + length)
                break;
            OnMessage(stream, assembly.Bytes.AsMemory(at + 5, length));
            at += 5 + length;
        }
        assembly.Bytes.AsSpan(at, assembly.Length - at).CopyTo(assembly.Bytes);
        assembly.Length -= at;
        assembly.Unacknowledged += payload.Length;
        _unacknowledged += payload.Length;
        if (assembly.Unacknowledged > _streamWindow / 2)
        {
            await SendFrameAsync(RawFrame.WindowUpdate, 0, stream, Number(assembly.Unacknowledged));
            assembly.Unacknowledged = 0;
        }
        if (_unacknowledged > ConnectionWindow / 2)
        {
            await SendFrameAsync(RawFrame.WindowUpdate, 0, 0, Number((int)_unacknowledged));
            _unacknowledged = 0;
        }
    }

    private static byte[] Number(int value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(bytes, value);
        return bytes;
    }

    private static void Literal(List<byte> block, byte name, string value)
    {
        block.Add(name);
        Text(block, value);
    }

    private static void Text(List<byte> block, string text)
    {
        block.Add((byte)text.Length);
        block.AddRange(Encoding.ASCII.GetBytes(text));
    }
}
