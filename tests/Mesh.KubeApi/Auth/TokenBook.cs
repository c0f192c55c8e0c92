using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Auth;

/// <summary>Bearer tokens: static ones, and signed ones (JWT, ES256) of service accounts with audience and end.</summary>
internal sealed class TokenBook(ECDsa key, TimeProvider time)
{
    public const string Issuer = "https://kubernetes.default.svc.cluster.local";
    private readonly ConcurrentDictionary<string, KubeUser> _static = new();

    public string Static(KubeUser user)
    {
        var token = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(20));
        _static[token] = user with { Groups = [.. user.Groups, "system:authenticated"] };
        return token;
    }

    public KubeUser? Find(string token) => _static.GetValueOrDefault(token);

    private static string Url(ReadOnlySpan<byte> bytes) => Convert.ToBase64String(bytes).TrimEnd('=').Replace('+', '-').Replace('/', '_');

    private static byte[] FromUrl(string text)
    {
        var padded = text.Replace('-', '+').Replace('_', '/');
        return Convert.FromBase64String(padded.PadRight((padded.Length + 3) / 4 * 4, '='));
    }

    /// <summary>A token of a service account, good from now for the time given.</summary>
    public (string Token, DateTimeOffset Expires) ServiceAccount(string @namespace, string name, string uid, IReadOnlyList<string> audiences,
        TimeSpan life, JsonObject? pod)
    {
        var now = time.GetUtcNow();
        var expires = now + life;
        var about = new JsonObject { ["namespace"] = @namespace, ["serviceaccount"] = new JsonObject { ["name"] = name, ["uid"] = uid } };
        if (pod is not null)
            about["pod"] = pod.DeepClone();
        var head = Url("{\"alg\":\"ES256\",\"kid\":\"mesh\"}"u8);
        var body = Url(Encoding.UTF8.GetBytes(new JsonObject
        {
            ["aud"] = new JsonArray([.. audiences.Select(one => (JsonNode)one)]),
            ["exp"] = expires.ToUnixTimeSeconds(),
            ["iat"] = now.ToUnixTimeSeconds(),
            ["nbf"] = now.ToUnixTimeSeconds(),
            ["iss"] = Issuer,
            ["kubernetes.io"] = about,
            ["sub"] = $"system:serviceaccount:{@namespace}:{name}",
        }.ToJsonString()));
        var signed = Encoding.ASCII.GetBytes($"{head}.{body}");
        lock (key)
            return ($"{head}.{body}.{Url(key.SignData(signed, HashAlgorithmName.SHA256))}", expires);
    }

    /// <summary>The claims of a signed token that is ours and not over; null otherwise.</summary>
    public JsonObject? Verify(string token)
    {
        var parts = token.Split('.');
        if (parts.Length != 3)
            return null;
        try
        {
            lock (key)
                if (!key.VerifyData(Encoding.ASCII.GetBytes($"{parts[0]}.{parts[1]}"), FromUrl(parts[2]), HashAlgorithmName.SHA256))
                    return null;
            var claims = JsonNode.Parse(FromUrl(parts[1])) as JsonObject;
            return claims is not null && claims.Num("exp") > time.GetUtcNow().ToUnixTimeSeconds() ? claims : null;
        }
        catch (Exception failure) when (failure is FormatException or System.Text.Json.JsonException or CryptographicException)
        {
            return null;
        }
    }
}
