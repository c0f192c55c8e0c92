using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Joining.Protocol;

/// <summary>
/// Proof that a request comes from whoever holds the key that the token was bound to: a signature over the call's name and its body. A
/// stolen token is then worth nothing once its owner has begun.
/// </summary>
internal static class TakerSignature
{
    public const string Header = "mesh-join-signature";
    private const int SignatureMax = 1024;

    public static string Sign(string keyPem, string call, byte[] body)
    {
        using var key = ECDsa.Create();
        key.ImportFromPem(keyPem);
        return Convert.ToBase64String(key.SignData(Signed(call, body), HashAlgorithmName.SHA256));
    }

    /// <param name="publicKey">SubjectPublicKeyInfo.</param>
    public static bool Verify(ReadOnlySpan<byte> publicKey, string call, byte[] body, string? signature)
    {
        if (signature is not { Length: > 0 and <= SignatureMax })
            return false;
        try
        {
            using var key = ECDsa.Create();
            key.ImportSubjectPublicKeyInfo(publicKey, out _);
            return key.VerifyData(Signed(call, body), Convert.FromBase64String(signature), HashAlgorithmName.SHA256);
        }
        catch (Exception e) when (e is CryptographicException or FormatException)
        {
            return false;
        }
    }

    /// <summary>SubjectPublicKeyInfo of a request that is signed by its own key.</summary>
    public static byte[] PublicKeyOf(string request)
    {
        try
        {
            return CertificateRequest.LoadSigningRequestPem(request, HashAlgorithmName.SHA256).PublicKey.ExportSubjectPublicKeyInfo();
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException or NotSupportedException)
        {
            throw new JoinException("malformed", $"the certificate request cannot be used: {InWords.Of(e)}", e);
        }
    }

    private static byte[] Signed(string call, byte[] body) => [.. "mesh-join/"u8, .. System.Text.Encoding.ASCII.GetBytes(call), 0, .. body];
}
