using System.Net.Security;
using System.Runtime.CompilerServices;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Mesh.ClusterMesh.Door.Access;

/// <summary>
/// The door's certificate and whom it trusts, from PEM files that are looked at before each handshake. A new file that cannot be used
/// leaves the last good one in force. TLS 1.2 is the least; a client without a certificate of the bundle does not get in.
/// </summary>
internal sealed class TlsMaterial
{
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2";

    private const int WarningDays = 30;

    /// <summary>Certificates that a client may send besides its own.</summary>
    private const int LongestChain = 8;

    private readonly WatchedFile<SslStreamCertificateContext> _server;
    private readonly WatchedFile<X509Certificate2Collection> _trusted;
    private readonly X509Certificate2Collection _alsoTrusted;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private string? _expiry;

    /// <summary>What came with a client's certificate in its handshake: needed again whenever the bundle changes. Lives as long as the
    /// certificate, which is the connection's.</summary>
    private readonly ConditionalWeakTable<X509Certificate2, X509Certificate2Collection> _presented = [];

    /// <exception cref="InvalidDataException">A file cannot be used at start.</exception>
    public TlsMaterial(DoorOptions options, TimeProvider time, Action<string> log)
    {
        (_time, _log) = (time, log);
        _alsoTrusted = [];
        _server = new([options.CertFile, options.KeyFile], contents => ParseServer(contents[0], contents[1], time), log);
        _trusted = new([options.TrustedCaFile], contents => ParseBundle(contents[0]), log);
    }

    private TlsMaterial(TlsMaterial of, X509Certificate2 alsoTrusted)
    {
        // Its own life is short, and the files are the same: one of the two does the talking.
        (_time, _log) = (of._time, _ => { });
        _server = of._server;
        _trusted = of._trusted;
        _alsoTrusted = [alsoTrusted];
    }

    public long TrustVersion => _trusted.Version;

    public IEnumerable<string> Errors => new[] { _server.Error, _trusted.Error }.OfType<string>();

    /// <summary>End of the server certificate's life.</summary>
    public DateTimeOffset ServerNotAfter => _server.Value.TargetCertificate.NotAfter;

    /// <summary>End of the first to end of the trusted authorities.</summary>
    public DateTimeOffset AuthorityNotAfter => _trusted.Value.Min(authority => authority.NotAfter.ToUniversalTime());

    /// <summary>What ends soon or has ended, with the mend; null when nothing does. Changes once a day.</summary>
    public string? Expiry
    {
        get
        {
            var said = new[]
            {
                Say("the door's certificate", ServerNotAfter, "issue a new one: `mesh ca issue server`"),
                Say("an authority that clients are trusted by", AuthorityNotAfter, "replace it: `mesh ca rotate`"),
            }.OfType<string>().ToList();
            return said.Count == 0 ? null : string.Join("; ", said);
        }
    }

    public X509Certificate2 Server => _server.Value.TargetCertificate;

    /// <summary>The same files, and one more authority: for the self-test, which has no peer's key.</summary>
    public TlsMaterial Trusting(X509Certificate2 authority) => new(this, authority);

    public void Refresh()
    {
        _server.Refresh();
        _trusted.Refresh();
        var expiry = Expiry;
        if (Interlocked.Exchange(ref _expiry, expiry) != expiry)
            _log($"door: {expiry ?? "no certificate expires soon"}");
    }

    public SslServerAuthenticationOptions ForHandshake()
    {
        Refresh();
        return new SslServerAuthenticationOptions
        {
            ServerCertificateContext = _server.Value,
            ClientCertificateRequired = true,
            EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
            AllowRenegotiation = false,
            RemoteCertificateValidationCallback = (_, certificate, chain, _) => certificate is X509Certificate2 client && Admits(client, chain),
        };
    }

    private bool Admits(X509Certificate2 client, X509Chain? handshake)
    {
        if (handshake is not { ChainPolicy.ExtraStore: { Count: > 0 and <= LongestChain } presented })
            return Trusts(client);
        // Copies: those of the handshake are its own.
        var between = new X509Certificate2Collection();
        foreach (var certificate in presented)
            between.Add(X509CertificateLoader.LoadCertificate(certificate.RawDataMemory.Span));
        if (!Trusts(client, between))
            return false;
        _presented.AddOrUpdate(client, between);
        return true;
    }

    /// <summary>True when the certificate chains to the bundle as it is now, is in its time, and may be a client's.</summary>
    public bool Trusts(X509Certificate2 client) => Trusts(client, _presented.TryGetValue(client, out var between) ? between : []);

    private bool Trusts(X509Certificate2 client, X509Certificate2Collection between)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(_trusted.Value);
        chain.ChainPolicy.CustomTrustStore.AddRange(_alsoTrusted);
        chain.ChainPolicy.ExtraStore.AddRange(between);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.DisableCertificateDownloads = true;
        chain.ChainPolicy.ApplicationPolicy.Add(new Oid(ClientAuthentication));
        chain.ChainPolicy.VerificationTimeIgnored = false;
        chain.ChainPolicy.VerificationTime = _time.GetUtcNow().UtcDateTime;
        return chain.Build(client);
    }

    private string? Say(string what, DateTimeOffset end, string mend)
    {
        var left = end - _time.GetUtcNow();
        return left.TotalDays >= WarningDays ? null
            : left <= TimeSpan.Zero ? $"error: {what} expired on {end:u}: {mend}"
            : $"warning: {what} expires in {(int)left.TotalDays} days, on {end:u}: {mend}";
    }

    private static SslStreamCertificateContext ParseServer(byte[] certificate, byte[] key, TimeProvider time)
    {
        var pem = Encoding.UTF8.GetString(certificate);
        var server = X509Certificate2.CreateFromPem(pem, Encoding.UTF8.GetString(key));
        if (server.NotAfter.ToUniversalTime() <= time.GetUtcNow().UtcDateTime)
            throw new InvalidDataException($"the certificate expired on {server.NotAfter.ToUniversalTime():u}");
        var chain = new X509Certificate2Collection();
        chain.ImportFromPem(pem);
        return SslStreamCertificateContext.Create(server, chain, offline: true);
    }

    private static X509Certificate2Collection ParseBundle(byte[] content)
    {
        var bundle = new X509Certificate2Collection();
        var pem = Encoding.UTF8.GetString(content);
        bundle.ImportFromPem(pem);
        // A block that cannot be read is passed over in silence, and all clients of its authority would be cut.
        if (pem.AsSpan().Count("-----BEGIN CERT") is var begun && begun > bundle.Count)
            throw new InvalidDataException($"{begun - bundle.Count} of {begun} certificates in the CA bundle are cut short or no PEM");
        return bundle.Count > 0 ? bundle : throw new InvalidDataException("no certificate in the CA bundle");
    }
}
