using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Polly;
using Polly.Retry;

namespace Mesh.KVStore;

/// <summary>
/// The endpoints of one etcd and the unary calls to it. A call goes to the current endpoint; when that does not answer, the next one
/// becomes current for everybody and the call is tried again after a jittered wait. Only idempotent operations may go through here.
/// </summary>
internal sealed class EtcdClient : IDisposable
{
    private readonly EtcdEndpoint[] _endpoints;
    private readonly ResiliencePipeline _retry;
    private int _current;
    private string? _token;
    private long _clusterId;
    private volatile string? _error = "not contacted yet";
    private volatile StoreFault _fault;
    private volatile EtcdEndpoint? _failed;

    public EtcdClient(EtcdOptions options, TimeProvider time, Random random)
    {
        if (options.Validate() is { Count: > 0 } faults)
            throw new ArgumentException(string.Join("; ", faults), nameof(options));
        Options = options;
        Time = time;
        Random = random;
        var addresses = options.Endpoints.ToArray();
        random.Shuffle(addresses);
        _endpoints = [.. addresses.Select((address, index) => new EtcdEndpoint(address, index, options, options.MaxMessageBytes, time))];
        var backoffMax = TimeSpan.FromSeconds(1.6);
        _retry = new ResiliencePipelineBuilder { TimeProvider = time }
            .AddRetry(new RetryStrategyOptions
            {
                ShouldHandle = arguments => ValueTask.FromResult(arguments.Outcome.Exception is { } e && EtcdCause.IsTransient(e)),
                MaxRetryAttempts = Math.Max(1, options.RetryAttempts),
                BackoffType = DelayBackoffType.Exponential,
                Delay = TimeSpan.FromMilliseconds(25),
                MaxDelay = backoffMax,
                UseJitter = true,
            })
            .Build();
    }

    public EtcdOptions Options { get; }

    public TimeProvider Time { get; }

    public Random Random { get; }

    public EtcdEndpoint Current => _endpoints[Volatile.Read(ref _current)];

    public KVStoreStatus Status => new(_error is null, (ulong)Volatile.Read(ref _clusterId), Current.Address, _error)
    {
        Tls = Current.Tls?.Status,
        Fault = _fault,
        IsDoor = Current.IsDoor,
    };

    public KVStoreHealth Health => new(_error is null, (ulong)Volatile.Read(ref _clusterId), _error, null)
    {
        Tls = Current.Tls?.Status,
    };

    public Backoff NewBackoff() => new(TimeSpan.FromMilliseconds(25), TimeSpan.FromSeconds(1.6), Time, Random);

    /// <summary>Makes the call with retries.</summary>
    /// <exception cref="KVStoreException">It failed for good. The message names the endpoint, what was tried and the cause.</exception>
    public async Task<T> CallAsync<T>(
        string what, TimeSpan deadline, Func<EtcdEndpoint, CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation)
    {
        try
        {
            return await _retry.ExecuteAsync(
                async token => await OnceAsync(Current, deadline, call, token).ConfigureAwait(false), cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is RpcException || EtcdCause.IsTransient(e))
        {
            cancellation.ThrowIfCancellationRequested();
            throw Failure(what, e);
        }
    }

    /// <summary>Makes the call once, on the endpoint given, and notes whether it answered.</summary>
    public async Task<T> OnceAsync<T>(
        EtcdEndpoint endpoint, TimeSpan deadline, Func<EtcdEndpoint, CallOptions, AsyncUnaryCall<T>> call, CancellationToken cancellation)
    {
        try
        {
            var headers = await HeadersAsync(endpoint, cancellation).ConfigureAwait(false);
            using var running = call(endpoint, new CallOptions(headers, Time.GetUtcNow().UtcDateTime + deadline, cancellation));
            var answer = await running.ResponseAsync.ConfigureAwait(false);
            endpoint.Answered = true;
            endpoint.IsDoor = (await running.ResponseHeadersAsync.ConfigureAwait(false)).Get(EtcdOptions.DoorHeader) is not null;
            Succeeded();
            return answer;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            cancellation.ThrowIfCancellationRequested();
            Failed(endpoint, e);
            throw;
        }
    }

    /// <summary>Metadata of a call or stream: the token when there is a user and password.</summary>
    public async Task<Metadata> HeadersAsync(EtcdEndpoint endpoint, CancellationToken cancellation)
    {
        var headers = new Metadata { { "hasleader", "true" } };
        if (Options.Username is not { } user)
            return headers;
        var token = Volatile.Read(ref _token);
        if (token is null)
        {
            var options = new CallOptions(deadline: Time.GetUtcNow().UtcDateTime + Options.CallDeadline, cancellationToken: cancellation);
            var request = new AuthenticateRequest { Name = user, Password = Options.Password ?? "" };
            using var call = endpoint.Auth.AuthenticateAsync(request, options);
            token = (await call.ResponseAsync.ConfigureAwait(false)).Token;
            Volatile.Write(ref _token, token);
        }
        headers.Add("token", token);
        return headers;
    }

    public void Succeeded()
    {
        if (_error is null)
            return;
        _error = null;
        _fault = StoreFault.None;
    }

    public void Observed(ResponseHeader header) => Volatile.Write(ref _clusterId, (long)header.ClusterId);

    /// <summary>Notes a failure. One that says nothing about the server's health only becomes the status; else the next endpoint is
    /// made current, unless somebody did that already.</summary>
    public void Failed(EtcdEndpoint endpoint, Exception e)
    {
        if (e is RpcException rpc && EtcdCause.IsStaleToken(rpc))
            Volatile.Write(ref _token, null);
        if (e is RpcException { StatusCode: StatusCode.OutOfRange or StatusCode.InvalidArgument or StatusCode.NotFound })
            return;
        _failed = endpoint;
        _fault = FaultOf(endpoint, e);
        _error = $"{endpoint.Address}: {EtcdCause.Text(e)}{Hint(endpoint, e)}";
        if (EtcdCause.IsTransient(e))
            Interlocked.CompareExchange(ref _current, (endpoint.Index + 1) % _endpoints.Length, endpoint.Index);
    }

    public KVStoreException Failure(string what, Exception e)
    {
        var denied = e is RpcException rpc && EtcdCause.IsPermissionDenied(rpc);
        var others = _endpoints.Length > 1 ? $" (of {_endpoints.Length} endpoints)" : "";
        var endpoint = _failed ?? Current;
        return new KVStoreException($"etcd {endpoint.Address}{others}: {what}: {EtcdCause.Text(e)}{Hint(endpoint, e)}", denied, e)
        {
            Fault = FaultOf(endpoint, e),
            Refused = !denied && e is RpcException { StatusCode: StatusCode.InvalidArgument },
        };
    }

    /// <summary>A TLS 1.3 server refuses a client certificate only after the handshake, which looks like any broken connection.</summary>
    private string Hint(EtcdEndpoint endpoint, Exception e) =>
        !endpoint.Answered && Options.CertFile is not null && EtcdCause.IsBrokenConnection(e)
            ? $" (it closed the connection and has never answered us: does it trust our client certificate {Options.CertFile}?)"
            : "";

    private StoreFault FaultOf(EtcdEndpoint endpoint, Exception e)
    {
        var fault = EtcdCause.FaultOf(e);
        if (fault is not (StoreFault.Broken or StoreFault.TlsFailed) || endpoint.Answered || Options.CertFile is null)
            return fault;
        // It took our certificate and closed the connection; why, we can tell only for our own part.
        return endpoint.Tls?.Status.ClientNotAfter < Time.GetUtcNow() ? StoreFault.CertificateExpired : StoreFault.CertificateRefused;
    }

    public Task<RangeResponse> RangeAsync(string what, RangeRequest request, TimeSpan deadline, CancellationToken cancellation) =>
        CallAsync(what, deadline, (endpoint, options) => endpoint.KV.RangeAsync(request, options), cancellation);

    public void Dispose()
    {
        foreach (var endpoint in _endpoints)
            endpoint.Dispose();
    }

    /// <summary>Null when the bytes are not UTF-8. Protobuf's own decoding would replace what it cannot read.</summary>
    public static string? KeyText(ByteString key) =>
        System.Text.Unicode.Utf8.IsValid(key.Span) ? key.ToStringUtf8() : null;
}
