using Etcdserverpb;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// The members of one etcd as a single gRPC channel, for those who speak etcd's own API. Calls go to the current member; when one
/// fails because that member does not answer, the next member becomes current for everybody. Nothing is repeated here: whoever calls
/// knows whether a call may be made again. Answers may be of any size; HTTP/2 pings tell a dead member within nine seconds.
/// </summary>
public sealed class EtcdChannel : CallInvoker, IDisposable
{
    private readonly EtcdOptions _options;
    private readonly TimeProvider _time;
    private readonly EtcdEndpoint[] _members;
    private int _current;
    private string? _token;

    private EtcdChannel(EtcdOptions options, TimeProvider time, Random random)
    {
        _options = options;
        _time = time;
        var addresses = options.Endpoints.ToArray();
        random.Shuffle(addresses);
        _members = [.. addresses.Select((address, index) => new EtcdEndpoint(address, index, options, receiveLimit: null, time))];
    }

    /// <summary>The member that calls go to at present.</summary>
    public string Address => Current.Address;

    /// <summary>The certificates in use towards that member; null without TLS.</summary>
    public TlsStatus? Tls => Current.Tls?.Status;

    private EtcdEndpoint Current => _members[Volatile.Read(ref _current)];

    /// <summary>Connects when the first call is made; certificates are read again at each connection.</summary>
    /// <exception cref="ArgumentException">The options are impossible; the message names each fault.</exception>
    public static EtcdChannel Open(EtcdOptions options, TimeProvider? time = null, Random? random = null) =>
        options.Validate() is { Count: > 0 } faults
            ? throw new ArgumentException(string.Join("; ", faults), nameof(options))
            : new EtcdChannel(options, time ?? TimeProvider.System, random ?? new Random());

    public override AsyncUnaryCall<TResponse> AsyncUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request)
    {
        var member = Current;
        var response = UnaryAsync();
        return new AsyncUnaryCall<TResponse>(response, Task.FromResult(Metadata.Empty), () => StatusOf(response), () => [], () => { });

        async Task<TResponse> UnaryAsync()
        {
            try
            {
                options = await WithTokenAsync(member, options).ConfigureAwait(false);
                using var call = member.Bulk.CreateCallInvoker().AsyncUnaryCall(method, host, options, request);
                return await call.ResponseAsync.ConfigureAwait(false);
            }
            catch (Exception e) when (Note(member, e, options.CancellationToken))
            {
                throw;
            }
        }
    }

    public override AsyncDuplexStreamingCall<TRequest, TResponse> AsyncDuplexStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options)
    {
        var member = Current;
        if (_options.Username is not null)
            options = options.WithHeaders(WithToken(options.Headers, Volatile.Read(ref _token)));
        var call = member.Streams.CreateCallInvoker().AsyncDuplexStreamingCall(method, host, options);
        return new AsyncDuplexStreamingCall<TRequest, TResponse>(call.RequestStream,
            new NotedStream<TResponse>(call.ResponseStream, e => Note(member, e, options.CancellationToken)),
            call.ResponseHeadersAsync, call.GetStatus, call.GetTrailers, call.Dispose);
    }

    public override TResponse BlockingUnaryCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request) =>
        throw new NotSupportedException("etcd is called asynchronously");

    public override AsyncServerStreamingCall<TResponse> AsyncServerStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options, TRequest request) =>
        Current.Bulk.CreateCallInvoker().AsyncServerStreamingCall(method, host, options, request);

    public override AsyncClientStreamingCall<TRequest, TResponse> AsyncClientStreamingCall<TRequest, TResponse>(
        Method<TRequest, TResponse> method, string? host, CallOptions options) =>
        Current.Bulk.CreateCallInvoker().AsyncClientStreamingCall(method, host, options);

    public void Dispose()
    {
        foreach (var member in _members)
            member.Dispose();
    }

    /// <summary>Moves on from a member that did not answer, unless somebody did already.</summary>
    /// <returns>False always: the exception is the caller's.</returns>
    private bool Note(EtcdEndpoint member, Exception e, CancellationToken cancellation)
    {
        if (e is RpcException rpc && EtcdCause.IsStaleToken(rpc))
            Volatile.Write(ref _token, null);
        else if (!cancellation.IsCancellationRequested && EtcdCause.IsTransient(e))
            Interlocked.CompareExchange(ref _current, (member.Index + 1) % _members.Length, member.Index);
        return false;
    }

    private static Status StatusOf<T>(Task<T> call) => call switch
    {
        { IsCompletedSuccessfully: true } => Status.DefaultSuccess,
        { Exception.InnerException: RpcException failed } => failed.Status,
        _ => new Status(StatusCode.Unknown, call.Exception?.InnerException?.Message ?? "not finished"),
    };

    /// <summary>etcd's token for a user with password; streams use the one that the calls before them have fetched.</summary>
    private async ValueTask<CallOptions> WithTokenAsync(EtcdEndpoint member, CallOptions options)
    {
        if (_options.Username is not { } user)
            return options;
        var token = Volatile.Read(ref _token);
        if (token is null)
        {
            var request = new AuthenticateRequest { Name = user, Password = _options.Password ?? "" };
            var asking = new CallOptions(
                deadline: _time.GetUtcNow().UtcDateTime + _options.CallDeadline, cancellationToken: options.CancellationToken);
            using var call = member.Auth.AuthenticateAsync(request, asking);
            token = (await call.ResponseAsync.ConfigureAwait(false)).Token;
            Volatile.Write(ref _token, token);
        }
        return options.WithHeaders(WithToken(options.Headers, token));
    }

    private static Metadata WithToken(Metadata? headers, string? token)
    {
        var all = new Metadata();
        foreach (var entry in headers ?? [])
            all.Add(entry);
        if (token is not null)
            all.Add("token", token);
        return all;
    }

    /// <summary>A stream whose end by failure is noted.</summary>
    private sealed class NotedStream<T>(IAsyncStreamReader<T> stream, Func<Exception, bool> note) : IAsyncStreamReader<T>
    {
        public T Current => stream.Current;

        public async Task<bool> MoveNext(CancellationToken cancellationToken)
        {
            try
            {
                return await stream.MoveNext(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (note(e))
            {
                throw;
            }
        }
    }
}
