using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text.Json;
using Mesh.Joining.Checks;
using Mesh.Joining.Files;

namespace Mesh.Joining.Tokens;

/// <summary>
/// The tokens that a cluster has given out: the file tokens.json of its join directory, shared by the command line, which makes them, and
/// by the API server, which takes them. Changed under the directory's lock, replaced by rename; expired ones are pruned a day later, so
/// that a late taker is told that its token expired, and not that nobody knows it.
/// </summary>
public sealed class TokenLedger
{
    public const string FileName = "tokens.json";

    /// <summary>Most tokens that can be usable at a time.</summary>
    public const int UsableMax = 256;

    private static readonly TimeSpan Remembered = TimeSpan.FromDays(1);
    private readonly string _directory;
    private readonly TimeProvider _time;

    public TokenLedger(string joinDirectory, TimeProvider time)
    {
        _directory = joinDirectory;
        _time = time;
    }

    private string File_ => Path.Combine(_directory, FileName);

    /// <summary>Makes a token and remembers it.</summary>
    /// <param name="clusterDirectory">Directory of cluster.json, where the API server will look when the token is taken.</param>
    /// <exception cref="JoinException">It cannot be made; the message says why.</exception>
    public JoinToken Create(ClusterDescription cluster, string clusterDirectory, TokenRequest request)
    {
        if (request.Lifetime < TimeSpan.FromSeconds(1) || request.Lifetime > TimeSpan.FromDays(7))
            throw new JoinException("token-lifetime", "a join token lives 1 second to 7 days: it is a credential, make another when it is needed");
        if (request.Taker is { } taker && Model.ClusterName.Validate(taker) is { } fault)
            throw new JoinException("token-taker", fault);
        Finding.RequireKnown("--allow", request.Allowed, Finding.Allowable);
        var addresses = request.Addresses.Count > 0 ? request.Addresses : cluster.JoinAddresses();
        RequireNamed(cluster, addresses);
        var now = _time.GetUtcNow();
        var secret = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(32));
        var token = new JoinToken
        {
            ClusterName = cluster.Name,
            ClusterId = cluster.Id,
            Addresses = addresses,
            Authorities = OwnPki.AuthoritiesDer(cluster.Pki),
            Id = Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(9)),
            Secret = secret,
            Expires = DateTimeOffset.FromUnixTimeSeconds((now + request.Lifetime).ToUnixTimeSeconds() + 1),
            Taker = request.Taker,
        };
        Change(ledger =>
        {
            if (ledger.Tokens.Count(record => record.IsUsable(now)) >= UsableMax)
                throw new JoinException("token-limit", $"{UsableMax} tokens are usable already: revoke some with `mesh clustermesh token revoke`");
            return ledger with
            {
                ClusterDirectory = Path.GetFullPath(clusterDirectory),
                Tokens =
                [
                    .. ledger.Tokens,
                    new TokenRecord
                    {
                        Id = token.Id,
                        SecretHash = TokenRecord.HashOf(secret),
                        Created = now,
                        Expires = token.Expires,
                        Taker = request.Taker,
                        Allowed = request.Allowed,
                        Direct = request.Direct,
                    },
                ],
            };
        });
        return token;
    }

    /// <summary>A taker accepts the listener only under a name that its certificate bears.</summary>
    private static void RequireNamed(ClusterDescription cluster, IReadOnlyList<string> addresses)
    {
        using var server = OwnPki.Pair(cluster.Pki, "server");
        foreach (var address in addresses)
        {
            if (!System.Net.IPEndPoint.TryParse(address, out var parsed) || parsed.Port == 0)
                throw new JoinException("token-address", $"--address '{address}': must be IP:PORT of the join listener as the taker reaches it");
            if (!server.MatchesHostname($"{parsed.Address}", allowWildcards: true, allowCommonName: false))
                throw new JoinException("token-address", $"the server certificate {cluster.Pki}/server.crt is not for {parsed.Address}, "
                    + "so no taker would accept the listener there: issue it again with that address, `mesh ca issue --help`");
        }
    }

    /// <summary>Whether the API server opens its listener for a token that was just made.</summary>
    public async Task<bool> WaitForListenerAsync(TimeSpan patience, CancellationToken cancellation)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (!Listening.JoinListener.IsOpenAt(_directory))
        {
            if (TimeProvider.System.GetElapsedTime(began) > patience)
                return false;
            await Task.Delay(TimeSpan.FromMilliseconds(5), cancellation);
        }
        return true;
    }

    /// <summary>Makes a token useless. False when there is none of that ID that could still be used.</summary>
    public bool Revoke(string id)
    {
        var found = false;
        Change(ledger => ledger with
        {
            Tokens = [.. ledger.Tokens.Select(record =>
            {
                if (record.Id != id || !record.IsUsable(_time.GetUtcNow()))
                    return record;
                found = true;
                return record with { State = TokenState.Used, OwnKey = null };
            })],
        });
        return found;
    }

    /// <summary>What is written, as it is at this moment. Empty when nothing is.</summary>
    /// <exception cref="JoinException">The file cannot be read or is not a ledger.</exception>
    internal LedgerContent Read()
    {
        try
        {
            return File.Exists(File_)
                ? JsonSerializer.Deserialize(File.ReadAllText(File_), JoinJson.Default.LedgerContent) ?? new LedgerContent()
                : new LedgerContent();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new JoinException("ledger", $"{File_}: {InWords.Of(e)}: mend or remove the file (removing it makes all open tokens useless)", e);
        }
    }

    public IReadOnlyList<TokenRecord> Tokens => Read().Tokens;

    /// <summary>Replaces one record; false when it is gone.</summary>
    internal bool Update(string id, Func<TokenRecord, TokenRecord> change)
    {
        var found = false;
        Change(ledger => ledger with
        {
            Tokens = [.. ledger.Tokens.Select(record =>
            {
                if (record.Id != id)
                    return record;
                found = true;
                return change(record);
            })],
        });
        return found;
    }

    private void Change(Func<LedgerContent, LedgerContent> change)
    {
        using var held = DirectoryLock.Take(_directory);
        var old = Read();
        var fresh = change(old);
        var now = _time.GetUtcNow();
        fresh = fresh with { Tokens = [.. fresh.Tokens.Where(record => now - record.Expires < Remembered)] };
        DurableFile.Replace(File_, JsonSerializer.SerializeToUtf8Bytes(fresh, JoinJson.Default.LedgerContent), DurableFile.OwnerOnly);
    }
}

/// <param name="Lifetime">1 s to 7 days.</param>
/// <param name="Taker">The only cluster that may take it; null for any.</param>
/// <param name="Addresses">IP:PORT of the listener as the taker reaches it; empty for what the description says.</param>
/// <param name="Allowed">Findings of the plan that this side puts up with.</param>
/// <param name="Direct">This side's agents shall read the taker's door themselves, although there is a relay.</param>
public sealed record TokenRequest(
    TimeSpan Lifetime, string? Taker, IReadOnlyList<string> Addresses, IReadOnlyList<string> Allowed, bool Direct = false)
{
    public TokenRequest(TimeSpan lifetime)
        : this(lifetime, null, [], [])
    {
    }
}

internal sealed record LedgerContent
{
    /// <summary>Directory of the cluster.json that the tokens speak for.</summary>
    public string? ClusterDirectory { get; init; }

    public IReadOnlyList<TokenRecord> Tokens { get; init => field = value ?? []; } = [];
}
