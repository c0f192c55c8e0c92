using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Mesh.KVStore;

/// <summary>
/// Our side of TLS to one etcd server. Certificate, key and authorities are read from their files at each handshake, so a rotation
/// needs neither a restart nor a new connection; a broken new file leaves the last good one in use. The whole chain of the
/// certificate file goes out, not the leaf alone: the server may know only who issued the issuer.
/// </summary>
internal sealed class ClientTls
{
    /// <summary>However many peers have files to look at.</summary>
    private static readonly TimeSpan LatestCheck = TimeSpan.FromMinutes(2);

    private readonly EtcdOptions _options;
    private readonly string _host;
    private readonly TimeProvider _time;
    private readonly LastGood<Identity>? _identity;
    private readonly LastGood<X509Certificate2Collection>? _trusted;
    private long _checked;
    private long _checkAfter;
    private volatile Presented? _server;
    private volatile Said? _said;

    public ClientTls(Uri address, EtcdOptions options, TimeProvider time)
    {
        _host = address.IdnHost;
        _options = options;
        _time = time;
        _checked = time.GetTimestamp();
        _checkAfter = UntilCheck.Ticks;
        if (options.CertFile is { } certificate && options.KeyFile is { } key)
            _identity = new([certificate, key], ParseIdentity);
        if (options.TrustedCaFile is { } bundle && !options.InsecureSkipTlsVerify)
            _trusted = new([bundle], ParseBundle);
    }

    private TimeSpan UntilCheck => _options.CertificateCheckInterval is var interval && interval <= TimeSpan.Zero ? interval
        : AuditPace.OfFiles.Book(interval, LatestCheck);

    /// <summary>What we show: the certificate with its key, and the chain behind it.</summary>
    private sealed record Identity(SslStreamCertificateContext Context, string Name, DateTimeOffset NotAfter);

    /// <summary>The status told last, and what it was made of.</summary>
    private sealed record Said(Identity? Client, Presented? Server, string? IdentityProblem, string? TrustProblem, TlsStatus Status);

    /// <summary>What the server showed at its last handshake.</summary>
    private sealed record Presented(string Subject, DateTimeOffset NotAfter, DateTimeOffset? AuthorityNotAfter);

    /// <summary>Looks at the files too, when nobody did for a while: a broken one is an alarm before the connection breaks. The same
    /// object as long as nothing changed.</summary>
    public TlsStatus Status
    {
        get
        {
            var last = Interlocked.Read(ref _checked);
            if (_time.GetElapsedTime(last).Ticks >= Interlocked.Read(ref _checkAfter)
                && Interlocked.CompareExchange(ref _checked, _time.GetTimestamp(), last) == last)
            {
                Interlocked.Exchange(ref _checkAfter, UntilCheck.Ticks);
                _identity?.Refresh();
                _trusted?.Refresh();
            }
            var client = _identity?.Value;
            var server = _server;
            var (identityProblem, trustProblem) = (_identity?.Problem, _trusted?.Problem);
            var said = _said;
            // Asked every second of every peer.
            if (said is not null && ReferenceEquals(said.Client, client) && ReferenceEquals(said.Server, server)
                && identityProblem == said.IdentityProblem && trustProblem == said.TrustProblem)
                return said.Status;
            var status = new TlsStatus(client?.Name, client?.NotAfter, server?.Subject, server?.NotAfter, server?.AuthorityNotAfter, Problem);
            if (status == said?.Status)
                status = said.Status;
            _said = new Said(client, server, identityProblem, trustProblem, status);
            return status;
        }
    }

    private string? Problem => (IdentityProblem, TrustProblem) switch
    {
        ({ } identity, { } trust) => $"{identity}; {trust}",
        var (identity, trust) => identity ?? trust,
    };

    private string? IdentityProblem => _identity?.Problem is { } problem
        ? $"our client certificate cannot be used (cert-file {_options.CertFile}, key-file {_options.KeyFile}): {problem}" : null;

    private string? TrustProblem => _trusted?.Problem is { } problem
        ? $"trusted-ca-file {_options.TrustedCaFile} cannot be used: {problem}" : null;

    /// <summary>Makes the handshake over a fresh connection, which the result owns.</summary>
    /// <param name="heard">Called whenever something came over it afterwards.</param>
    /// <exception cref="AuthenticationException">It failed; says which side is at fault.</exception>
    public async ValueTask<SslStream> HandshakeAsync(Stream transport, Action? heard, CancellationToken cancellation)
    {
        Interlocked.Exchange(ref _checked, _time.GetTimestamp());
        var identity = _identity?.Refresh();
        if (_identity is not null && identity is null)
            throw new TlsFaultException(StoreFault.CertificateUnusable, IdentityProblem!);
        var trusted = _trusted?.Refresh();
        if (_trusted is not null && trusted is null)
            throw new TlsFaultException(StoreFault.CertificateUnusable, TrustProblem!);
        var stream = new HeardTlsStream(transport, heard);
        try
        {
            await stream.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = _host,
                ApplicationProtocols = [SslApplicationProtocol.Http2],
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                // A resumed session would keep the old client certificate after a rotation.
                AllowTlsResume = false,
                ClientCertificateContext = identity?.Context,
                RemoteCertificateValidationCallback = (_, presented, chain, errors) => Verify(presented, chain, errors, trusted),
            }, cancellation).ConfigureAwait(false);
            return stream;
        }
        catch
        {
            await stream.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private bool Verify(X509Certificate? presented, X509Chain? chain, SslPolicyErrors errors, X509Certificate2Collection? trusted)
    {
        if (presented is not X509Certificate2 certificate)
            throw new TlsFaultException(StoreFault.TlsFailed, "the server presented no certificate");
        if (_options.InsecureSkipTlsVerify)
        {
            _server = new Presented(certificate.Subject, certificate.NotAfter.ToUniversalTime(), null);
            return true;
        }
        // What it showed is worth knowing also when it is refused for being too old.
        _server = new Presented(certificate.Subject, certificate.NotAfter.ToUniversalTime(), _server?.AuthorityNotAfter);
        if ((errors & SslPolicyErrors.RemoteCertificateNameMismatch) != 0)
        {
            throw new TlsFaultException(StoreFault.WrongServerName,
                $"the server's certificate ({certificate.Subject}) is not made for '{_host}': " +
                "connect by a name that it lists, or have one issued that lists this name");
        }
        if (trusted is null)
        {
            return errors == SslPolicyErrors.None ? true : throw new TlsFaultException(StoreFault.UnknownAuthority,
                $"the operating system does not trust the server's certificate ({certificate.Subject}, issued by " +
                $"{certificate.Issuer}): name its authority in trusted-ca-file");
        }
        using var check = new X509Chain();
        check.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        check.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        check.ChainPolicy.DisableCertificateDownloads = true;
        check.ChainPolicy.VerificationTime = _time.GetUtcNow().UtcDateTime;
        check.ChainPolicy.CustomTrustStore.AddRange(trusted);
        if (chain is not null)
            check.ChainPolicy.ExtraStore.AddRange(chain.ChainPolicy.ExtraStore);
        if (check.Build(certificate))
        {
            _server = _server with { AuthorityNotAfter = check.ChainElements[^1].Certificate.NotAfter.ToUniversalTime() };
            return true;
        }
        throw new TlsFaultException(Fault(check),
            $"the server's certificate ({certificate.Subject}, issued by {certificate.Issuer}) does not verify with trusted-ca-file " +
            $"{_options.TrustedCaFile}: {string.Join(", ", check.ChainStatus.Select(s => s.Status))}");
    }

    /// <summary>Who issued it comes first: the times of a certificate that a stranger signed say nothing.</summary>
    private StoreFault Fault(X509Chain check)
    {
        var found = check.ChainStatus.Aggregate(X509ChainStatusFlags.NoError, (all, one) => all | one.Status);
        if ((found & ~X509ChainStatusFlags.NotTimeValid) != 0)
            return StoreFault.UnknownAuthority;
        var now = _time.GetUtcNow().UtcDateTime;
        return check.ChainElements.Any(element => element.Certificate.NotBefore.ToUniversalTime() > now)
            ? StoreFault.CertificateNotYetValid : StoreFault.CertificateExpired;
    }

    private Identity ParseIdentity(byte[][] files)
    {
        var pem = Encoding.UTF8.GetString(files[0]);
        var certificate = X509Certificate2.CreateFromPem(pem, Encoding.UTF8.GetString(files[1]));
        var expired = certificate.NotAfter.ToUniversalTime() <= _time.GetUtcNow().UtcDateTime;
        // With nothing better at hand the server may say it.
        if (expired && _identity!.Value is not null)
            throw new CryptographicException($"it expired on {certificate.NotAfter.ToUniversalTime():u}");
        var chain = new X509Certificate2Collection();
        chain.ImportFromPem(pem);
        return new Identity(SslStreamCertificateContext.Create(certificate, chain, offline: true),
            certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: false), certificate.NotAfter.ToUniversalTime());
    }

    private static X509Certificate2Collection ParseBundle(byte[][] files)
    {
        var bundle = new X509Certificate2Collection();
        var pem = Encoding.UTF8.GetString(files[0]);
        bundle.ImportFromPem(pem);
        // A block that cannot be read is passed over in silence.
        if (pem.AsSpan().Count("-----BEGIN CERT") is var begun && begun > bundle.Count)
            throw new CryptographicException($"{begun - bundle.Count} of {begun} certificates in it are cut short or no PEM");
        return bundle.Count > 0 ? bundle : throw new CryptographicException("there is no certificate in it");
    }
}
