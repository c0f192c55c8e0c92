using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json;

namespace Mesh.Kubernetes.Api;

/// <summary>
/// Requests to one API server: addresses, credentials, deadlines, and every way of failing as a <see cref="KubeApiException"/>. HTTP/2 with
/// pings, so that a server that vanished without a word is noticed within seconds, and HTTP/1.1 where the server knows no other.
/// </summary>
internal sealed class KubeTransport : IDisposable
{
    /// <summary>A page of 500 large objects is some 10 MiB.</summary>
    private const int AnswerMaxBytes = 256 << 20;

    private const int ThrottledTries = 4;

    private static readonly TimeSpan ThrottledWaitMax = TimeSpan.FromSeconds(10);

    private readonly KubeConfiguration _configuration;
    private readonly KubeClientOptions _options;
    private readonly HttpClient _http;

    public KubeTransport(KubeConfiguration configuration, KubeClientOptions options)
    {
        _configuration = configuration;
        _options = options;
        Ssl = SslOf(configuration);
        var handler = new SocketsHttpHandler
        {
            SslOptions = Ssl,
            ConnectTimeout = options.ConnectTimeout,
            KeepAlivePingDelay = TimeSpan.FromSeconds(10),
            KeepAlivePingTimeout = TimeSpan.FromSeconds(10),
            EnableMultipleHttp2Connections = true,
            InitialHttp2StreamWindowSize = 1 << 20,
            AutomaticDecompression = DecompressionMethods.GZip,
            AllowAutoRedirect = false,
            PooledConnectionLifetime = Timeout.InfiniteTimeSpan,
        };
        _http = new HttpClient(handler)
        {
            Timeout = Timeout.InfiniteTimeSpan,
            DefaultRequestVersion = configuration.Server.Scheme == "https" ? HttpVersion.Version20 : HttpVersion.Version11,
            DefaultVersionPolicy = HttpVersionPolicy.RequestVersionOrLower,
        };
        _http.DefaultRequestHeaders.UserAgent.ParseAdd(options.UserAgent);
    }

    /// <summary>For the WebSocket, which brings a connection of its own.</summary>
    public SslClientAuthenticationOptions Ssl { get; }

    /// <summary>Asks and reads the whole answer. A server that throttles is obeyed a few times.</summary>
    public async Task<byte[]> CallAsync(HttpMethod method, string path, Func<HttpContent>? content, CancellationToken cancellation)
    {
        for (var tries = 1; ; tries++)
        {
            try
            {
                return await CallOnceAsync(method, path, content, cancellation).ConfigureAwait(false);
            }
            catch (KubeApiException e) when (e is { RetryAfter: { } wait, Fault: KubeFault.TooManyRequests } && tries < ThrottledTries
                && wait <= ThrottledWaitMax)
            {
                await Task.Delay(wait, _options.Time, cancellation).ConfigureAwait(false);
            }
        }
    }

    private async Task<byte[]> CallOnceAsync(HttpMethod method, string path, Func<HttpContent>? content, CancellationToken cancellation)
    {
        using var deadline = new CancellationTokenSource(_options.RequestTimeout, _options.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
        try
        {
            using var response = await AskAsync(method, path, content?.Invoke(), either.Token).ConfigureAwait(false);
            return await BodyAsync(response, either.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (Translate(e, method, path, deadline.IsCancellationRequested, cancellation) is { } fault)
        {
            throw fault;
        }
    }

    /// <summary>Asks and hands out the answer as it comes; the deadline holds for its beginning alone.</summary>
    public async Task<HttpResponseMessage> OpenAsync(string path, CancellationToken cancellation)
    {
        using var deadline = new CancellationTokenSource(_options.RequestTimeout, _options.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
        try
        {
            return await AskAsync(HttpMethod.Get, path, null, either.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (Translate(e, HttpMethod.Get, path, deadline.IsCancellationRequested, cancellation) is { } fault)
        {
            throw fault;
        }
    }

    public async Task<AuthenticationHeaderValue?> AuthorizationAsync(CancellationToken cancellation)
    {
        try
        {
            return await _configuration.AuthorizationAsync(cancellation).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw new KubeApiException(KubeFault.Unauthorized,
                $"{_configuration.Origin}: its credentials cannot be had: {KubeConfiguration.OneLine(e.Message)}", e);
        }
    }

    public Uri AddressOf(string path) => new(_configuration.Server, _configuration.Server.AbsolutePath.TrimEnd('/') + path);

    /// <summary>Whatever broke on the way, said in our words; null for what is not ours to translate.</summary>
    public KubeApiException? Translate(Exception e, HttpMethod method, string path, bool late, CancellationToken cancellation)
    {
        var what = $"{method} {AddressOf(path.Split('?')[0])}";
        return e switch
        {
            KubeApiException => null,
            OperationCanceledException when cancellation.IsCancellationRequested => null,
            OperationCanceledException when late => new KubeApiException(KubeFault.Timeout,
                $"{what}: no answer within {_options.RequestTimeout.TotalSeconds:0.#} s", e),
            OperationCanceledException => new KubeApiException(KubeFault.Unreachable, $"{what}: the request was broken off", e),
            HttpRequestException or IOException or System.Net.Sockets.SocketException or AuthenticationException
                or System.Net.WebSockets.WebSocketException =>
                new KubeApiException(KubeFault.Unreachable, $"{what}: {Reason(e)} (server of {_configuration.Origin})", e),
            JsonException => new KubeApiException(KubeFault.BadAnswer, $"{what}: the answer is no JSON: {KubeConfiguration.OneLine(e.Message)}", e),
            _ => null,
        };
    }

    public void Dispose() => _http.Dispose();

    private async Task<HttpResponseMessage> AskAsync(HttpMethod method, string path, HttpContent? content, CancellationToken cancellation)
    {
        using var request = new HttpRequestMessage(method, AddressOf(path)) { Content = content };
        request.Headers.Authorization = await AuthorizationAsync(cancellation).ConfigureAwait(false);
        request.Headers.Accept.ParseAdd("application/json");
        var response = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellation).ConfigureAwait(false);
        if (response.IsSuccessStatusCode)
            return response;
        using (response)
        {
            throw Refusal(method, path, response, await BodyAsync(response, cancellation).ConfigureAwait(false));
        }
    }

    private static async Task<byte[]> BodyAsync(HttpResponseMessage response, CancellationToken cancellation)
    {
        if (response.Content.Headers.ContentLength > AnswerMaxBytes)
            throw new HttpRequestException($"the answer is larger than {AnswerMaxBytes >> 20} MiB");
        await response.Content.LoadIntoBufferAsync(AnswerMaxBytes, cancellation).ConfigureAwait(false);
        return await response.Content.ReadAsByteArrayAsync(cancellation).ConfigureAwait(false);
    }

    private KubeApiException Refusal(HttpMethod method, string path, HttpResponseMessage response, byte[] body)
    {
        KubeStatus? status = null;
        try
        {
            status = JsonSerializer.Deserialize(body, KubeJson.Default.KubeStatus);
        }
        catch (JsonException)
        {
            // A proxy in between answers in a language of its own; its first line is shown instead.
        }
        var said = status?.Message is { Length: > 0 } message ? message : Text(body);
        return Refusal($"{method} {AddressOf(path.Split('?')[0])}", response.StatusCode, status, said, RetryAfter(response, status));
    }

    internal static KubeApiException Refusal(string what, HttpStatusCode code, KubeStatus? status, string said, TimeSpan? retryAfter)
    {
        var reason = status?.Reason ?? "";
        var shown = KubeConfiguration.OneLine(said);
        return new KubeApiException(KubeApiException.FaultOf(code, reason),
            $"{what}: {(int)code} {(reason.Length > 0 ? reason : code.ToString())}{(shown.Length > 0 ? $": {shown}" : "")}")
        {
            Status = code,
            Reason = reason,
            ServerMessage = shown,
            RetryAfter = retryAfter,
            Causes = [.. (status?.Details?.Causes ?? []).Select(cause => $"{cause.Field}: {cause.Message}")],
        };
    }

    private TimeSpan? RetryAfter(HttpResponseMessage response, KubeStatus? status)
    {
        if (response.Headers.RetryAfter is { } header)
            return header.Delta ?? (header.Date is { } date && date > _options.Time.GetUtcNow() ? date - _options.Time.GetUtcNow() : TimeSpan.Zero);
        return status?.Details?.RetryAfterSeconds is > 0 and var seconds ? TimeSpan.FromSeconds(seconds) : null;
    }

    private static string Text(byte[] body)
    {
        const int shown = 200;
        return System.Text.Encoding.UTF8.GetString(body, 0, Math.Min(body.Length, shown));
    }

    private static string Reason(Exception e)
    {
        var innermost = e;
        while (innermost.InnerException is { } inner)
            innermost = inner;
        return e is HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError }
            ? $"no TLS with it: {KubeConfiguration.OneLine(innermost.Message)}: does the kubeconfig's certificate authority belong to this server?"
            : KubeConfiguration.OneLine(e is HttpRequestException ? e.Message : innermost.Message);
    }

    /// <summary>insecure-skip-tls-verify: whoever wrote the kubeconfig wants it so.</summary>
    private static bool AcceptAny(object sender, X509Certificate? server, X509Chain? chain, SslPolicyErrors errors) => server is not null;

    private static SslClientAuthenticationOptions SslOf(KubeConfiguration configuration)
    {
        var ssl = new SslClientAuthenticationOptions();
        if (configuration.ClientCertificate() is { } certificate)
            ssl.ClientCertificateContext = SslStreamCertificateContext.Create(certificate, null, offline: true);
        if (configuration.Authorities is { Count: > 0 } authorities)
        {
            var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
            policy.CustomTrustStore.AddRange(authorities);
            ssl.CertificateChainPolicy = policy;
        }
        if (configuration.SkipTlsVerify)
            ssl.RemoteCertificateValidationCallback = AcceptAny;
        else if (configuration.TlsServerName is { } name)
            ssl.RemoteCertificateValidationCallback = (_, server, _, errors) => errors == SslPolicyErrors.None
                || (errors == SslPolicyErrors.RemoteCertificateNameMismatch && server is X509Certificate2 given && given.MatchesHostname(name));
        return ssl;
    }
}

/// <summary>How a client behaves to its server.</summary>
public sealed record KubeClientOptions
{
    /// <summary>For everything but watches, logs and exec.</summary>
    public TimeSpan RequestTimeout { get; init; } = TimeSpan.FromSeconds(30);

    public TimeSpan ConnectTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>What the server's audit log calls us.</summary>
    public string UserAgent { get; init; } = "mesh";

    public TimeProvider Time { get; init; } = TimeProvider.System;
}
