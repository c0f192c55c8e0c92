using System.Net.Sockets;
using System.Security.Authentication;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>What a failed call means: whether trying again can help, and what to tell a human.</summary>
internal static class EtcdCause
{
    /// <summary>The call did not get an answer, or the answer was "not now".</summary>
    public static bool IsTransient(Exception e) => e switch
    {
        RpcException rpc => rpc.StatusCode is StatusCode.Unavailable or StatusCode.DeadlineExceeded or StatusCode.ResourceExhausted
            or StatusCode.Internal or StatusCode.Cancelled or StatusCode.Aborted or StatusCode.Unknown || IsStaleToken(rpc),
        HttpRequestException or IOException or ObjectDisposedException or InvalidOperationException => true,
        _ => false,
    };

    /// <summary>etcd forgets the tokens of user and password when it restarts.</summary>
    public static bool IsStaleToken(RpcException e) =>
        e.StatusCode == StatusCode.Unauthenticated && e.Status.Detail.Contains("invalid auth token", StringComparison.Ordinal);

    public static bool IsPermissionDenied(RpcException e) =>
        e.StatusCode is StatusCode.PermissionDenied ||
        e.Status.Detail.Contains("authentication failed", StringComparison.Ordinal) ||
        (e.StatusCode == StatusCode.Unauthenticated && !IsStaleToken(e));

    public static bool IsPermissionDenied(string cancelReason) =>
        cancelReason.Contains("permission denied", StringComparison.Ordinal);

    public static bool IsLeaseNotFound(RpcException e) =>
        e.StatusCode == StatusCode.NotFound && e.Status.Detail.Contains("lease not found", StringComparison.Ordinal);

    /// <summary>The connection stood and then broke; one that could not be made is something else.</summary>
    public static bool IsBrokenConnection(Exception e)
    {
        for (var cause = e is RpcException rpc ? rpc.Status.DebugException : e; cause is not null; cause = cause.InnerException)
        {
            if (cause is SocketException { SocketErrorCode: not SocketError.ConnectionReset and not SocketError.Shutdown } or
                AuthenticationException)
                return false;
            if (cause is ObjectDisposedException or SocketException or EndOfStreamException or IOException)
                return true;
        }
        return false;
    }

    /// <summary>The kind of failure, from the first cause in the chain that tells.</summary>
    public static StoreFault FaultOf(Exception e)
    {
        if (e is KVStoreException known)
            return known.Fault;
        for (var cause = e is RpcException { Status.DebugException: { } debug } ? debug : e; cause is not null; cause = cause.InnerException)
        {
            switch (cause)
            {
                case DialException dial:
                    return dial.Fault;
                case TlsFaultException tls:
                    return tls.Fault;
                case AuthenticationException:
                    return StoreFault.TlsFailed;
                case SocketException socket:
                    return Of(socket.SocketErrorCode);
                case HttpRequestException when cause.Message.Contains("ping", StringComparison.Ordinal):
                    return StoreFault.Frozen;
            }
        }
        if (e is RpcException rpc)
        {
            if (IsPermissionDenied(rpc))
                return StoreFault.AccessDenied;
            if (rpc.StatusCode == StatusCode.DeadlineExceeded)
                return StoreFault.Frozen;
            if (rpc.Status.Detail.Contains("no leader", StringComparison.Ordinal) || rpc.Status.Detail.Contains("leader changed", StringComparison.Ordinal))
                return StoreFault.NoQuorum;
            if (rpc.Status.Detail.Contains("space exceeded", StringComparison.Ordinal))
                return StoreFault.NoSpace;
        }
        return IsBrokenConnection(e) ? StoreFault.Broken : StoreFault.Other;
    }

    private static StoreFault Of(SocketError error) => error switch
    {
        SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain or SocketError.NoRecovery => StoreFault.Dns,
        SocketError.ConnectionRefused => StoreFault.Refused,
        SocketError.TimedOut or SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.HostDown
            or SocketError.NetworkDown or SocketError.AccessDenied => StoreFault.Unreachable,
        _ => StoreFault.Broken,
    };

    /// <summary>The server's own words, or those of the innermost failure of the connection.</summary>
    public static string Text(Exception e)
    {
        if (e is RpcException rpc)
        {
            if (rpc.Status.DebugException is { } debug)
                return Innermost(debug);
            if (rpc.StatusCode == StatusCode.DeadlineExceeded)
                return "no answer in time";
            return rpc.Status.Detail.Length > 0 ? rpc.Status.Detail : rpc.StatusCode.ToString();
        }
        return Innermost(e);
    }

    private static string Innermost(Exception e)
    {
        while (e.InnerException is { } inner && e is not AuthenticationException { InnerException: IOException })
            e = inner;
        return e is OperationCanceledException or TimeoutException ? "no connection in time" : e.Message;
    }
}
