using System.Globalization;
using Mesh.AgentApi;

namespace Mesh.Cli.Text;

/// <summary>What is known of a peer, and by what evidence.</summary>
internal static class PeerText
{
    public static IEnumerable<string> Lines(PeerStatus peer)
    {
        var state = !peer.Healthy ? $"NOT HEALTHY, {peer.Fault}" : peer.Server == "relay" ? "healthy as far as the relay tells" : "healthy";
        yield return $"{peer.Name}: {state}, newest proof {Age(peer.ProofAge)}"
            + (peer.Endpoint is null ? "" : $", {peer.Server} {peer.Endpoint}");
        if (!peer.Healthy)
        {
            yield return $"└  cause: {peer.Cause}";
            yield return $"└  mend: {peer.Mend}";
        }
        foreach (var resource in peer.Resources ?? [])
        {
            var relists = resource.Relists > 0 ? $", read anew {resource.Relists} times ({resource.RelistReason})" : "";
            yield return string.Create(CultureInfo.InvariantCulture,
                $"└  {resource.Name}: {(resource.Synced ? "synced" : "not synced")}, {resource.Entries} entries, ")
                + $"newest proof {Age(resource.ProofAge)}, audited {Age(resource.AuditAge)}{relists}";
        }
        if (peer.AuditRepairs > 0)
            yield return string.Create(CultureInfo.InvariantCulture, $"└  audits found lost events {peer.AuditRepairs} times; they were read anew");
        if (peer.LastReconnection is { } reconnection)
            yield return string.Create(CultureInfo.InvariantCulture, $"└  reconnections: {peer.Reconnections}, the last for: {reconnection}");
        if (peer.ClockSkew is { } skew)
            yield return string.Create(CultureInfo.InvariantCulture, $"└  clock: {skew:+0.#;-0.#;0} s against ours");
        if (peer.Certificates is { } certificates)
            yield return $"└  certificates: {string.Join(", ", Certificates(certificates))}";
        if (peer.Quarantined > 0 || peer.Refused > 0)
            yield return string.Create(CultureInfo.InvariantCulture,
                $"└  quarantine: {peer.Quarantined} records (mesh clustermesh quarantine), {peer.Refused} refused since the start");
        if (!peer.Pinned)
            yield return $"└  imports: not pinned, there is no {peer.Name}.imports.json";
        if (peer.HeldReason is { } held)
            yield return $"└  breaker: {held}";
        if (peer.NodesProbed > 0)
            yield return string.Create(CultureInfo.InvariantCulture,
                $"└  tunnel: {peer.NodesProbed - (peer.NodesSilent?.Count ?? 0)} of {peer.NodesProbed} nodes answer")
                + (peer.NodesSilent is { Count: > 0 } silent ? $"; silent: {string.Join(", ", silent)}" : "");
    }

    private static IEnumerable<string> Certificates(PeerCertificateDays certificates)
    {
        if (certificates.ClientName is { } client)
            yield return $"ours {client} ({Days(certificates.ClientDays)})";
        if (certificates.ServerName is { } server)
            yield return $"theirs {server} ({Days(certificates.ServerDays)})";
        if (certificates.AuthorityDays is { } authority)
            yield return $"authority ({Days(authority)})";
        if (certificates.Problem is { } problem)
            yield return problem;
    }

    private static string Days(long? days) => days switch
    {
        null => "unknown",
        < 0 => "EXPIRED",
        var left => string.Create(CultureInfo.InvariantCulture, $"{left} days left"),
    };

    private static string Age(double seconds) => seconds < 0 ? "never"
        : seconds < 60 ? string.Create(CultureInfo.InvariantCulture, $"{seconds:0.#}s ago")
        : $"{GoText.Duration(TimeSpan.FromSeconds(seconds))} ago";
}
