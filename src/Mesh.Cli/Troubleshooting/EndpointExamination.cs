using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.RegularExpressions;
using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;

namespace Mesh.Cli.Troubleshooting;

/// <summary>
/// DNS, TCP, TLS and the client certificate of one endpoint, step by step and by hand: gRPC would tell only that something failed.
/// </summary>
internal sealed partial class EndpointExamination(EtcdOptions options, TimeSpan patience, Examination report, DateTimeOffset now)
{
    private X509Certificate2? _presented;
    private (PeerFault Fault, string Text)? _verdict;

    /// <returns>The endpoint answers as a store does.</returns>
    public async Task<bool> RunAsync(string endpoint, CancellationToken cancellation)
    {
        report.Plain($"   - {endpoint}");
        var uri = new Uri(endpoint);
        if (await ResolveAsync(uri.DnsSafeHost, cancellation) is not { } addresses)
            return false;
        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        if (!await ConnectAsync(socket, addresses, uri, cancellation))
            return false;
        var host = $"{uri.Host}:{uri.Port}";
        Stream stream = new NetworkStream(socket);
        if (uri.Scheme == "https")
        {
            if (await HandshakeAsync(stream, uri, host, cancellation) is not { } secured)
                return false;
            stream = secured;
        }
        await using (stream)
            return await AskVersionAsync(stream, host, cancellation);
    }

    private async Task<IPAddress[]?> ResolveAsync(string host, CancellationToken cancellation)
    {
        if (IPAddress.TryParse(host, out var literal))
            return [literal];
        try
        {
            var addresses = await Dns.GetHostAddressesAsync(host, cancellation).WaitAsync(patience, cancellation);
            report.Good($"Hostname resolved to: {string.Join(", ", addresses.Select(a => a.ToString()))}", 2);
            return addresses;
        }
        catch (Exception e) when (e is SocketException or TimeoutException)
        {
            report.Bad(PeerFault.Dns, $"Cannot resolve hostname: {Text(e)}", $"{host} cannot be resolved: {Text(e)}", 2);
            return null;
        }
    }

    private async Task<bool> ConnectAsync(Socket socket, IPAddress[] addresses, Uri uri, CancellationToken cancellation)
    {
        var host = $"{addresses[0]}:{uri.Port}";
        try
        {
            await socket.ConnectAsync(addresses, uri.Port, cancellation).AsTask().WaitAsync(patience, cancellation);
            report.Good($"TCP connection successfully established to {socket.RemoteEndPoint}".Replace("[::ffff:", "", StringComparison.Ordinal)
                .Replace("]", "", StringComparison.Ordinal), 2);
            return true;
        }
        catch (Exception e) when (e is SocketException or TimeoutException)
        {
            var fault = e is SocketException { SocketErrorCode: SocketError.ConnectionRefused } ? PeerFault.ConnectionRefused : PeerFault.Unreachable;
            report.Bad(fault, $"Cannot establish TCP connection to {host}: {Text(e)}", $"{host}: {Text(e)}", 2);
            return false;
        }
    }

    private async Task<SslStream?> HandshakeAsync(Stream transport, Uri uri, string host, CancellationToken cancellation)
    {
        var stream = new SslStream(transport);
        try
        {
            X509CertificateCollection? ours = null;
            if (options.CertFile is { } certificate)
                ours = [X509Certificate2.CreateFromPemFile(certificate, options.KeyFile!)];
            await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = uri.IdnHost,
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                AllowTlsResume = false,
                ApplicationProtocols = [SslApplicationProtocol.Http11],
                ClientCertificates = ours,
                // Judged afterwards: the connection tells more when it stands.
                RemoteCertificateValidationCallback = (_, presented, chain, errors) => See(presented as X509Certificate2, chain, errors),
            }, cancellation).WaitAsync(patience, cancellation);
            if (_verdict is { } verdict)
            {
                report.Bad(verdict.Fault, $"Cannot establish TLS connection to {host}: {verdict.Text}", verdict.Text, 2);
                await stream.DisposeAsync();
                return null;
            }
            report.Good($"TLS connection successfully established to {host}", 2);
            report.Note($"Negotiated TLS version: {Version(stream.SslProtocol)}, ciphersuite {stream.NegotiatedCipherSuite}", 2);
            return stream;
        }
        catch (Exception e) when (e is AuthenticationException or IOException or TimeoutException or CryptographicException
            or UnauthorizedAccessException or SocketException)
        {
            await stream.DisposeAsync();
            var fault = e switch
            {
                TimeoutException => PeerFault.Frozen,
                CryptographicException or UnauthorizedAccessException or FileNotFoundException or DirectoryNotFoundException => PeerFault.CertificateUnusable,
                _ when Text(e).Contains("alert", StringComparison.OrdinalIgnoreCase) => Refusal(),
                _ => PeerFault.TlsFailed,
            };
            var text = e is TimeoutException ? "it takes the connection and then says nothing" : Text(e);
            report.Bad(fault, $"Cannot establish TLS connection to {host}: {text}", $"{host}: {text}", 2);
            return null;
        }
    }

    private bool See(X509Certificate2? presented, X509Chain? chain, SslPolicyErrors errors)
    {
        _presented = presented is null ? null : X509CertificateLoader.LoadCertificate(presented.RawData);
        if (_presented is null)
        {
            _verdict = (PeerFault.TlsFailed, "the server presented no certificate");
            return true;
        }
        if (options.InsecureSkipTlsVerify)
            return true;
        using var check = new X509Chain();
        check.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        check.ChainPolicy.DisableCertificateDownloads = true;
        if (options.TrustedCaFile is { } bundle)
        {
            check.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            check.ChainPolicy.CustomTrustStore.ImportFromPemFile(bundle);
        }
        if (chain is not null)
            check.ChainPolicy.ExtraStore.AddRange(chain.ChainPolicy.ExtraStore);
        if (!check.Build(_presented))
        {
            var flags = check.ChainStatus.Aggregate(X509ChainStatusFlags.NoError, (all, one) => all | one.Status);
            var early = check.ChainElements.Any(element => element.Certificate.NotBefore > now.LocalDateTime);
            _verdict = (flags & ~X509ChainStatusFlags.NotTimeValid) != 0
                ? (PeerFault.TlsUnknownAuthority, $"the server's certificate ({_presented.Subject}, issued by {_presented.Issuer}) does not verify with "
                    + $"{options.TrustedCaFile ?? "the operating system's authorities"}: {string.Join(", ", check.ChainStatus.Select(s => s.Status))}")
                : early
                    ? (PeerFault.ClockSkew, $"the server's certificate ({_presented.Subject}) is valid from "
                        + $"{Time(_presented.NotBefore)} only: a clock is wrong")
                    : (PeerFault.CertificateExpired, $"the server's certificate ({_presented.Subject}) or its authority expired; "
                        + $"not after {Time(_presented.NotAfter)}");
        }
        else if ((errors & SslPolicyErrors.RemoteCertificateNameMismatch) != 0)
            _verdict = (PeerFault.TlsWrongName, $"the server's certificate ({_presented.Subject}) does not list the name by which we call it");
        return true;
    }

    /// <summary>The first read also tells whether the server took our certificate: since TLS 1.3 it says so after the handshake.</summary>
    private async Task<bool> AskVersionAsync(Stream stream, string host, CancellationToken cancellation)
    {
        try
        {
            await stream.WriteAsync(Encoding.ASCII.GetBytes($"GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), cancellation);
            using var reader = new StreamReader(stream, Encoding.UTF8, leaveOpen: true);
            var answer = await reader.ReadToEndAsync(cancellation).WaitAsync(patience, cancellation);
            if (EtcdVersion().Match(answer) is { Success: true } match)
                report.Note($"Etcd server version: {match.Groups[1].Value}", 2);
            else if (answer.Length == 0 && options.CertFile is not null)
            {
                report.Bad(Refusal(), "TLS client authentication failed: the server closed the connection", depth: 2);
                return false;
            }
            else
                report.Warn("Could not retrieve etcd server version", 2);
            return true;
        }
        catch (Exception e) when (e is IOException or TimeoutException or AuthenticationException or SocketException)
        {
            if (e is TimeoutException)
                report.Bad(PeerFault.Frozen, $"{host} takes the connection and does not answer: is its process standing still?", depth: 2);
            else
                report.Bad(Refusal(), $"TLS client authentication failed: {Text(e)}", depth: 2);
            return false;
        }
    }

    /// <summary>The server does not say why; we know whether our own certificate is over.</summary>
    private PeerFault Refusal()
    {
        if (options.CertFile is null)
            return PeerFault.CertificateRefused;
        using var ours = X509Certificate2.CreateFromPemFile(options.CertFile, options.KeyFile!);
        return ours.NotAfter < now.LocalDateTime ? PeerFault.CertificateExpired : PeerFault.CertificateRefused;
    }

    public static string Text(Exception e)
    {
        if (e is TimeoutException)
            return "no answer in time";
        while (e.InnerException is { } inner)
            e = inner;
        return e.Message;
    }

    internal static string Time(DateTime time) => $"{time.ToUniversalTime():yyyy-MM-dd HH:mm:ss} +0000 UTC";

    private static string Version(SslProtocols protocol) => protocol switch
    {
        SslProtocols.Tls13 => "TLS 1.3",
        SslProtocols.Tls12 => "TLS 1.2",
        _ => protocol.ToString(),
    };

    [GeneratedRegex("\"etcdserver\":\\s*\"([^\"]+)\"")]
    private static partial Regex EtcdVersion();
}
