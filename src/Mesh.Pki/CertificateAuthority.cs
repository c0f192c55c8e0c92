using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Mesh.Pki;

/// <summary>
/// A certificate authority for clustermesh TLS: P-256 keys, PEM files, the subjects and names that Cilium's own installers use
/// (kvstore contract §4.4). The private key stays with whoever made the authority.
/// <para>
/// Besides its own certificate it may carry a chain: what has to go out with each leaf so that whoever trusts only an older or a
/// higher authority can verify it. Everything it issues has the chain behind it, in one PEM text.
/// </para>
/// </summary>
public sealed class CertificateAuthority : IDisposable
{
    private const string ServerAuthentication = "1.3.6.1.5.5.7.3.1";
    private const string ClientAuthentication = "1.3.6.1.5.5.7.3.2";

    /// <summary>Certificates begin this much in the past, so that a peer whose clock is a little behind accepts a fresh one.</summary>
    private static readonly TimeSpan ClockSkew = TimeSpan.FromMinutes(5);

    private readonly X509Certificate2 _certificate;
    private readonly IReadOnlyList<string> _above;
    private readonly TimeProvider _time;

    private CertificateAuthority(X509Certificate2 certificate, IReadOnlyList<string> above, TimeProvider time)
    {
        _certificate = certificate;
        _above = above;
        _time = time;
    }

    /// <summary>PEM of the CA certificate: what peers trust.</summary>
    public string CertificatePem => _certificate.ExportCertificatePem();

    /// <summary>PEM of the CA certificate and of the chain that goes out with its leaves.</summary>
    public string WithChainPem => PemText.Join([CertificatePem, .. _above]);

    /// <summary>What goes out behind each leaf: PEM texts. A root is sent to nobody, an authority below a root to everybody.</summary>
    internal IReadOnlyList<string> Chain => CertificateFacts.IsSelfIssued(_certificate) ? _above : [CertificatePem, .. _above];

    /// <summary>PEM (PKCS#8) of the CA's private key.</summary>
    public string KeyPem
    {
        get
        {
            if (_certificate.GetECDsaPrivateKey() is { } curve)
            {
                using (curve)
                    return curve.ExportPkcs8PrivateKeyPem();
            }
            using var rsa = _certificate.GetRSAPrivateKey()!;
            return rsa.ExportPkcs8PrivateKeyPem();
        }
    }

    /// <summary>Name by which leaves point at it, in hexadecimal: hash of its public key.</summary>
    public string KeyId => CertificateFacts.KeyIdOf(_certificate);

    public DateTimeOffset NotAfter => _certificate.NotAfter.ToUniversalTime();

    public static CertificateAuthority Create(string commonName, TimeSpan lifetime, TimeProvider? time = null)
    {
        time ??= TimeProvider.System;
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(Subject(commonName), key, HashAlgorithmName.SHA256);
        AddAuthorityExtensions(request);
        var now = time.GetUtcNow();
        return new CertificateAuthority(request.CreateSelfSigned(now - ClockSkew, now + lifetime), [], time);
    }

    /// <param name="certificatePem">The authority's certificate first; behind it what goes out with its leaves.</param>
    /// <exception cref="CryptographicException">The PEM texts are not a certificate and its key.</exception>
    /// <exception cref="ArgumentException">The key is another certificate's.</exception>
    public static CertificateAuthority Load(string certificatePem, string keyPem, TimeProvider? time = null)
    {
        var authority = X509Certificate2.CreateFromPem(certificatePem, keyPem);
        if (!CertificateFacts.IsAuthority(authority))
        {
            using (authority)
                throw new CryptographicException($"{authority.Subject} is not a certificate authority");
        }
        return new CertificateAuthority(authority, [.. PemText.Certificates(certificatePem).Skip(1)], time ?? TimeProvider.System);
    }

    /// <summary>Makes a key and issues a certificate for server and client use.</summary>
    /// <param name="commonName">For a client this is the etcd user.</param>
    /// <param name="dnsNames">Names a server is reached by; wildcards cover one label.</param>
    /// <param name="addresses">Addresses a server is reached by.</param>
    public IssuedCertificate Issue(string commonName, IEnumerable<string> dnsNames, IEnumerable<IPAddress> addresses, TimeSpan lifetime) =>
        Issue(commonName, new CertificateNames([.. dnsNames], [.. addresses]), CertificateUse.ServerAndClient, lifetime);

    /// <summary>Makes a key and issues a certificate. It never outlives the authority.</summary>
    public IssuedCertificate Issue(string commonName, CertificateNames names, CertificateUse use, TimeSpan lifetime)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(Subject(commonName), key, HashAlgorithmName.SHA256);
        return new IssuedCertificate(Sign(request, names, use, lifetime), key.ExportPkcs8PrivateKeyPem());
    }

    /// <summary>
    /// Signs the public key of a request and takes nothing else from it: subject, names, uses and lifetime are the caller's to say.
    /// The request's own signature proves that its sender holds the private key.
    /// </summary>
    /// <returns>PEM: the certificate, and behind it the chain to send.</returns>
    /// <exception cref="PkiException">The request cannot be read, is not signed by its own key, or its key is too weak.</exception>
    public string IssueFor(string csrPem, string commonName, TimeSpan lifetime, CertificateNames? names = null,
        CertificateUse use = CertificateUse.Client)
    {
        var asked = CertificateRequests.ReadPublicKey(csrPem);
        return Sign(new CertificateRequest(Subject(commonName), asked, HashAlgorithmName.SHA256), names ?? CertificateNames.None, use, lifetime);
    }

    /// <summary>Signs a request as an authority below this one: it may issue, and its certificates lead to this one.</summary>
    /// <returns>PEM: the new authority's certificate, and behind it the chain to send.</returns>
    /// <exception cref="PkiException">As <see cref="IssueFor"/>.</exception>
    public string IssueAuthority(string csrPem, string commonName, TimeSpan lifetime)
    {
        var request = new CertificateRequest(Subject(commonName), CertificateRequests.ReadPublicKey(csrPem), HashAlgorithmName.SHA256);
        return PemText.Join([SignAuthority(request, _time.GetUtcNow() + lifetime), .. Chain]);
    }

    /// <summary>A certificate for another authority's key, made by this one: who trusts only this one verifies the other's leaves
    /// through it. PEM.</summary>
    internal string CrossSign(CertificateAuthority other) => SignAuthority(
        new CertificateRequest(other._certificate.SubjectName, other._certificate.PublicKey, HashAlgorithmName.SHA256), other.NotAfter);

    /// <summary>The same authority with other certificates above it.</summary>
    internal CertificateAuthority Below(IReadOnlyList<string> above) => Load(PemText.Join([CertificatePem, .. above]), KeyPem, _time);

    public void Dispose() => _certificate.Dispose();

    private string Sign(CertificateRequest request, CertificateNames names, CertificateUse use, TimeSpan lifetime)
    {
        if (lifetime <= TimeSpan.Zero)
            throw new PkiException($"a certificate's lifetime of {lifetime} is none: give one above zero");
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        var uses = new OidCollection { new(ClientAuthentication) };
        if (use == CertificateUse.ServerAndClient)
            uses.Add(new Oid(ServerAuthentication));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(uses, false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_certificate, true, false));
        if (!names.IsEmpty)
            request.CertificateExtensions.Add(names.ToExtension());
        var end = _time.GetUtcNow() + lifetime;
        return PemText.Join([CreatePem(request, end < NotAfter ? end : NotAfter), .. Chain]);
    }

    private string SignAuthority(CertificateRequest request, DateTimeOffset end)
    {
        AddAuthorityExtensions(request);
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_certificate, true, false));
        return CreatePem(request, end < NotAfter ? end : NotAfter);
    }

    private string CreatePem(CertificateRequest request, DateTimeOffset end)
    {
        var now = _time.GetUtcNow();
        if (end <= now)
            throw new PkiException($"the authority {_certificate.Subject} expired on {NotAfter:u}: it can issue nothing; make a new one");
        var generator = _certificate.GetECDsaPrivateKey() is { } curve
            ? X509SignatureGenerator.CreateForECDsa(curve)
            : X509SignatureGenerator.CreateForRSA(_certificate.GetRSAPrivateKey()!, RSASignaturePadding.Pkcs1);
        using var issued = request.Create(_certificate.SubjectName, generator, now - ClockSkew, end, RandomNumberGenerator.GetBytes(16));
        return issued.ExportCertificatePem();
    }

    private static void AddAuthorityExtensions(CertificateRequest request)
    {
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
    }

    private static X500DistinguishedName Subject(string commonName)
    {
        // The bound is X.509's own (ub-common-name).
        if (commonName.Length is 0 or > 64 || commonName.Any(char.IsControl))
            throw new PkiException($"'{commonName}' cannot be a common name: 1 to 64 printable characters are allowed");
        var subject = new X500DistinguishedNameBuilder();
        subject.AddCommonName(commonName);
        return subject.Build();
    }
}

/// <summary>A certificate (with the chain to send behind it) and its PKCS#8 key, both PEM.</summary>
public sealed record IssuedCertificate(string CertificatePem, string KeyPem);

/// <summary>PEM texts of several certificates.</summary>
internal static class PemText
{
    public static string Join(IEnumerable<string> blocks)
    {
        var text = new StringBuilder();
        foreach (var block in blocks)
            text.Append(block.AsSpan().Trim()).Append('\n');
        return text.ToString();
    }

    /// <summary>Each certificate of a text as a PEM text of its own; other blocks are passed over.</summary>
    public static IEnumerable<string> Certificates(string text)
    {
        var all = new X509Certificate2Collection();
        all.ImportFromPem(text);
        foreach (var certificate in all)
        {
            using (certificate)
                yield return certificate.ExportCertificatePem();
        }
    }
}
