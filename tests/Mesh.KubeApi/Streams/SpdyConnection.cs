using System.Buffers.Binary;
using System.IO.Pipelines;

namespace Mesh.KubeApi.Streams;

/// <summary>One stream that the client opened: its headers, what it sends, and a way to answer.</summary>
internal sealed class SpdyStream(SpdyConnection connection, int id, Dictionary<string, string> headers)
{
    public int Id { get; } = id;

    public Pipe Incoming { get; } = new(new PipeOptions(pauseWriterThreshold: 0));

    public string Header(string name) => headers.GetValueOrDefault(name, "");

    public Stream Outgoing { get; } = new SendingStream((bytes, stop) => connection.DataAsync(id, bytes, false, stop));

    /// <summary>Says that nothing more comes.</summary>
    public ValueTask FinishAsync(CancellationToken stop) => connection.DataAsync(Id, ReadOnlyMemory<byte>.Empty, true, stop);
}

/// <summary>
/// The server's side of SPDY/3.1 as kubectl speaks it: streams opened by the client, data both ways, pings echoed. No flow control, as
/// neither kubectl nor kubelets keep one.
/// </summary>
internal sealed class SpdyConnection(Stream wire) : IDisposable
{
    private const int FrameMax = 1 << 20;
    private readonly HeaderCompression _headers = new();
    private readonly SemaphoreSlim _sending = new(1, 1);
    private readonly Dictionary<int, SpdyStream> _streams = [];

    private enum Control
    {
        SynStream = 1,
        SynReply = 2,
        ResetStream = 3,
        Ping = 6,
        GoAway = 7,
    }

    /// <summary>Reads frames until the client goes; tells of each new stream.</summary>
    public async Task ReceiveAsync(Func<SpdyStream, ValueTask> opened, CancellationToken stop)
    {
        var head = new byte[8];
        try
        {
            while (await wire.ReadAtLeastAsync(head, 8, throwOnEndOfStream: false, stop) == 8)
            {
                var length = (head[5] << 16) | (head[6] << 8) | head[7];
                if (length > FrameMax)
                    throw new InvalidDataException($"a SPDY frame of {length} bytes");
                var payload = new byte[length];
                await wire.ReadExactlyAsync(payload, stop);
                if ((head[0] & 0x80) == 0)
                    await ArrivedAsync(BinaryPrimitives.ReadInt32BigEndian(head), payload, (head[4] & 1) != 0, stop);
                else
                    await ControlAsync((Control)BinaryPrimitives.ReadUInt16BigEndian(head.AsSpan(2)), payload, (head[4] & 1) != 0, opened, stop);
            }
        }
        catch (EndOfStreamException)
        {
            // Gone in the middle of a frame: gone all the same.
        }
        finally
        {
            foreach (var stream in _streams.Values)
                await stream.Incoming.Writer.CompleteAsync();
        }
    }

    private async ValueTask ArrivedAsync(int id, byte[] payload, bool last, CancellationToken stop)
    {
        if (!_streams.TryGetValue(id, out var stream))
            return;
        await stream.Incoming.Writer.WriteAsync(payload, stop);
        if (last)
            await stream.Incoming.Writer.CompleteAsync();
    }

    private async ValueTask ControlAsync(Control kind, byte[] payload, bool last, Func<SpdyStream, ValueTask> opened, CancellationToken stop)
    {
        switch (kind)
        {
            case Control.SynStream:
                var id = BinaryPrimitives.ReadInt32BigEndian(payload) & int.MaxValue;
                var stream = new SpdyStream(this, id, _headers.Read(payload.AsSpan(10)));
                _streams[id] = stream;
                if (last)
                    await stream.Incoming.Writer.CompleteAsync();
                await ReplyAsync(id, stop);
                await opened(stream);
                break;
            case Control.ResetStream:
                if (_streams.Remove(BinaryPrimitives.ReadInt32BigEndian(payload) & int.MaxValue, out var reset))
                    await reset.Incoming.Writer.CompleteAsync();
                break;
            case Control.Ping:
                await SendAsync(Control.Ping, payload, stop);
                break;
        }
    }

    private async ValueTask ReplyAsync(int id, CancellationToken stop)
    {
        await _sending.WaitAsync(stop);
        try
        {
            // Compressed and sent under one lock: the blocks of a connection are one zlib stream.
            var block = _headers.Empty();
            var payload = new byte[4 + block.Length];
            BinaryPrimitives.WriteInt32BigEndian(payload, id);
            block.CopyTo(payload, 4);
            await FrameAsync(ControlHead(Control.SynReply, payload.Length), payload, stop);
        }
        finally
        {
            _sending.Release();
        }
    }

    private static byte[] ControlHead(Control kind, int length) =>
        [0x80, 3, 0, (byte)kind, 0, (byte)(length >> 16), (byte)(length >> 8), (byte)length];

    private async ValueTask SendAsync(Control kind, byte[] payload, CancellationToken stop)
    {
        await _sending.WaitAsync(stop);
        try
        {
            await FrameAsync(ControlHead(kind, payload.Length), payload, stop);
        }
        finally
        {
            _sending.Release();
        }
    }

    private async ValueTask FrameAsync(byte[] head, ReadOnlyMemory<byte> payload, CancellationToken stop)
    {
        var frame = new byte[8 + payload.Length];
        head.CopyTo(frame, 0);
        payload.CopyTo(frame.AsMemory(8));
        await wire.WriteAsync(frame, stop);
        await wire.FlushAsync(stop);
    }

    public async ValueTask DataAsync(int id, ReadOnlyMemory<byte> bytes, bool last, CancellationToken stop)
    {
        const int Piece = 32 * 1024;
        await _sending.WaitAsync(stop);
        try
        {
            do
            {
                var piece = bytes[..Math.Min(Piece, bytes.Length)];
                bytes = bytes[piece.Length..];
                var head = new byte[8];
                BinaryPrimitives.WriteInt32BigEndian(head, id);
                head[4] = (byte)(last && bytes.Length == 0 ? 1 : 0);
                head[5] = (byte)(piece.Length >> 16);
                head[6] = (byte)(piece.Length >> 8);
                head[7] = (byte)piece.Length;
                await FrameAsync(head, piece, stop);
            }
            while (bytes.Length > 0);
        }
        finally
        {
            _sending.Release();
        }
    }

    public ValueTask GoAwayAsync(CancellationToken stop) => SendAsync(Control.GoAway, new byte[8], stop);

    public void Dispose()
    {
        _headers.Dispose();
        _sending.Dispose();
    }
}
