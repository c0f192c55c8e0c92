using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Pki;

/// <summary>
/// A certificate authority for clustermesh TLS: P-256 keys, PEM files, the subjects and names that Cilium's own installers use
/// (kvstore contract §4.4). The private key stays with whoever made the authority.
/// </summary>
public sealed class CertificateAuthority : IDisposable
{
    private readonly X509Certificate2 _certificate;
    private readonly TimeProvider _time;

    private CertificateAuthority(X509Certificate2 certificate, TimeProvider time)
    {
        _certificate = certificate;
        _time = time;
    }

    /// <summary>PEM of the CA certificate: what peers trust.</summary>
    public string CertificatePem => _certificate.ExportCertificatePem();

    /// <summary>PEM (PKCS#8) of the CA's private key.</summary>
    public string KeyPem
    {
        get
        {
            using var key = _certificate.GetECDsaPrivateKey()!;
            return key.ExportPkcs8PrivateKeyPem();
        }
    }

    public static CertificateAuthority Create(string commonName, TimeSpan lifetime, TimeProvider? time = null)
    {
        time ??= TimeProvider.System;
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={commonName}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        var now = time.GetUtcNow();
        return new CertificateAuthority(request.CreateSelfSigned(now - ClockSkew, now + lifetime), time);
    }

    /// <exception cref="CryptographicException">The PEM texts are not a certificate and its key.</exception>
    public static CertificateAuthority Load(string certificatePem, string keyPem, TimeProvider? time = null) =>
        new(X509Certificate2.CreateFromPem(certificatePem, keyPem), time ?? TimeProvider.System);

    /// <summary>Issues a certificate for server and client use.</summary>
    /// <param name="commonName">For a client this is the etcd user.</param>
    /// <param name="dnsNames">Names a server is reached by; wildcards cover one label.</param>
    /// <param name="addresses">Addresses a server is reached by.</param>
    public IssuedCertificate Issue(string commonName, IEnumerable<string> dnsNames, IEnumerable<IPAddress> addresses, TimeSpan lifetime)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={commonName}", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension(
            [new Oid("1.3.6.1.5.5.7.3.1"), new Oid("1.3.6.1.5.5.7.3.2")], false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_certificate, true, false));
        var names = new SubjectAlternativeNameBuilder();
        var any = false;
        foreach (var name in dnsNames)
        {
            names.AddDnsName(name);
            any = true;
        }
        foreach (var address in addresses)
        {
            names.AddIpAddress(address);
            any = true;
        }
        if (any)
            request.CertificateExtensions.Add(names.Build());
        var now = _time.GetUtcNow();
        var end = now + lifetime < _certificate.NotAfter ? now + lifetime : _certificate.NotAfter;
        using var issued = request.Create(_certificate, now - ClockSkew, end, RandomNumberGenerator.GetBytes(16));
        return new IssuedCertificate(issued.ExportCertificatePem(), key.ExportPkcs8PrivateKeyPem());
    }

    public void Dispose() => _certificate.Dispose();

    /// <summary>Certificates begin this much in the past, so that a peer whose clock is a little behind accepts a fresh one.</summary>
    private static readonly TimeSpan ClockSkew = TimeSpan.FromMinutes(5);
}

/// <summary>A certificate and its PKCS#8 key, both PEM.</summary>
public sealed record IssuedCertificate(string CertificatePem, string KeyPem);
