using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Xunit;

namespace Mesh.Pki.Tests;

/// <summary>A request gives its key to be signed, and nothing else.</summary>
public sealed class RequestTests : IDisposable
{
    private readonly CertificateAuthority _authority = CertificateAuthority.Create("tokyo CA", TimeSpan.FromDays(10));

    public void Dispose() => _authority.Dispose();

    private static X509Certificate2 Parse(string pem) => X509Certificate2.CreateFromPem(pem);

    [Fact]
    public void A_request_is_signed_for_its_own_key()
    {
        var (csr, key) = CertificateRequests.Create("whoever");
        var issued = _authority.IssueFor(csr, "remote-osaka", TimeSpan.FromDays(1));
        Assert.True(CertificateRequests.IsFor(issued, key));
        Assert.False(CertificateRequests.IsFor(issued, CertificateRequests.Create("other").KeyPem));
        Assert.True(Scratch.Verifies(issued, _authority.CertificatePem));
        Assert.Equal(CertificateRequests.KeyFingerprint(csr), CertificateRequests.KeyFingerprint(CertificateRequests.Create("again", key)));
    }

    [Fact]
    public void Nothing_that_a_request_asks_for_is_granted()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var greedy = new CertificateRequest("CN=admin-tokyo,O=root", key, HashAlgorithmName.SHA256);
        greedy.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        greedy.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName("tokyo.mesh.cilium.io");
        greedy.CertificateExtensions.Add(names.Build());

        using var issued = Parse(_authority.IssueFor(greedy.CreateSigningRequestPem(), "remote-osaka", TimeSpan.FromDays(1)));

        Assert.Equal("CN=remote-osaka", issued.Subject);
        Assert.False(issued.Extensions.OfType<X509BasicConstraintsExtension>().Single().CertificateAuthority);
        Assert.Equal(X509KeyUsageFlags.DigitalSignature, issued.Extensions.OfType<X509KeyUsageExtension>().Single().KeyUsages);
        Assert.Empty(issued.Extensions.OfType<X509SubjectAlternativeNameExtension>());
        var uses = issued.Extensions.OfType<X509EnhancedKeyUsageExtension>().Single().EnhancedKeyUsages.Cast<Oid>();
        Assert.Equal(["1.3.6.1.5.5.7.3.2"], uses.Select(use => use.Value));
    }

    [Fact]
    public void A_request_that_is_not_signed_by_its_key_is_refused()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var stranger = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        // A request for the key of one, signed by another.
        var request = new CertificateRequest(new X500DistinguishedName("CN=x"), new PublicKey(key), HashAlgorithmName.SHA256);
        var forged = PemEncoding.WriteString("CERTIFICATE REQUEST", request.CreateSigningRequest(X509SignatureGenerator.CreateForECDsa(stranger)));
        Assert.Contains("cannot be used", Assert.Throws<PkiException>(() => _authority.IssueFor(forged, "remote-osaka", TimeSpan.FromDays(1))).Message);

        var honest = new CertificateRequest("CN=x", key, HashAlgorithmName.SHA256).CreateSigningRequestPem();
        Assert.NotEmpty(_authority.IssueFor(honest, "remote-osaka", TimeSpan.FromDays(1)));
    }

    [Fact]
    public void Weak_keys_and_rubbish_are_refused()
    {
        using var weak = RSA.Create(1024);
        var csr = new CertificateRequest("CN=x", weak, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1).CreateSigningRequestPem();
        Assert.Contains("2048", Assert.Throws<PkiException>(() => _authority.IssueFor(csr, "remote-osaka", TimeSpan.FromDays(1))).Message);
        var empty = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----";
        foreach (var rubbish in new[] { "", empty, _authority.CertificatePem, new string('a', 100_000) })
            Assert.Throws<PkiException>(() => _authority.IssueFor(rubbish, "remote-osaka", TimeSpan.FromDays(1)));
        using var strong = RSA.Create(2048);
        var good = new CertificateRequest("CN=x", strong, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1).CreateSigningRequestPem();
        Assert.NotEmpty(_authority.IssueFor(good, "remote-osaka", TimeSpan.FromDays(1)));
    }

    [Theory]
    [InlineData("")]
    [InlineData("a\nb")]
    public void A_common_name_is_text(string name) =>
        Assert.Throws<PkiException>(() => _authority.IssueFor(CertificateRequests.Create("x").CsrPem, name, TimeSpan.FromDays(1)));

    [Fact]
    public void A_common_name_cannot_smuggle_a_second_one()
    {
        using var issued = Parse(_authority.IssueFor(CertificateRequests.Create("x").CsrPem, "remote-osaka,CN=admin-tokyo", TimeSpan.FromDays(1)));
        Assert.Equal("remote-osaka,CN=admin-tokyo", issued.GetNameInfo(X509NameType.SimpleName, false));
    }

    [Fact]
    public void A_certificate_never_outlives_its_authority()
    {
        using var issued = Parse(_authority.IssueFor(CertificateRequests.Create("x").CsrPem, "remote-osaka", TimeSpan.FromDays(100)));
        Assert.Equal(_authority.NotAfter, issued.NotAfter.ToUniversalTime());
    }

    [Fact]
    public void An_authority_below_a_root_sends_itself_along()
    {
        using var root = CertificateAuthority.Create("root", TimeSpan.FromDays(10));
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var below = CertificateAuthority.Create("below", TimeSpan.FromDays(5));
        var cross = root.CrossSign(below);
        using var between = CertificateAuthority.Load(cross, below.KeyPem);

        var issued = between.Issue("server", CertificateNames.ApiServer, CertificateUse.ServerAndClient, TimeSpan.FromDays(1)).CertificatePem;

        Assert.Equal(2, CertificateFacts.AllOfPem(issued).Count);
        Assert.True(Scratch.Verifies(issued, root.CertificatePem));
        var leafAlone = issued[..(issued.IndexOf("-----END", StringComparison.Ordinal) + "-----END CERTIFICATE-----".Length)];
        Assert.False(Scratch.Verifies(leafAlone, root.CertificatePem));
    }
}
