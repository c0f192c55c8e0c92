using Mesh.Cli.Text;
using Mesh.Pki;

namespace Mesh.Cli.Commands.Ca;

/// <summary>A pki directory as people read it.</summary>
internal static class CaText
{
    /// <param name="how">The flags by which this cluster was named: what is to be typed next has them too.</param>
    public static string Format(PkiView view, DateTimeOffset now, string how)
    {
        var table = new TabWriter(3);
        table.Line($"Cluster {view.Cluster}, {view.Path}");
        table.Line($"Rotation: {Stage(view)}");
        table.Line("");
        table.Row("AUTHORITY", "ROLE", "VALID UNTIL", "KEY");
        foreach (var authority in view.Trusted.Append(view.Issuing).DistinctBy(a => a.KeyId))
            table.Row(authority.CommonName, Role(view, authority), Until(authority, now), authority.KeyId[..8]);
        table.Line("");
        table.Row("CERTIFICATE", "COMMON NAME", "VALID UNTIL", "ISSUED BY", "NAMES");
        foreach (var leaf in view.Leaves)
        {
            table.Row(leaf.Leaf.Name, leaf.Certificate.CommonName, Until(leaf.Certificate, now), leaf.Certificate.Issuer,
                leaf.Certificate.Names.ToString());
        }
        if (view.Peers.Count > 0)
        {
            table.Line("");
            table.Row("PEER", "VALID UNTIL", "ISSUED", "BY");
            foreach (var peer in view.Peers)
            {
                table.Row(peer.CommonName, Until(peer.NotAfter, now), $"{peer.IssuedAt:u}",
                    view.Trusted.FirstOrDefault(authority => authority.KeyId == peer.IssuerKeyId)?.CommonName ?? "an authority that is gone");
            }
        }
        var lines = Warnings(view, now, how).Append($"Next: {Next(view, how)}").Concat(view.Blockers.Select(blocker => $"Not yet: {blocker}"));
        return $"{table}\n{string.Join('\n', lines)}\n";
    }

    public static bool Expired(PkiView view, DateTimeOffset now) =>
        view.Issuing.NotAfter <= now || view.Leaves.Any(leaf => leaf.Certificate.NotAfter <= now);

    /// <summary>What an operator must do soon, or should have done.</summary>
    public static IEnumerable<string> Warnings(PkiView view, DateTimeOffset now, string how)
    {
        foreach (var leaf in view.Leaves.Where(leaf => leaf.Certificate.DaysLeft(now) < CertificateFacts.WarningDays))
        {
            // A leaf never outlives its authority: a new one of an old authority is no help.
            var mend = leaf.Certificate.NotAfter >= view.Issuing.NotAfter
                ? $"its authority ends then: `mesh ca rotate {how}`"
                : $"issue it again: `mesh ca issue {leaf.Leaf} {how}`";
            yield return $"{Word(leaf.Certificate, now)}: {leaf.Leaf} certificate {leaf.Certificate.Expiry(now)}; {mend}";
        }
        if (view.Issuing.DaysLeft(now) < CertificateFacts.WarningDays)
        {
            yield return $"{Word(view.Issuing, now)}: authority {view.Issuing.CommonName} {view.Issuing.Expiry(now)}; "
                + $"replace it: `mesh ca rotate {how}`";
        }
        foreach (var peer in view.Peers.Where(peer => view.Trusted.All(authority => authority.KeyId != peer.IssuerKeyId)))
            yield return $"error: the certificate of {peer.CommonName} is by an authority that is trusted no more; have that cluster join again";
        foreach (var peer in view.Peers.Where(peer => (peer.NotAfter - now).TotalDays < CertificateFacts.WarningDays))
        {
            yield return $"{(peer.NotAfter <= now ? "error" : "warning")}: the certificate that {peer.CommonName} got from us ends on "
                + $"{peer.NotAfter:u}; have that cluster join again";
        }
    }

    public static string Next(PkiView view, string how)
    {
        var command = $"`mesh ca rotate {how}`";
        // Named by its directory alone, nobody knows here who has copies.
        var copies = how.StartsWith("--dir ", StringComparison.Ordinal)
            ? " Agents of this cluster have copies: name it by --cluster-dir or --context, or where they are by --copy-to" : "";
        return view.Stage switch
        {
            RotationStage.Settled => $"nothing; {command} begins to replace the authority",
            RotationStage.Announced => $"{command} signs with {view.Next!.CommonName} from now on. This cuts nobody, also not a peer that has "
                + $"yet to hear of it. Where {view.Path}/{PkiDirectory.CaFileName} was copied by hand, copy it again.{copies}",
            _ => $"{command} drops {view.Previous!.CommonName}. Before that, each peer must hold a certificate by {view.Issuing.CommonName} and trust it: "
                + $"joining again brings both. By hand: {PkiDirectory.CaFileName} of {view.Path} goes to each peer as {view.Cluster}.etcd-client-ca.crt, "
                + $"and remote.crt, remote.key where peers share them.{copies}",
        };
    }

    private static string Stage(PkiView view) => view.Stage switch
    {
        RotationStage.Settled => "none under way",
        RotationStage.Announced => $"announced on {view.StageSince:u}: {view.Next!.CommonName} is trusted and signs nothing yet",
        _ => $"reissued on {view.StageSince:u}: {view.Issuing.CommonName} signs; {view.Previous!.CommonName} is still trusted",
    };

    private static string Role(PkiView view, CertificateFacts authority) =>
        authority.KeyId == view.Issuing.KeyId ? "signs"
        : authority.KeyId == view.Next?.KeyId ? "next"
        : authority.KeyId == view.Previous?.KeyId ? "previous"
        : "trusted";

    private static string Word(CertificateFacts facts, DateTimeOffset now) => facts.NotAfter <= now ? "error" : "warning";

    private static string Until(CertificateFacts facts, DateTimeOffset now) => Until(facts.NotAfter, now);

    private static string Until(DateTimeOffset end, DateTimeOffset now)
    {
        var days = (int)Math.Floor((end - now).TotalDays);
        return $"{end:u} ({(end <= now ? "expired" : days == 1 ? "1 day" : days == 0 ? "today" : $"{days} days")})";
    }
}
