using System.Text.Json;
using System.Text.Json.Serialization;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>A pki directory as programs read it: `mesh ca show -o json`. Public facts only.</summary>
internal sealed record CaReport
{
    public required string Directory { get; init; }

    public required string Cluster { get; init; }

    /// <summary>settled, announced, reissued.</summary>
    public required string Stage { get; init; }

    public DateTimeOffset StageSince { get; init; }

    public required IReadOnlyList<CaCertificate> Trusted { get; init; }

    public required CaCertificate Issuing { get; init; }

    /// <summary>By the name of their files: server, local, remote, admin.</summary>
    public required IReadOnlyDictionary<string, CaCertificate> Certificates { get; init; }

    public required IReadOnlyList<PeerCertificate> Peers { get; init; }

    public required string Next { get; init; }

    /// <summary>Why the next step should not be taken yet.</summary>
    public required IReadOnlyList<string> NotYet { get; init; }

    public required IReadOnlyList<string> Warnings { get; init; }

    public static CaReport Of(PkiView view, DateTimeOffset now, string how) => new()
    {
        Directory = view.Path,
        Cluster = view.Cluster,
        Stage = view.Stage.ToString().ToLowerInvariant(),
        StageSince = view.StageSince,
        Trusted = [.. view.Trusted.Select(authority => Of(authority, now))],
        Issuing = Of(view.Issuing, now),
        Certificates = view.Leaves.ToDictionary(leaf => leaf.Leaf.Name, leaf => Of(leaf.Certificate, now)),
        Peers = view.Peers,
        Next = CaText.Next(view, how),
        NotYet = view.Blockers,
        Warnings = [.. CaText.Warnings(view, now, how)],
    };

    public string ToJson() => JsonSerializer.Serialize(this, CaJson.Default.CaReport);

    private static CaCertificate Of(CertificateFacts facts, DateTimeOffset now) => new(facts.CommonName, facts.Issuer, facts.Serial,
        facts.KeyId, facts.NotAfter, facts.DaysLeft(now), [.. facts.Names.Dns, .. facts.Names.Addresses.Select(address => $"{address}")]);
}

/// <param name="DaysLeft">Whole days, rounded down; below zero when it has expired.</param>
internal sealed record CaCertificate(
    string CommonName, string Issuer, string Serial, string KeyId, DateTimeOffset NotAfter, int DaysLeft, IReadOnlyList<string> Names);

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(CaReport))]
internal sealed partial class CaJson : JsonSerializerContext;
