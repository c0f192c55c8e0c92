using System.Buffers;
using System.Collections.Concurrent;
using System.Text.Json.Nodes;

namespace Mesh.KubeApi.Streams;

/// <summary>Exec and attach by SPDY/3.1: the client opens a stream for each thing it wants (header streamType), the server answers on them.</summary>
internal sealed class SpdyCommand : RemoteCommand, IDisposable
{
    /// <summary>Protocols known, best first. Before v4 the end of a command was a plain text; nobody is that old any more.</summary>
    public static readonly string[] Protocols = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
    private readonly SpdyConnection _connection;
    private readonly ConcurrentDictionary<string, SpdyStream> _streams = new();
    private readonly HashSet<string> _wanted;
    private readonly TaskCompletionSource _complete = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Task _input = Task.CompletedTask;
    private Task _sizes = Task.CompletedTask;

    public SpdyCommand(Stream wire, IEnumerable<string> wanted)
    {
        _connection = new SpdyConnection(wire);
        _wanted = [.. wanted];
        Output = new SendingStream((bytes, stop) => _streams["stdout"].Outgoing.WriteAsync(bytes, stop));
        Error = new SendingStream((bytes, stop) => _streams["stderr"].Outgoing.WriteAsync(bytes, stop));
    }

    protected override Stream Output { get; }

    protected override Stream Error { get; }

    /// <summary>Done when all streams that the query asks for are open; fails when the client goes before.</summary>
    public Task Opened => _complete.Task;

    public override async Task ReceiveAsync(CancellationToken stop)
    {
        try
        {
            await _connection.ReceiveAsync(stream =>
            {
                var kind = stream.Header("streamType");
                _streams[kind] = stream;
                if (kind == "stdin")
                    _input = PumpAsync(stream, stop);
                else if (kind == "resize")
                    _sizes = SizesAsync(stream, stop);
                if (_wanted.All(_streams.ContainsKey))
                    _complete.TrySetResult();
                return ValueTask.CompletedTask;
            }, stop);
        }
        finally
        {
            _complete.TrySetException(new IOException("the client went before its streams were open"));
            await _input;
            await _sizes;
            await InputPipe.Writer.CompleteAsync();
            NoMoreSizes();
        }
    }

    private async Task PumpAsync(SpdyStream stream, CancellationToken stop)
    {
        try
        {
            await stream.Incoming.Reader.AsStream().CopyToAsync(InputPipe.Writer.AsStream(leaveOpen: true), stop);
        }
        catch (OperationCanceledException)
        {
            // The command has ended; its input no longer matters.
        }
        await InputPipe.Writer.CompleteAsync();
    }

    private async Task SizesAsync(SpdyStream stream, CancellationToken stop)
    {
        try
        {
            while (true)
            {
                var read = await stream.Incoming.Reader.ReadAsync(stop);
                // Each size is one line.
                var rest = read.Buffer;
                while (rest.PositionOf((byte)'\n') is { } end)
                {
                    Resized(rest.Slice(0, end).ToArray());
                    rest = rest.Slice(rest.GetPosition(1, end));
                }
                stream.Incoming.Reader.AdvanceTo(rest.Start, read.Buffer.End);
                if (read.IsCompleted)
                    return;
            }
        }
        catch (OperationCanceledException)
        {
            // The command has ended.
        }
    }

    public override async Task CompleteAsync(JsonObject status, CancellationToken stop)
    {
        foreach (var kind in new[] { "stdout", "stderr" })
            if (_streams.TryGetValue(kind, out var stream))
                await stream.FinishAsync(stop);
        if (_streams.TryGetValue("error", out var error))
        {
            if ((string?)status["status"] != "Success")
                await error.Outgoing.WriteAsync(Bytes(status), stop);
            await error.FinishAsync(stop);
        }
        await _connection.GoAwayAsync(stop);
    }

    public void Dispose() => _connection.Dispose();
}
