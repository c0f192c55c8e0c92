using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Pki;

/// <summary>What people and programs want to know of a certificate.</summary>
/// <param name="CommonName">"" when it has none.</param>
/// <param name="KeyId">Hash of its own public key, hexadecimal: an authority's name for its leaves.</param>
/// <param name="IssuerKeyId">Key of the authority that issued it; "" when the certificate does not say.</param>
public sealed record CertificateFacts(
    string CommonName, string Issuer, string Serial, string KeyId, string IssuerKeyId,
    DateTimeOffset NotBefore, DateTimeOffset NotAfter, CertificateNames Names)
{
    /// <summary>From this many days before the end on it is worth a warning.</summary>
    public const int WarningDays = 30;

    public static CertificateFacts Of(X509Certificate2 certificate) => new(
        certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: false),
        certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: true),
        certificate.SerialNumber, KeyIdOf(certificate), IssuerKeyIdOf(certificate),
        certificate.NotBefore.ToUniversalTime(), certificate.NotAfter.ToUniversalTime(), CertificateNames.Of(certificate));

    /// <summary>Of the first certificate in a PEM text.</summary>
    /// <exception cref="CryptographicException">There is none.</exception>
    public static CertificateFacts OfPem(string pem)
    {
        using var certificate = X509Certificate2.CreateFromPem(pem);
        return Of(certificate);
    }

    /// <summary>Of every certificate in a PEM text, in its order.</summary>
    public static IReadOnlyList<CertificateFacts> AllOfPem(string pem) => [.. PemText.Certificates(pem).Select(OfPem)];

    /// <summary>Whole days left, rounded down; below zero when it has expired.</summary>
    public int DaysLeft(DateTimeOffset now) => (int)Math.Floor((NotAfter - now).TotalDays);

    /// <summary>"expires in 12 days", "expired 2 days ago".</summary>
    public string Expiry(DateTimeOffset now)
    {
        var left = NotAfter - now;
        return left > TimeSpan.Zero ? $"expires in {Span(left)}" : $"expired {Span(-left)} ago";
    }

    internal static bool IsAuthority(X509Certificate2 certificate) =>
        certificate.Extensions.OfType<X509BasicConstraintsExtension>().Any(constraints => constraints.CertificateAuthority);

    internal static bool IsSelfIssued(X509Certificate2 certificate) =>
        certificate.SubjectName.RawData.AsSpan().SequenceEqual(certificate.IssuerName.RawData)
        && (IssuerKeyIdOf(certificate) is "" || IssuerKeyIdOf(certificate) == KeyIdOf(certificate));

    internal static string KeyIdOf(X509Certificate2 certificate)
    {
        var named = certificate.Extensions.OfType<X509SubjectKeyIdentifierExtension>().FirstOrDefault()?.SubjectKeyIdentifierBytes;
        return Convert.ToHexStringLower(named is { } bytes
            ? bytes.Span
            : new X509SubjectKeyIdentifierExtension(certificate.PublicKey, false).SubjectKeyIdentifierBytes.Span);
    }

    private static string IssuerKeyIdOf(X509Certificate2 certificate) =>
        certificate.Extensions.OfType<X509AuthorityKeyIdentifierExtension>().FirstOrDefault()?.KeyIdentifier is { } bytes
            ? Convert.ToHexStringLower(bytes.Span) : "";

    private static string Span(TimeSpan span) => span.TotalDays >= 2 ? $"{(int)span.TotalDays} days"
        : span.TotalHours >= 2 ? $"{(int)span.TotalHours} hours" : $"{(int)span.TotalMinutes} minutes";
}
