namespace Mesh.Joining;

/// <summary>`token create -o json`.</summary>
public sealed record TokenText(string Token, string Id, string Cluster, DateTimeOffset Expires, string? Taker, IReadOnlyList<string> Addresses)
{
    public string ToJson() => System.Text.Json.JsonSerializer.Serialize(this, JoinJson.Default.TokenText);
}

/// <summary>`token list -o json`.</summary>
public sealed record TokenListEntry(string Id, string State, DateTimeOffset Created, DateTimeOffset Expires, string? Taker, string? TakenBy)
{
    public static string ToJson(IReadOnlyList<TokenListEntry> entries) =>
        System.Text.Json.JsonSerializer.Serialize(entries, JoinJson.Default.IReadOnlyListTokenListEntry);
}
