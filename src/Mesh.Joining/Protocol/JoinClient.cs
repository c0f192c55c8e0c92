using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Mesh.Joining.Checks;
using Mesh.Joining.Listening;
using Mesh.Joining.Tokens;

namespace Mesh.Joining.Protocol;

/// <summary>
/// The taker's end of the join connection. The listener is whoever shows a certificate of the authority in the token; nobody else ever
/// sees the secret. One connection for all requests of a run.
/// </summary>
internal sealed class JoinClient : IAsyncDisposable
{
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan NextAddressAfter = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan RequestTimeout = TimeSpan.FromSeconds(20);

    /// <summary>The listener opens when it sees the ledger: a token that was made this moment may be a little early.</summary>
    private static readonly TimeSpan RefusedPatience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RefusedPause = TimeSpan.FromMilliseconds(20);

    private readonly JoinToken _token;
    private readonly SslStream _stream;

    private JoinClient(JoinToken token, SslStream stream, Socket socket, Verdict certificate)
    {
        _token = token;
        _stream = stream;
        Local = ((IPEndPoint)socket.LocalEndPoint!).Address;
        Remote = (IPEndPoint)socket.RemoteEndPoint!;
        Certificate = certificate;
    }

    /// <summary>Our address on the way to the issuer.</summary>
    public IPAddress Local { get; }

    public IPEndPoint Remote { get; }

    /// <summary>What the listener showed.</summary>
    public Verdict Certificate { get; }

    public Credential Credential => new(_token.Id, _token.Secret);

    /// <summary>Tries the token's addresses in their order, each a moment after the one before and not after its end: one that is silent
    /// costs that moment. The secret is sent on the one connection that is kept.</summary>
    /// <exception cref="JoinException">No address can be reached, or what answers is not the issuer: the code is join-unreachable or the
    /// class of the certificate's fault with "certificate-" before it.</exception>
    /// <param name="patient">Whether a listener that is shut may be about to open.</param>
    public static async Task<JoinClient> ConnectAsync(
        JoinToken token, OpenSocket open, TimeProvider time, CancellationToken cancellation, bool patient = true)
    {
        var failures = new List<JoinException>();
        var attempts = new List<Task<JoinClient>>();
        var addresses = new Queue<string>(token.Addresses);
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        try
        {
            while (addresses.Count + attempts.Count > 0)
            {
                if (addresses.TryDequeue(out var address))
                    attempts.Add(ConnectAsync(token, IPEndPoint.Parse(address), open, time, patient, enough.Token));
                var next = addresses.Count > 0 ? Task.Delay(NextAddressAfter, enough.Token) : Task.Delay(Timeout.InfiniteTimeSpan, enough.Token);
                if (await Task.WhenAny([.. attempts, next]) is not Task<JoinClient> done)
                {
                    cancellation.ThrowIfCancellationRequested();
                    continue;
                }
                attempts.Remove(done);
                try
                {
                    return await done;
                }
                catch (JoinException e)
                {
                    failures.Add(e);
                }
            }
        }
        finally
        {
            await enough.CancelAsync();
            foreach (var late in attempts)
            {
                await ((Task)late).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                if (late.IsCompletedSuccessfully)
                    await (await late).DisposeAsync();
            }
        }
        // Somebody who answered, though not as he should, is nearer to the cause than silence.
        var nearest = failures.Find(failure => failure.Code != "join-unreachable") ?? failures[^1];
        throw failures.Count == 1 ? nearest : new JoinException(nearest.Code,
            $"{nearest.Message} (tried {string.Join(", ", token.Addresses)})", nearest);
    }

    private static async Task<JoinClient> ConnectAsync(
        JoinToken token, IPEndPoint address, OpenSocket open, TimeProvider time, bool patient, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(ConnectTimeout);
        var socket = await DialAsync(token, address, open, time, patient, patience.Token, cancellation);
        SslStream? tls = null;
        var verdict = new Verdict("tls", "it ended the handshake before it showed a certificate");
        try
        {
            tls = new SslStream(new NetworkStream(socket, ownsSocket: true));
            using var authorities = token.ReadAuthorities();
            await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = $"{address.Address}",
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
                RemoteCertificateValidationCallback = (_, certificate, chain, _) =>
                {
                    verdict = ServerCertificate.Judge(certificate as X509Certificate2, chain, authorities, $"{address.Address}", time);
                    return verdict.IsGood;
                },
            }, patience.Token);
            return new JoinClient(token, tls, socket, verdict);
        }
        catch (Exception e)
        {
            if (tls is not null)
                await tls.DisposeAsync();
            socket.Dispose();
            if (e is not (IOException or AuthenticationException or SocketException or OperationCanceledException)
                || cancellation.IsCancellationRequested)
                throw;
            throw new JoinException($"certificate-{verdict.Class}", $"{token.ClusterName}'s join listener {address}: {verdict.Text}", e);
        }
    }

    private static async Task<Socket> DialAsync(JoinToken token, IPEndPoint address, OpenSocket open, TimeProvider time, bool patient,
        CancellationToken patience, CancellationToken cancellation)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var socket = open(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await socket.ConnectAsync(address, patience);
                socket.NoDelay = true;
                return socket;
            }
            catch (Exception e) when (e is SocketException || e is OperationCanceledException && !cancellation.IsCancellationRequested)
            {
                socket.Dispose();
                if (patient && e is SocketException { SocketErrorCode: SocketError.ConnectionRefused }
                    && TimeProvider.System.GetElapsedTime(began) < RefusedPatience)
                {
                    await Task.Delay(RefusedPause, cancellation);
                    continue;
                }
                throw new JoinException("join-unreachable", Unreachable(token, address, e, time.GetUtcNow()), e);
            }
        }
    }

    private static string Unreachable(JoinToken token, IPEndPoint address, Exception e, DateTimeOffset now)
    {
        var what = $"{token.ClusterName}'s join listener {address} cannot be reached: "
            + (e is OperationCanceledException ? $"no answer in {ConnectTimeout.TotalSeconds:0} s" : InWords.Of(e));
        if (now >= token.Expires)
            return $"{what}; the token expired at {token.Expires:yyyy-MM-dd HH:mm:ss}Z, and the listener is open only while a token is usable: "
                + $"make a new one on {token.ClusterName}";
        return e is SocketException { SocketErrorCode: SocketError.ConnectionRefused }
            ? $"{what}; it is open only while a token is usable: this one may be used already, or the API server there runs without --join-listen-addr"
            : $"{what}; open TCP {address.Port} to it";
    }

    public Task<DescribeAnswer> DescribeAsync(CancellationToken cancellation) => CallAsync(Calls.Describe, new DescribeRequest(Credential),
        JoinCompactJson.Default.DescribeRequest, JoinCompactJson.Default.DescribeAnswer, null, cancellation);

    public Task<ProbeAnswer> ProbeAsync(ProbeRequest request, CancellationToken cancellation) => CallAsync(
        Calls.Probe, request, JoinCompactJson.Default.ProbeRequest, JoinCompactJson.Default.ProbeAnswer, null, cancellation);

    public Task<ProbeResultAnswer> ProbeResultAsync(ProbeResultRequest request, CancellationToken cancellation) => CallAsync(
        Calls.ProbeResult, request, JoinCompactJson.Default.ProbeResultRequest, JoinCompactJson.Default.ProbeResultAnswer, null, cancellation);

    /// <param name="key">PEM of the taker's key: signs the request.</param>
    public Task<BeginAnswer> BeginAsync(ClusterFacts taker, string request, string key, CancellationToken cancellation) => CallAsync(
        Calls.Begin, new BeginRequest(Credential, taker, request), JoinCompactJson.Default.BeginRequest, JoinCompactJson.Default.BeginAnswer, key,
        cancellation);

    public Task FinishAsync(string certificate, string key, CancellationToken cancellation) => CallAsync(
        Calls.Finish, new FinishRequest(Credential, certificate), JoinCompactJson.Default.FinishRequest, JoinCompactJson.Default.PlainAnswer, key,
        cancellation);

    public Task ConfirmAsync(string key, CancellationToken cancellation) => CallAsync(
        Calls.Confirm, new PlainRequest(Credential), JoinCompactJson.Default.PlainRequest, JoinCompactJson.Default.PlainAnswer, key, cancellation);

    public Task CancelAsync(string key, CancellationToken cancellation) => CallAsync(
        Calls.Cancel, new PlainRequest(Credential), JoinCompactJson.Default.PlainRequest, JoinCompactJson.Default.PlainAnswer, key, cancellation);

    public ValueTask DisposeAsync() => _stream.DisposeAsync();

    private async Task<TAnswer> CallAsync<TRequest, TAnswer>(string call, TRequest request, JsonTypeInfo<TRequest> requestType,
        JsonTypeInfo<TAnswer> answerType, string? key, CancellationToken cancellation)
        where TAnswer : class
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(RequestTimeout);
        var body = JsonSerializer.SerializeToUtf8Bytes(request, requestType);
        try
        {
            (string, string)[] headers = key is null ? [("Host", $"{Remote}")]
                : [("Host", $"{Remote}"), (TakerSignature.Header, TakerSignature.Sign(key, call, body))];
            await HttpMessage.WriteAsync(_stream, $"POST {Calls.Prefix}{call} HTTP/1.1", body, patience.Token, headers);
            var answer = await HttpMessage.ReadAsync(_stream, Calls.BodyMax, patience.Token)
                ?? throw new IOException("the connection was closed");
            if (answer.StartLine.StartsWith("HTTP/1.1 200 ", StringComparison.Ordinal))
                return JsonSerializer.Deserialize(answer.Body, answerType) ?? throw new JsonException("it is empty");
            var refusal = JsonSerializer.Deserialize(answer.Body, JoinCompactJson.Default.RefusalAnswer) ?? throw new JsonException("it is empty");
            throw new JoinException(Printable(refusal.Code), $"{_token.ClusterName}: {Printable(refusal.Message)}");
        }
        catch (Exception e) when (e is IOException or SocketException || e is OperationCanceledException && !cancellation.IsCancellationRequested)
        {
            throw new JoinException("join-interrupted",
                $"the connection to {_token.ClusterName} ({Remote}) broke during '{call}': {InWords.Of(e)}; run the same command again", e);
        }
        catch (JsonException e)
        {
            throw new JoinException("malformed", $"{_token.ClusterName} ({Remote}) answered '{call}' with something else than it should: {InWords.Of(e)}; "
                + "compare the versions of both", e);
        }
    }

    /// <summary>Text of the other side for our terminal: one line, no control characters.</summary>
    private static string Printable(string text) =>
        new([.. (text.Length > 2000 ? text[..2000] : text).Select(c => char.IsControl(c) ? ' ' : c)]);
}
