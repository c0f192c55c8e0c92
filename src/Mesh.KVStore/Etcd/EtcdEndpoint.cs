using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Etcdserverpb;
using Grpc.Core;
using Grpc.Net.Client;

namespace Mesh.KVStore;

/// <summary>
/// One etcd server: two HTTP/2 connections, one for streams and keepalives and one for bulk, so that a long list never delays an
/// event. Dialling is ours: no hidden retries, no connection backoff inside the channel (gRPC's default reaches two minutes), and a
/// TLS failure says which side is at fault.
/// </summary>
internal sealed class EtcdEndpoint : IDisposable
{
    /// <summary>etcd closes connections whose pings come more often than every 5 s.</summary>
    private static readonly TimeSpan PingDelay = TimeSpan.FromSeconds(6);
    private static readonly TimeSpan PingTimeout = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(3);

    /// <summary>How much the server may send on one stream before we have read it.</summary>
    private const int StreamWindowBytes = 4 * 1024 * 1024;

    private const int MaxMessageBytes = 256 * 1024 * 1024;

    private readonly EtcdOptions _options;
    private readonly GrpcChannel _bulk;
    private readonly GrpcChannel _streams;

    /// <param name="receiveLimit">Bytes of one answer; null for no limit.</param>
    public EtcdEndpoint(string address, int index, EtcdOptions options, int? receiveLimit = MaxMessageBytes)
    {
        Address = address;
        Index = index;
        _options = options;
        _bulk = NewChannel(receiveLimit);
        _streams = NewChannel(receiveLimit);
        KV = new KV.KVClient(_bulk);
        Auth = new Auth.AuthClient(_bulk);
        Watch = new Watch.WatchClient(_streams);
        Lease = new Lease.LeaseClient(_streams);
        Probe = new KV.KVClient(_streams);
    }

    public string Address { get; }

    /// <summary>Place in the shuffled list of endpoints.</summary>
    public int Index { get; }

    /// <summary>It has answered a call, so its TLS accepts us.</summary>
    public bool Answered { get; set; }

    public KV.KVClient KV { get; }

    /// <summary>For the small reads of a watch, on the watch's own connection.</summary>
    public KV.KVClient Probe { get; }

    public Auth.AuthClient Auth { get; }

    public Watch.WatchClient Watch { get; }

    public Lease.LeaseClient Lease { get; }

    /// <summary>For calls of one answer, however long.</summary>
    public ChannelBase Bulk => _bulk;

    /// <summary>For streams, which a long answer must not delay.</summary>
    public ChannelBase Streams => _streams;

    public void Dispose()
    {
        _bulk.Dispose();
        _streams.Dispose();
    }

    private GrpcChannel NewChannel(int? receiveLimit)
    {
        var handler = new SocketsHttpHandler
        {
            ConnectTimeout = ConnectTimeout,
            KeepAlivePingDelay = PingDelay,
            KeepAlivePingTimeout = PingTimeout,
            KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            EnableMultipleHttp2Connections = false,
            InitialHttp2StreamWindowSize = StreamWindowBytes,
            UseProxy = false,
            ConnectCallback = DialAsync,
        };
        if (Address.StartsWith("https:", StringComparison.OrdinalIgnoreCase))
        {
            handler.SslOptions = new SslClientAuthenticationOptions
            {
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                // A resumed session would keep the old client certificate after a rotation.
                AllowTlsResume = false,
                RemoteCertificateValidationCallback = VerifyServer,
                LocalCertificateSelectionCallback = _options.CertFile is null ? null : (_, _, _, _, _) => ReadClientCertificate(),
            };
        }
        return GrpcChannel.ForAddress(Address, new GrpcChannelOptions
        {
            HttpHandler = handler,
            DisposeHttpClient = true,
            MaxReceiveMessageSize = receiveLimit,
            MaxSendMessageSize = MaxMessageBytes,
        });
    }

    private static async ValueTask<Stream> DialAsync(SocketsHttpConnectionContext context, CancellationToken cancellation)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            await socket.ConnectAsync(context.DnsEndPoint, cancellation).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private X509Certificate2 ReadClientCertificate()
    {
        try
        {
            return X509Certificate2.CreateFromPemFile(_options.CertFile!, _options.KeyFile!);
        }
        catch (Exception e) when (e is IOException or CryptographicException or UnauthorizedAccessException or ArgumentException)
        {
            throw new AuthenticationException(
                $"our client certificate cannot be used (cert-file {_options.CertFile}, key-file {_options.KeyFile}): {e.Message}", e);
        }
    }

    private bool VerifyServer(object sender, X509Certificate? presented, X509Chain? chain, SslPolicyErrors errors)
    {
        if (_options.InsecureSkipTlsVerify)
            return true;
        if (presented is not X509Certificate2 certificate)
            throw new AuthenticationException("the server presented no certificate");
        if ((errors & SslPolicyErrors.RemoteCertificateNameMismatch) != 0)
        {
            throw new AuthenticationException(
                $"the server's certificate ({certificate.Subject}) is not made for '{new Uri(Address).Host}': " +
                "connect by a name that it lists, or have one issued that lists this name");
        }
        if (_options.TrustedCaFile is null)
        {
            return errors == SslPolicyErrors.None ? true : throw new AuthenticationException(
                $"the operating system does not trust the server's certificate ({certificate.Subject}, issued by " +
                $"{certificate.Issuer}): name its authority in trusted-ca-file");
        }
        using var check = new X509Chain();
        check.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        check.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        try
        {
            check.ChainPolicy.CustomTrustStore.ImportFromPemFile(_options.TrustedCaFile);
        }
        catch (Exception e) when (e is IOException or CryptographicException or UnauthorizedAccessException)
        {
            throw new AuthenticationException($"trusted-ca-file {_options.TrustedCaFile} cannot be read: {e.Message}", e);
        }
        foreach (var element in chain?.ChainElements ?? Enumerable.Empty<X509ChainElement>())
            check.ChainPolicy.ExtraStore.Add(element.Certificate);
        if (check.Build(certificate))
            return true;
        throw new AuthenticationException(
            $"the server's certificate ({certificate.Subject}, issued by {certificate.Issuer}) does not verify with trusted-ca-file " +
            $"{_options.TrustedCaFile}: {string.Join(", ", check.ChainStatus.Select(s => s.Status))}");
    }
}
