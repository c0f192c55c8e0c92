using System.Net.WebSockets;
using System.Text.Json.Nodes;

namespace Mesh.KubeApi.Streams;

/// <summary>
/// Subprotocols v4.channel.k8s.io and v5.channel.k8s.io: each message begins with the number of its channel; 0 input, 1 output,
/// 2 error output, 3 Status at the end, 4 sizes. v5 adds 255, which closes the channel that it names.
/// </summary>
internal sealed class WebSocketCommand : RemoteCommand, IDisposable
{
    public const string V4 = "v4.channel.k8s.io";
    public const string V5 = "v5.channel.k8s.io";
    private readonly WebSocket _socket;
    private readonly SemaphoreSlim _sending = new(1, 1);

    public WebSocketCommand(WebSocket socket)
    {
        _socket = socket;
        Output = new SendingStream((bytes, stop) => SendAsync(1, bytes, stop));
        Error = new SendingStream((bytes, stop) => SendAsync(2, bytes, stop));
    }

    protected override Stream Output { get; }

    protected override Stream Error { get; }

    /// <summary>Tells the client that all is set up: an empty message on the first channel that goes its way.</summary>
    public ValueTask GreetAsync(byte channel, CancellationToken stop) => SendAsync(channel, ReadOnlyMemory<byte>.Empty, stop);

    private async ValueTask SendAsync(byte channel, ReadOnlyMemory<byte> bytes, CancellationToken stop)
    {
        await _sending.WaitAsync(stop);
        try
        {
            var message = new byte[bytes.Length + 1];
            message[0] = channel;
            bytes.CopyTo(message.AsMemory(1));
            await _socket.SendAsync(message, WebSocketMessageType.Binary, true, stop);
        }
        finally
        {
            _sending.Release();
        }
    }

    public override async Task ReceiveAsync(CancellationToken stop)
    {
        var buffer = new byte[64 * 1024];
        try
        {
            while (true)
            {
                var message = new MemoryStream();
                ValueWebSocketReceiveResult part;
                do
                {
                    part = await _socket.ReceiveAsync(buffer.AsMemory(), stop);
                    message.Write(buffer.AsSpan(0, part.Count));
                }
                while (!part.EndOfMessage);
                if (part.MessageType == WebSocketMessageType.Close)
                    return;
                if (message.Length == 0)
                    continue;
                var payload = message.GetBuffer().AsMemory(1, (int)message.Length - 1);
                switch (message.GetBuffer()[0])
                {
                    case 0:
                        await InputPipe.Writer.WriteAsync(payload, stop);
                        break;
                    case 4:
                        Resized(payload.Span);
                        break;
                    case 255 when payload.Length > 0 && payload.Span[0] == 0:
                        await InputPipe.Writer.CompleteAsync();
                        break;
                }
            }
        }
        finally
        {
            await InputPipe.Writer.CompleteAsync();
            NoMoreSizes();
        }
    }

    public override async Task CompleteAsync(JsonObject status, CancellationToken stop)
    {
        await SendAsync(3, Bytes(status), stop);
        await _socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", stop);
    }

    public void Dispose()
    {
        _sending.Dispose();
        _socket.Dispose();
    }
}
