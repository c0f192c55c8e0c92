using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.KubeApi.Auth;

/// <summary>The cluster's certificate authority: its own certificate, the server's, and client certificates with user and groups.</summary>
internal sealed class Authority : IDisposable
{
    private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly DateTimeOffset _from = DateTimeOffset.UtcNow.AddMinutes(-5);
    private readonly DateTimeOffset _to = DateTimeOffset.UtcNow.AddYears(2);

    public Authority()
    {
        var request = new CertificateRequest("CN=kubernetes", _key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        Certificate = request.CreateSelfSigned(_from, _to);
    }

    public X509Certificate2 Certificate { get; }

    public string Pem => Certificate.ExportCertificatePem();

    /// <summary>Signs service-account tokens as well.</summary>
    public ECDsa Key => _key;

    public X509Certificate2 Server(IEnumerable<string> names)
    {
        var alternatives = new SubjectAlternativeNameBuilder();
        foreach (var name in names.Distinct())
        {
            if (IPAddress.TryParse(name, out var address))
                alternatives.AddIpAddress(address);
            else
                alternatives.AddDnsName(name);
        }
        return Issue(new X500DistinguishedName("CN=kube-apiserver"), "1.3.6.1.5.5.7.3.1", alternatives.Build(), out var key, (leaf, own) =>
        {
            // Through PKCS#12, because a key that is only in memory is not always taken by TLS.
            using var together = leaf.CopyWithPrivateKey(own);
            return X509CertificateLoader.LoadPkcs12(together.Export(X509ContentType.Pkcs12), null);
        });
    }

    /// <summary>Certificate and key as PEM texts: CN is the user, each O a group.</summary>
    public (string Certificate, string Key) Client(KubeUser user)
    {
        var subject = new X500DistinguishedNameBuilder();
        subject.AddCommonName(user.Name);
        foreach (var group in user.Groups)
            subject.AddOrganizationName(group);
        using var leaf = Issue(subject.Build(), "1.3.6.1.5.5.7.3.2", null, out var key, (made, _) => made);
        return (leaf.ExportCertificatePem(), key);
    }

    private X509Certificate2 Issue(X500DistinguishedName subject, string usage, X509Extension? alternatives, out string keyPem,
        Func<X509Certificate2, ECDsa, X509Certificate2> finish)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest(subject, key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid(usage)], false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(Certificate, true, false));
        if (alternatives is not null)
            request.CertificateExtensions.Add(alternatives);
        var leaf = request.Create(Certificate, _from, _to.AddDays(-1), RandomNumberGenerator.GetBytes(15).Prepend((byte)1).ToArray());
        keyPem = key.ExportPkcs8PrivateKeyPem();
        return finish(leaf, key);
    }

    /// <summary>User and groups of a client certificate of this authority; null when it is not ours.</summary>
    public KubeUser? UserOf(X509Certificate2 certificate)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(Certificate);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        if (!chain.Build(certificate))
            return null;
        var name = "";
        var groups = new List<string> { "system:authenticated" };
        foreach (var part in certificate.SubjectName.EnumerateRelativeDistinguishedNames())
        {
            if (part.HasMultipleElements)
                continue;
            var value = part.GetSingleElementValue() ?? "";
            if (part.GetSingleElementType().Value == "2.5.4.3")
                name = value;
            else if (part.GetSingleElementType().Value == "2.5.4.10")
                groups.Add(value);
        }
        return name == "" ? null : new KubeUser(name, groups);
    }

    public void Dispose()
    {
        Certificate.Dispose();
        _key.Dispose();
    }
}
