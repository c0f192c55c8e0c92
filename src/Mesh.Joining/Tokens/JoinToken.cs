using System.Buffers.Text;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Mesh.Joining.Tokens;

/// <summary>
/// What one cluster gives to another so that it may join: one line of text, mesh1.PAYLOAD.CHECK. The check makes a truncated or edited
/// line a clear error before anybody is asked; what makes the token worth something is its secret, of which the issuer keeps a hash.
/// Whoever holds the line can join once, until it expires: hand it over as one hands over a password.
/// </summary>
public sealed record JoinToken
{
    private const string Head = "mesh1";
    private const int TextMax = 64 << 10;
    private const int CheckBytes = 8;

    public required string ClusterName { get; init; }

    public required uint ClusterId { get; init; }

    /// <summary>IP:PORT of the issuer's join listener, at least one.</summary>
    public required IReadOnlyList<string> Addresses { get; init; }

    /// <summary>DER of each authority that may have signed the listener's certificate, in base64.</summary>
    public required IReadOnlyList<string> Authorities { get; init; }

    /// <summary>Public half of the credential: names the token in ledgers and logs.</summary>
    public required string Id { get; init; }

    /// <summary>Secret half, 32 bytes in base64url.</summary>
    public required string Secret { get; init; }

    public required DateTimeOffset Expires { get; init; }

    /// <summary>The only cluster that may take it; null for any.</summary>
    public string? Taker { get; init; }

    public override string ToString()
    {
        var payload = $"{Head}.{Base64Url.EncodeToString(JsonSerializer.SerializeToUtf8Bytes(this, JoinCompactJson.Default.JoinToken))}";
        return $"{payload}.{Check(payload)}";
    }

    /// <exception cref="JoinException">Not a whole token; the message says what is wrong with it.</exception>
    public static JoinToken Parse(string text)
    {
        text = text.Trim();
        if (text.Length == 0)
            throw new JoinException("token-malformed", "the join token is empty: paste the line that `mesh clustermesh token create` printed");
        if (text.Length > TextMax || text.AsSpan().ContainsAny(" \t\r\n"))
            throw new JoinException("token-malformed", "a join token is one line without blanks: paste it whole and alone");
        var parts = text.Split('.');
        if (!parts[0].StartsWith("mesh", StringComparison.Ordinal))
            throw new JoinException("token-malformed", $"a join token begins with '{Head}.': this text does not");
        if (parts[0] != Head)
            throw new JoinException("token-version",
                $"this join token is of version '{Short(parts[0])}' and this program reads {Head}: use programs of one version on both sides");
        if (parts.Length != 3)
            throw new JoinException("token-malformed", "the join token is cut off: paste the whole line, or make a new one");
        var given = Encoding.ASCII.GetBytes(parts[2]);
        if (!CryptographicOperations.FixedTimeEquals(given, Encoding.ASCII.GetBytes(Check($"{parts[0]}.{parts[1]}"))))
            throw new JoinException("token-malformed", "the join token was cut off or changed on its way: paste the whole line, or make a new one");
        return Read(parts[1]);
    }

    private static JoinToken Read(string payload)
    {
        JoinToken? token;
        try
        {
            token = JsonSerializer.Deserialize(Base64Url.DecodeFromChars(payload), JoinCompactJson.Default.JoinToken);
        }
        catch (Exception e) when (e is FormatException or JsonException)
        {
            throw new JoinException("token-malformed", $"the join token does not hold what a token holds: make a new one", e);
        }
        if (token is null || Model.ClusterName.Validate(token.ClusterName) is not null || token.ClusterId is < 1 or > 511
            || token.Id is not { Length: > 0 and <= 64 } || token.Secret is not { Length: > 0 and <= 128 }
            || token.Addresses is not { Count: > 0 and <= 16 } || !token.Addresses.All(address => IPEndPoint.TryParse(address, out var ip) && ip.Port > 0)
            || token.Authorities is not { Count: > 0 and <= 8 })
            throw new JoinException("token-malformed", "the join token does not hold what a token holds: make a new one");
        using (token.ReadAuthorities())
            return token;
    }

    /// <summary>The authorities to trust for this join, and no others.</summary>
    internal Authorities ReadAuthorities()
    {
        var found = new System.Security.Cryptography.X509Certificates.X509Certificate2Collection();
        try
        {
            foreach (var der in Authorities)
                found.Add(System.Security.Cryptography.X509Certificates.X509CertificateLoader.LoadCertificate(Convert.FromBase64String(der)));
        }
        catch (Exception e) when (e is FormatException or CryptographicException)
        {
            throw new JoinException("token-malformed", $"the authority in the join token is not a certificate: make a new token", e);
        }
        return new Authorities(found);
    }

    private static string Check(string payload) =>
        Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(payload)).AsSpan(0, CheckBytes));

    private static string Short(string text) => text.Length <= 16 ? text : text[..16];
}
