using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Mesh.KubeApi.Api;

/// <summary>Answers a request with the fault that is in force for it, if any.</summary>
internal static class Disturbed
{
    public static async Task RunAsync(ApiRequest request, FaultPlan plan, Func<Task> answer, CancellationToken serverStops)
    {
        var http = request.Http;
        var met = plan.Meet(request.Verb, request.IsResource ? request.ResourceAndSub : request.Path, request.Namespace, request.Name, request.User.Name);
        if (met is null)
        {
            await answer();
            return;
        }
        var fault = met.Fault;
        switch (fault.Kind)
        {
            case FaultKind.TooManyRequests:
                throw KubeApiException.TooManyRequests(fault.RetryAfterSeconds);
            case FaultKind.InternalError:
                throw KubeApiException.Internal("etcdserver: request timed out");
            case FaultKind.BadGateway:
                await Reply.TextAsync(http, 503, "upstream connect error or disconnect/reset before headers\n");
                return;
            case FaultKind.Forbidden:
                throw Auth.Access.Denied(request);
            case FaultKind.Unauthorized:
                throw KubeApiException.Unauthorized();
            case FaultKind.Gone:
                throw KubeApiException.Expired("too old resource version: 1 (2)");
            case FaultKind.Conflict:
                throw KubeApiException.Stale(request.Resource, request.Group, request.Name);
            case FaultKind.Disconnect:
                http.Abort();
                return;
            case FaultKind.Hang:
                using (var either = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, serverStops, met.Over))
                    await Task.Delay(Timeout.InfiniteTimeSpan, either.Token).ContinueWith(_ => { }, CancellationToken.None,
                        TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
                http.RequestAborted.ThrowIfCancellationRequested();
                await answer();
                return;
            case FaultKind.Late:
                await Task.Delay(fault.Delay, http.RequestAborted);
                await answer();
                return;
            case FaultKind.SlowChunks:
                Replace(http, new SlowStream(http.Response.Body, fault.ChunkBytes, fault.Delay));
                await answer();
                return;
            case FaultKind.LostAnswer:
                Replace(http, new SwallowingStream());
                await answer();
                http.Abort();
                return;
            case FaultKind.HalfBody:
                // A length that is never reached: the connection is closed in order, so that the half does arrive.
                if (request.Verb == "watch")
                    http.Response.ContentLength = int.MaxValue;
                Replace(http, new HalfStream(http.Response.Body, request.Verb == "watch"));
                try
                {
                    await answer();
                }
                catch (CutException)
                {
                    return;
                }
                return;
        }
    }

    private static void Replace(HttpContext http, Stream body) => http.Features.Set<IHttpResponseBodyFeature>(
        new StreamResponseBodyFeature(body, http.Features.GetRequiredFeature<IHttpResponseBodyFeature>()));

    /// <summary>A stream that is written to, asynchronously, and nothing else.</summary>
    private abstract class WriteOnly : Stream
    {
        public override bool CanRead => false;

        public override bool CanSeek => false;

        public override bool CanWrite => true;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Flush()
        {
        }

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException("the answer is written asynchronously");

        public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public abstract override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default);
    }

    private sealed class SlowStream(Stream real, int chunk, TimeSpan delay) : WriteOnly
    {
        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            for (var at = 0; at < buffer.Length; at += chunk)
            {
                await real.WriteAsync(buffer.Slice(at, Math.Min(chunk, buffer.Length - at)), cancellationToken);
                await real.FlushAsync(cancellationToken);
                await Task.Delay(delay, cancellationToken);
            }
        }

        public override Task FlushAsync(CancellationToken cancellationToken) => real.FlushAsync(cancellationToken);
    }

    private sealed class SwallowingStream : WriteOnly
    {
        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) => ValueTask.CompletedTask;

        public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }

    private sealed class CutException() : IOException("cut in the middle");

    /// <summary>Lets half of the first write through and cuts the connection; a watch's first write has the first event.</summary>
    private sealed class HalfStream(Stream real, bool watch) : WriteOnly
    {
        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (buffer.Length == 0)
                return;
            var first = watch ? buffer.Span.IndexOf((byte)'\n') + 1 : buffer.Length;
            await real.WriteAsync(buffer[..(Math.Max(first, 2) / 2)], cancellationToken);
            await real.FlushAsync(cancellationToken);
            throw new CutException();
        }

        public override Task FlushAsync(CancellationToken cancellationToken) => real.FlushAsync(cancellationToken);
    }

}
