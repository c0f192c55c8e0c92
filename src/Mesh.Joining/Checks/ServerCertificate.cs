using System.Globalization;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Joining.Checks;

/// <param name="Class">ok, authority, expired, name or tls.</param>
internal sealed record Verdict(string Class, string Text, int? DaysLeft = null)
{
    public bool IsGood => Class == "ok";
}

/// <summary>Judges the certificate that a server shows, and says which of the things that may be wrong with it is.</summary>
internal static class ServerCertificate
{
    public static Verdict Judge(X509Certificate2? certificate, X509Chain? presented, Authorities authorities, string host, TimeProvider time)
    {
        if (certificate is null)
            return new Verdict("tls", "it shows no certificate");
        var now = time.GetUtcNow();
        var notAfter = new DateTimeOffset(certificate.NotAfter.ToUniversalTime());
        var notBefore = new DateTimeOffset(certificate.NotBefore.ToUniversalTime());
        var days = (int)Math.Floor((notAfter - now).TotalDays);
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities.Certificates);
        chain.ChainPolicy.ExtraStore.AddRange((X509Certificate2[])[.. presented?.ChainElements.Select(element => element.Certificate) ?? []]);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        // A client's certificate of the same authority makes nobody a server.
        chain.ChainPolicy.ApplicationPolicy.Add(new System.Security.Cryptography.Oid("1.3.6.1.5.5.7.3.1"));
        chain.ChainPolicy.VerificationTime = now.UtcDateTime;
        var valid = chain.Build(certificate);
        var others = chain.ChainStatus.Where(status => status.Status != X509ChainStatusFlags.NotTimeValid).ToList();
        if (others.Count > 0)
            return new Verdict("authority", $"the certificate '{certificate.Subject}' is not signed by the authority that was told "
                + $"({string.Join(", ", authorities.Certificates.Select(authority => authority.Subject))})", days);
        if (now > notAfter)
            return new Verdict("expired", string.Create(CultureInfo.InvariantCulture, $"the certificate expired at {notAfter:yyyy-MM-dd HH:mm:ss}Z"), days);
        if (now < notBefore)
            return new Verdict("expired", string.Create(CultureInfo.InvariantCulture,
                $"the certificate is not valid before {notBefore:yyyy-MM-dd HH:mm:ss}Z: compare the clocks"), days);
        if (!valid)
            return new Verdict("expired", "an authority above the certificate is not valid now", days);
        if (!certificate.MatchesHostname(host, allowWildcards: true, allowCommonName: false))
            return new Verdict("name", $"the certificate is not for {host}", days);
        return new Verdict("ok", string.Create(CultureInfo.InvariantCulture, $"certificate valid for {days} more days"), days);
    }
}
