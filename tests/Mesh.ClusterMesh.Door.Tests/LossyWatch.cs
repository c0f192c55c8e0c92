using Etcdserverpb;
using Grpc.Core;
using Grpc.Core.Interceptors;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Lets watch responses with events disappear, as etcd 3.4 can (its issue 17529).</summary>
internal sealed class LossyWatch : Interceptor
{
    /// <summary>How many of the next responses with events to swallow.</summary>
    public volatile int Drop;

    public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
        ClientInterceptorContext<TRequest, TResponse> context, AsyncDuplexStreamingCallContinuation<TRequest, TResponse> continuation)
    {
        var call = continuation(context);
        return new AsyncDuplexStreamingCall<TRequest, TResponse>(call.RequestStream, new Reader<TResponse>(call.ResponseStream, this),
            call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    private sealed class Reader<T>(IAsyncStreamReader<T> inner, LossyWatch loss) : IAsyncStreamReader<T>
    {
        public T Current => inner.Current;

        public async Task<bool> MoveNext(CancellationToken cancellationToken)
        {
            while (await inner.MoveNext(cancellationToken))
            {
                if (inner.Current is not WatchResponse { Events.Count: > 0 } || loss.Drop == 0)
                    return true;
                loss.Drop--;
            }
            return false;
        }
    }
}
