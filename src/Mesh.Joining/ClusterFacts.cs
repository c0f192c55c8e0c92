using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text.Json.Serialization;
using System.Text.RegularExpressions;
using Mesh.Model;

namespace Mesh.Joining;

/// <summary>
/// What a cluster tells another about itself. It comes from outside: nothing of it is used before <see cref="Fault"/> found no fault, and
/// what is written to files is what was parsed, never the text that came.
/// </summary>
public sealed partial record ClusterFacts
{
    internal const int RangesMax = 64;
    internal const int AddressesMax = 16;
    internal const int PemMax = 32 << 10;

    public required string Name { get; init; }

    public required uint Id { get; init; }

    public required int MaxConnectedClusters { get; init; }

    [JsonPropertyName("podCIDRs")]
    public required IReadOnlyList<string> PodCIDRs { get; init; }

    [JsonPropertyName("nodeCIDRs")]
    public required IReadOnlyList<string> NodeCIDRs { get; init; }

    public required IReadOnlyList<string> DoorAddresses { get; init; }

    /// <summary>PEM of every authority that signs this cluster's certificates: two during a rotation.</summary>
    public required string Authorities { get; init; }

    public required int TunnelPort { get; init; }

    /// <summary>Version of the programs, x.y.z.</summary>
    public required string Version { get; init; }

    /// <summary>Oldest and newest Cilium whose records this cluster writes and reads, such as 1.14 and 1.20.</summary>
    public required WireProfile Profile { get; init; }

    /// <summary>The clusters that it is connected to already, as pinned there.</summary>
    public required IReadOnlyList<PeerFacts> Peers { get; init; }

    [GeneratedRegex(@"\Ahttps://(\[[0-9a-fA-F:]{2,39}\]|[a-zA-Z0-9]([-a-zA-Z0-9.]{0,251}[a-zA-Z0-9])?):[1-9][0-9]{0,4}\z")]
    private static partial Regex DoorAddress();

    public static bool IsDoorAddress(string? text) => text is not null && DoorAddress().IsMatch(text) && new Uri(text).Port <= 65535;

    /// <summary>Why these facts cannot be, null when they can.</summary>
    public string? Fault()
    {
        if (Name is null || ClusterName.Validate(Name) is not null)
            return "its cluster name is not one";
        if (MaxConnectedClusters is not (255 or 511) || Id < 1 || Id > MaxConnectedClusters)
            return $"ID {Id} of at most {MaxConnectedClusters} clusters is not possible";
        if (!AreRanges(PodCIDRs, 1) || !AreRanges(NodeCIDRs, 1))
            return $"its pod and node CIDRs must be 1 to {RangesMax} address ranges each";
        if (DoorAddresses is null || DoorAddresses.Count is 0 or > AddressesMax || !DoorAddresses.All(IsDoorAddress))
            return $"its door addresses must be 1 to {AddressesMax} of https://HOST:PORT";
        if (TunnelPort is < 1 or > 65535)
            return $"tunnel port {TunnelPort} is not possible";
        if (Version is null or { Length: > 32 } || Profile is null)
            return "it does not tell its version";
        if (Peers is null || Peers.Count > 511 || !Peers.All(peer => peer is not null && peer.IsPossible))
            return "its list of peers is not one";
        using var authorities = ReadAuthorities(Authorities);
        return authorities.Count == 0 ? "its authorities are not certificates in PEM" : null;
    }

    /// <summary>The certificates of a PEM text; none when it is not such a text. Disposed with the result.</summary>
    internal static Authorities ReadAuthorities(string? pem)
    {
        var found = new X509Certificate2Collection();
        if (pem is { Length: > 0 and <= PemMax })
        {
            try
            {
                found.ImportFromPem(pem);
            }
            catch (CryptographicException)
            {
                found.Clear();
            }
        }
        return new Authorities(found);
    }

    internal static bool AreRanges(IReadOnlyList<string>? ranges, int least) => ranges is not null && ranges.Count >= least
        && ranges.Count <= RangesMax && ranges.All(range => range is not null && range.Contains('/') && IpPrefix.TryParse(range, out _));
}

/// <summary>A cluster that somebody is connected to.</summary>
/// <param name="Id">0 when it is not known there, because its peer file was not written by a join.</param>
public sealed record PeerFacts(
    string Name, uint Id,
    [property: JsonPropertyName("podCIDRs")] IReadOnlyList<string> PodCIDRs,
    [property: JsonPropertyName("nodeCIDRs")] IReadOnlyList<string> NodeCIDRs)
{
    internal bool IsPossible => Name is not null && ClusterName.Validate(Name) is null && Id <= 511
        && ClusterFacts.AreRanges(PodCIDRs, 0) && ClusterFacts.AreRanges(NodeCIDRs, 0);
}

/// <param name="Oldest">Major and minor number, such as 1.14.</param>
public sealed record WireProfile(string Oldest, string Newest)
{
    /// <summary>What our codecs write and read.</summary>
    public static WireProfile Ours { get; } = new("1.14", "1.20");
}

/// <summary>Parsed certificates, disposed together.</summary>
internal sealed class Authorities(X509Certificate2Collection certificates) : IDisposable
{
    public int Count => certificates.Count;

    public X509Certificate2Collection Certificates => certificates;

    /// <summary>PEM of what was parsed, nothing else.</summary>
    public string Pem => certificates.ExportCertificatePems() + "\n";

    public void Dispose()
    {
        foreach (var certificate in certificates)
            certificate.Dispose();
    }
}
