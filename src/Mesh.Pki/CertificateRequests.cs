using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Pki;

/// <summary>Signing requests: how somebody gets a certificate without its private key ever leaving the machine.</summary>
public static class CertificateRequests
{
    /// <summary>Far above any real request; what is longer is not looked at.</summary>
    private const int MaxCharacters = 16 << 10;

    /// <summary>A new P-256 key and a request for it.</summary>
    /// <param name="commonName">Only for those who read the request: the authority decides on the name.</param>
    public static (string CsrPem, string KeyPem) Create(string commonName)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        return (Create(commonName, key), key.ExportPkcs8PrivateKeyPem());
    }

    /// <summary>A request for a key that exists already: asking again with it gets a certificate for the same key.</summary>
    /// <exception cref="PkiException">The key cannot be read.</exception>
    public static string Create(string commonName, string keyPem)
    {
        using var key = ECDsa.Create();
        try
        {
            key.ImportFromPem(keyPem);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new PkiException($"the private key of the request cannot be read: {e.Message}", e);
        }
        return Create(commonName, key);
    }

    /// <summary>Hash of a request's public key, in hexadecimal: who asks again with the same key is the same caller.</summary>
    /// <exception cref="PkiException">The request cannot be read or is not signed by its own key.</exception>
    public static string KeyFingerprint(string csrPem) =>
        Convert.ToHexStringLower(SHA256.HashData(ReadPublicKey(csrPem).ExportSubjectPublicKeyInfo()));

    /// <summary>True when the certificate is for this private key.</summary>
    public static bool IsFor(string certificatePem, string keyPem)
    {
        try
        {
            using var pair = X509Certificate2.CreateFromPem(certificatePem, keyPem);
            return pair.HasPrivateKey;
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            return false;
        }
    }

    internal static PublicKey ReadPublicKey(string csrPem)
    {
        if (csrPem.Length > MaxCharacters)
            throw new PkiException($"a certificate request of {csrPem.Length} characters: at most {MaxCharacters} are read");
        CertificateRequest request;
        try
        {
            // Refused unless its signature is by the key that it asks for.
            request = CertificateRequest.LoadSigningRequestPem(csrPem, HashAlgorithmName.SHA256);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException or NotSupportedException)
        {
            throw new PkiException($"the certificate request cannot be used: {e.Message}", e);
        }
        using var curve = request.PublicKey.GetECDsaPublicKey();
        if (curve is { KeySize: >= 256 })
            return request.PublicKey;
        using var rsa = request.PublicKey.GetRSAPublicKey();
        if (rsa is { KeySize: >= 2048 and <= 8192 })
            return request.PublicKey;
        throw new PkiException("the certificate request's key cannot be used: make one of ECDSA P-256 or above, or of RSA with 2048 to 8192 bits");
    }

    private static string Create(string commonName, ECDsa key)
    {
        var subject = new X500DistinguishedNameBuilder();
        subject.AddCommonName(commonName);
        return new CertificateRequest(subject.Build(), key, HashAlgorithmName.SHA256).CreateSigningRequestPem();
    }
}
