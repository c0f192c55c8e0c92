namespace Mesh.Pki;

/// <summary>
/// Replacing the authority so that nobody is ever cut. Three steps, each a command, with as much time between them as it takes:
/// <list type="number">
/// <item>Announced: the next authority joins the trusted bundle. Nothing is signed by it; whoever reads the bundle gets to know it.</item>
/// <item>Reissued: the next authority signs, and all leaves are issued again by it. Behind each goes a certificate of the next
/// authority made by the previous one, so that a peer which knows only the previous one still verifies them.</item>
/// <item>Settled: the previous authority leaves the bundle and its key is deleted. Whoever still holds a certificate of it is refused
/// from then on, and whoever trusts only it refuses us: this is the step that has to wait for the peers.</item>
/// </list>
/// </summary>
public sealed partial class PkiDirectory
{
    /// <summary>Takes the next step.</summary>
    /// <param name="force">Takes it although <see cref="PkiView.Blockers"/> says who would be cut.</param>
    /// <returns>The stage that is reached.</returns>
    /// <exception cref="PkiException">Somebody would be cut, and this was not forced; says who, and the mend.</exception>
    public RotationStage Rotate(bool force = false)
    {
        using var hold = _files.Lock();
        var content = Read();
        var stage = content.Settings.Stage;
        var blockers = Blockers(content);
        if (blockers.Count > 0 && !force)
        {
            throw new PkiException($"the rotation of {Path} cannot go on yet: {string.Join("; ", blockers)}. "
                + "With --force it goes on, and these are cut");
        }
        var next = stage switch
        {
            RotationStage.Settled => Announce(content),
            RotationStage.Announced => Reissue(content),
            _ => Settle(content),
        };
        content.Settings = content.Settings with { Stage = next, StageSince = _time.GetUtcNow() };
        content.Write();
        return next;
    }

    /// <summary>Removes what a command that was killed behind its step left, such as the previous authority's key; else changes nothing.</summary>
    /// <exception cref="PkiException">Somebody else works there for longer than ten seconds.</exception>
    public void Finish()
    {
        using var hold = _files.Lock();
        _files.Finish(KnownFiles);
    }

    /// <summary>Takes the announcement of a next authority back. After the reissue only going on leads out.</summary>
    public void CancelRotation()
    {
        using var hold = _files.Lock();
        var content = Read();
        if (content.Settings.Stage != RotationStage.Announced)
        {
            throw new PkiException(content.Settings.Stage == RotationStage.Settled
                ? $"{Path}: no rotation is under way"
                : $"{Path}: the next authority has signed already: finish with `mesh ca rotate`, then rotate again if it must be replaced");
        }
        var next = CertificateFacts.OfPem(content[NextFileName]).KeyId;
        content[CaFileName] = Without(content[CaFileName], keyId => keyId == next);
        content.Remove(NextFileName);
        content.Remove(NextKeyFileName);
        content.Settings = content.Settings with { Stage = RotationStage.Settled, StageSince = _time.GetUtcNow() };
        content.Write();
    }

    /// <summary>Everything that `show` prints, of one moment.</summary>
    public PkiView View()
    {
        var content = Read();
        var settings = content.Settings;
        return new PkiView(Path, settings.Cluster, settings.Stage, settings.StageSince,
            Facts(CaFileName), Facts(IssuingFileName)[0],
            settings.Stage == RotationStage.Announced ? Facts(NextFileName)[0] : null,
            settings.Stage == RotationStage.Reissued ? Facts(PreviousFileName)[0] : null,
            [.. PkiLeaf.All.Select(leaf => new PkiLeafView(leaf, Facts(leaf.CertFileName)))], content.Peers, Blockers(content));

        IReadOnlyList<CertificateFacts> Facts(string file)
        {
            try
            {
                return CertificateFacts.AllOfPem(content[file]) is { Count: > 0 } all ? all
                    : throw new PkiException($"{File(file)} holds no certificate: restore it from a copy");
            }
            catch (System.Security.Cryptography.CryptographicException e)
            {
                throw new PkiException($"{File(file)} cannot be read: {e.Message}: restore it from a copy", e);
            }
        }
    }

    private RotationStage Announce(Content content)
    {
        using var next = NewAuthority(content.Settings);
        (content[NextFileName], content[NextKeyFileName]) = (next.CertificatePem, next.KeyPem);
        content[CaFileName] = PemText.Join([content[CaFileName], next.CertificatePem]);
        return RotationStage.Announced;
    }

    private static RotationStage Reissue(Content content)
    {
        using var previous = content.Issuing();
        using var plain = content.Authority(NextFileName, NextKeyFileName);
        // A previous authority that is itself below a root brings its own chain along.
        using var next = plain.Below([previous.CrossSign(plain), .. previous.Chain]);
        (content[PreviousFileName], content[PreviousKeyFileName]) = (previous.WithChainPem, previous.KeyPem);
        content.SetIssuing(next);
        foreach (var leaf in PkiLeaf.All)
            content.Issue(next, leaf);
        content.Remove(NextFileName);
        content.Remove(NextKeyFileName);
        return RotationStage.Reissued;
    }

    private static RotationStage Settle(Content content)
    {
        using var crossed = content.Issuing();
        using var issuing = crossed.Below([]);
        content.SetIssuing(issuing);
        // The previous authority and, if it was below a root, that root. What else an operator put into the bundle stays.
        var gone = CertificateFacts.AllOfPem(content[PreviousFileName]).SelectMany(facts => new[] { facts.KeyId, facts.IssuerKeyId }).ToHashSet();
        content[CaFileName] = Without(content[CaFileName], gone.Contains);
        content.Remove(PreviousFileName);
        content.Remove(PreviousKeyFileName);
        // The leaves stay, without the chain to an authority that nobody is to trust any more.
        foreach (var leaf in PkiLeaf.All)
            content[leaf.CertFileName] = PemText.Certificates(content[leaf.CertFileName]).First() + "\n";
        return RotationStage.Settled;
    }

    /// <summary>Who would be cut by the next step, as far as can be known here.</summary>
    private List<string> Blockers(Content content)
    {
        if (content.Settings.Stage != RotationStage.Reissued)
            return [];
        var now = _time.GetUtcNow();
        var issuing = CertificateFacts.OfPem(content[IssuingFileName]).KeyId;
        return [.. content.Peers.Where(peer => peer.IssuerKeyId != issuing && peer.NotAfter > now)
            .OrderBy(peer => peer.CommonName, StringComparer.Ordinal)
            .Select(peer => $"{peer.CommonName} got its last certificate from the previous authority on {peer.IssuedAt:u} (valid until "
                + $"{peer.NotAfter:u}): have that cluster join again, which brings it a new one and the new bundle "
                + "(`mesh clustermesh token` here, `mesh clustermesh connect` there)")];
    }

    private static string Without(string bundle, Func<string, bool> goes) =>
        PemText.Join(PemText.Certificates(bundle).Where(pem => !goes(CertificateFacts.OfPem(pem).KeyId)));
}

/// <summary>A pki directory at one moment.</summary>
/// <param name="Trusted">The bundle.</param>
/// <param name="Issuing">The authority that signs now.</param>
/// <param name="Next">Trusted, and signs after the next step; null but in stage Announced.</param>
/// <param name="Previous">Still trusted, signs no more; null but in stage Reissued.</param>
/// <param name="Peers">Who got a certificate for a key of its own.</param>
/// <param name="Blockers">Why the next step should not be taken yet; each names who would be cut and the mend.</param>
public sealed record PkiView(
    string Path, string Cluster, RotationStage Stage, DateTimeOffset StageSince,
    IReadOnlyList<CertificateFacts> Trusted, CertificateFacts Issuing, CertificateFacts? Next, CertificateFacts? Previous,
    IReadOnlyList<PkiLeafView> Leaves, IReadOnlyList<PeerCertificate> Peers, IReadOnlyList<string> Blockers);

/// <param name="Chain">The leaf, then what goes out with it.</param>
public sealed record PkiLeafView(PkiLeaf Leaf, IReadOnlyList<CertificateFacts> Chain)
{
    public CertificateFacts Certificate => Chain[0];
}
