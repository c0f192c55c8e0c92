using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Text;
using Google.Protobuf;
using Grpc.Core;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core.Features;

namespace Mesh.ClusterMesh.Door.Protocol;

/// <summary>
/// gRPC over one HTTP/2 request, straight on Kestrel's pipes: five bytes and a message, each way, and the status in the trailers.
/// The door writes answers out of shared bytes, several watch responses to a flush, and must see a reader's back-pressure; that is
/// all a gRPC library would hide.
/// </summary>
internal sealed class GrpcCall(HttpContext context, int requestBytesMax)
{
    public const string ContentType = "application/grpc";

    /// <summary>Response header of every answer: a reader that sees it may ask for an audit every second.</summary>
    public const string DoorHeader = "mesh-door";

    public const string DoorVersion = "1";

    private readonly PipeReader _input = context.Request.BodyReader;

    public PipeWriter Output => context.Response.BodyWriter;

    public CancellationToken Aborted => context.RequestAborted;

    public static bool IsGrpc(HttpContext context) =>
        context.Request.Method == "POST" && context.Request.Protocol == "HTTP/2"
        && context.Request.ContentType is { } type && type.StartsWith(ContentType, StringComparison.Ordinal);

    /// <summary>Sends the response headers.</summary>
    public Task StartAsync()
    {
        // Streams live for days and may be silent; dead peers are found by HTTP/2 pings.
        if (context.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } rate)
            rate.MinDataRate = null;
        context.Response.ContentType = ContentType;
        context.Response.Headers[DoorHeader] = DoorVersion;
        return context.Response.StartAsync(Aborted);
    }

    /// <summary>The next request message; null when the client has sent its last.</summary>
    /// <exception cref="EtcdFault">The bytes are no gRPC message, or too many.</exception>
    public async ValueTask<T?> ReadAsync<T>(MessageParser<T> parser)
        where T : class, IMessage<T>
    {
        while (true)
        {
            var result = await _input.ReadAsync(Aborted);
            if (result.IsCanceled)
                throw new OperationCanceledException();
            var buffer = result.Buffer;
            if (TryParse(ref buffer, parser, out var message))
            {
                _input.AdvanceTo(buffer.Start);
                return message;
            }
            var left = buffer.Length;
            _input.AdvanceTo(buffer.Start, buffer.End);
            if (!result.IsCompleted)
                continue;
            return left == 0 ? null : throw EtcdFault.Malformed("the request ends in the middle of a message");
        }
    }

    /// <summary>Ends a <see cref="ReadAsync"/> under way with OperationCanceledException.</summary>
    public void CancelRead() => _input.CancelPendingRead();

    /// <summary>The only request message of a unary call.</summary>
    public async ValueTask<T> ReadOnlyAsync<T>(MessageParser<T> parser)
        where T : class, IMessage<T>
    {
        var message = await ReadAsync(parser) ?? throw EtcdFault.Malformed("the request has no message");
        return await ReadAsync(parser) is null ? message : throw EtcdFault.Malformed("the request has more than one message");
    }

    private bool TryParse<T>(ref ReadOnlySequence<byte> buffer, MessageParser<T> parser, out T? message)
        where T : class, IMessage<T>
    {
        message = null;
        if (buffer.Length < Proto.FramePrefix)
            return false;
        Span<byte> prefix = stackalloc byte[Proto.FramePrefix];
        buffer.Slice(0, Proto.FramePrefix).CopyTo(prefix);
        if (prefix[0] != 0)
            throw new EtcdFault(StatusCode.Unimplemented, "grpc: Decompressor is not installed for grpc-encoding");
        var length = BinaryPrimitives.ReadUInt32BigEndian(prefix[1..]);
        if (length > requestBytesMax)
            throw EtcdFault.TooLarge(length, requestBytesMax);
        if (buffer.Length < Proto.FramePrefix + length)
            return false;
        try
        {
            message = parser.ParseFrom(buffer.Slice(Proto.FramePrefix, length));
        }
        catch (InvalidProtocolBufferException e)
        {
            throw EtcdFault.Malformed($"error unmarshalling request: {e.Message}");
        }
        buffer = buffer.Slice(Proto.FramePrefix + length);
        return true;
    }

    /// <summary>Writes a small message; the caller flushes.</summary>
    public void Write(IMessage message)
    {
        var size = message.CalculateSize();
        var into = Output.GetSpan(Proto.FramePrefix + size);
        Proto.WriteFramePrefix(into, size);
        message.WriteTo(into.Slice(Proto.FramePrefix, size));
        Output.Advance(Proto.FramePrefix + size);
    }

    /// <summary>Puts the status into the trailers. The response ends when the request's handler returns.</summary>
    public void Finish(StatusCode code, string detail = "")
    {
        context.Response.AppendTrailer("grpc-status", ((int)code).ToString(System.Globalization.CultureInfo.InvariantCulture));
        if (detail.Length > 0)
            context.Response.AppendTrailer("grpc-message", Escape(detail));
    }

    /// <summary>gRPC's percent encoding: printable ASCII but '%' stands for itself.</summary>
    private static string Escape(string text)
    {
        var escaped = new StringBuilder(text.Length);
        foreach (var b in Encoding.UTF8.GetBytes(text))
            _ = b is >= 0x20 and < 0x7f and not (byte)'%' ? escaped.Append((char)b) : escaped.Append('%').Append(b.ToString("X2", null));
        return escaped.ToString();
    }
}
