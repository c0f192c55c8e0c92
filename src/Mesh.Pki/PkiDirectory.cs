using System.Security.Cryptography;
using System.Text.Json;

namespace Mesh.Pki;

/// <summary>
/// A cluster's certificates in one directory: the bundle that is trusted, the authority that signs now, and what it issued to the
/// cluster's own programs. Every change is a new content of the whole set (<see cref="FileSet"/>), so a reader never meets a key
/// with another certificate for longer than one look, and a command that was killed has done all of its step or nothing.
/// <para>
/// Peers' certificates are issued here too, for keys that never come here; who got one is kept in peers.json, because it decides
/// when an old authority may go (<see cref="Rotate"/>).
/// </para>
/// </summary>
public sealed partial class PkiDirectory
{
    public const string CaFileName = "ca.crt";
    public const string CaKeyFileName = "ca.key";
    public const string IssuingFileName = "issuing.crt";
    private const string NextFileName = "next.crt";
    private const string NextKeyFileName = "next.key";
    private const string PreviousFileName = "previous.crt";
    private const string PreviousKeyFileName = "previous.key";
    private const string SettingsFileName = "pki.json";
    private const string PeersFileName = "peers.json";

    private static readonly IReadOnlyList<string> KnownFiles =
    [
        CaFileName, CaKeyFileName, IssuingFileName, NextFileName, NextKeyFileName, PreviousFileName, PreviousKeyFileName,
        SettingsFileName, PeersFileName, .. PkiLeaf.All.SelectMany(leaf => new[] { leaf.CertFileName, leaf.KeyFileName }),
    ];

    private readonly FileSet _files;
    private readonly TimeProvider _time;

    private PkiDirectory(string path, TimeProvider time)
    {
        Path = path;
        _time = time;
        _files = new FileSet(path, "data");
    }

    public string Path { get; }

    /// <summary>The bundle that the door and the peers trust.</summary>
    public string CaFile => File(CaFileName);

    public string CertFile(PkiLeaf leaf) => File(leaf.CertFileName);

    public string KeyFile(PkiLeaf leaf) => File(leaf.KeyFileName);

    /// <summary>
    /// Makes an authority (or takes over the one given) and all four leaves. Asked again for the same cluster it changes nothing,
    /// so it may be run again after anything.
    /// </summary>
    /// <exception cref="PkiException">The directory is another cluster's, or holds certificates that are not of this making.</exception>
    public static PkiDirectory Init(string path, PkiSettings settings, PkiAuthorityFiles? takeOver = null, TimeProvider? time = null)
    {
        var pki = new PkiDirectory(System.IO.Path.GetFullPath(path), time ?? TimeProvider.System);
        settings.Validate();
        using var hold = pki._files.Lock();
        var present = pki._files.Read(KnownFiles);
        if (present.ContainsKey(SettingsFileName))
        {
            var made = new Content(pki, present).Settings;
            return made.Cluster == settings.Cluster ? pki : throw new PkiException(
                $"{path} holds the certificates of cluster {made.Cluster}: choose another directory for {settings.Cluster}");
        }
        if (present.Count > 0)
        {
            throw new PkiException($"{path} holds {string.Join(", ", present.Keys.Order(StringComparer.Ordinal))} but no {SettingsFileName}: "
                + "choose an empty directory, and give it your authority with --ca-cert and --ca-key");
        }
        var content = new Content(pki, present) { Settings = settings with { StageSince = pki._time.GetUtcNow() } };
        using (var authority = takeOver is null ? pki.NewAuthority(settings) : pki.Load(takeOver.CertificatePem, takeOver.KeyPem, "--ca-cert"))
        {
            content[CaFileName] = PemText.Join([takeOver?.BundlePem ?? authority.CertificatePem]);
            content.SetIssuing(authority);
            foreach (var leaf in PkiLeaf.All)
                content.Issue(authority, leaf);
        }
        content.Write();
        return pki;
    }

    /// <exception cref="PkiException">There is nothing that <see cref="Init"/> made.</exception>
    public static PkiDirectory Open(string path, TimeProvider? time = null)
    {
        var pki = new PkiDirectory(System.IO.Path.GetFullPath(path), time ?? TimeProvider.System);
        _ = pki.Read().Settings;
        return pki;
    }

    /// <summary>Name and lifetimes, and the stage of a rotation.</summary>
    public PkiSettings Settings => Read().Settings;

    /// <summary>PEM of the authorities that are trusted now.</summary>
    public string TrustedPem => Read()[CaFileName];

    /// <summary>The authority that signs now, with the chain that goes out with its leaves. The caller disposes of it.</summary>
    public CertificateAuthority OpenAuthority() => Read().Issuing();

    /// <summary>Issues leaves again, with new keys, by the authority that signs now.</summary>
    /// <param name="serverNames">Names that the server is reached by, besides those that every API server has; null keeps what it had.</param>
    public void Issue(IEnumerable<PkiLeaf> leaves, CertificateNames? serverNames = null, TimeSpan? lifetime = null)
    {
        using var hold = _files.Lock();
        var content = Read();
        if (serverNames is not null)
            content.Settings = content.Settings with { ServerNames = [.. serverNames.Dns, .. serverNames.Addresses.Select(a => $"{a}")] };
        using var authority = content.Issuing();
        foreach (var leaf in leaves)
            content.Issue(authority, leaf, lifetime);
        content.Write();
    }

    /// <summary>
    /// Signs a peer's request (see <see cref="CertificateAuthority.IssueFor"/>) and notes who got it. The note is on disk before the
    /// certificate is given out.
    /// </summary>
    /// <returns>The certificate with its chain, and the bundle that the peer must trust, of the same moment.</returns>
    public (string CertificatePem, string TrustedPem) IssueForPeer(string csrPem, string commonName, TimeSpan? lifetime = null)
    {
        using var hold = _files.Lock();
        var content = Read();
        using var authority = content.Issuing();
        var issued = authority.IssueFor(csrPem, commonName, lifetime ?? content.Settings.LeafLifetime);
        var facts = CertificateFacts.OfPem(issued);
        content.Peers = [.. content.Peers.Where(peer => peer.CommonName != commonName),
            new PeerCertificate(commonName, facts.Serial, facts.IssuerKeyId, facts.NotAfter, _time.GetUtcNow())];
        content.Write();
        return (issued, content[CaFileName]);
    }

    /// <summary>A peer was disconnected: what it holds hinders no rotation any more. True when it was known.</summary>
    public bool ForgetPeer(string commonName)
    {
        using var hold = _files.Lock();
        var content = Read();
        if (content.Peers.All(peer => peer.CommonName != commonName))
            return false;
        content.Peers = [.. content.Peers.Where(peer => peer.CommonName != commonName)];
        content.Write();
        return true;
    }

    /// <summary>
    /// Puts the bundle and a client pair where a reader of this cluster looks for them: PREFIX-ca.crt, PREFIX.crt and PREFIX.key,
    /// replaced together. The same content is not written again.
    /// </summary>
    /// <returns>True when something changed.</returns>
    public bool CopyClientFiles(PkiLeaf leaf, string directory, string prefix)
    {
        var content = Read();
        return ClientFiles.Write(directory, prefix, content[CaFileName], content[leaf.CertFileName], content[leaf.KeyFileName]);
    }

    private string File(string name) => System.IO.Path.Combine(Path, name);

    private Content Read() => new(this, _files.Read(KnownFiles));

    private CertificateAuthority NewAuthority(PkiSettings settings)
    {
        // Two authorities of one cluster live side by side during a rotation: people tell them apart by the name's end.
        var tag = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(3));
        return CertificateAuthority.Create($"mesh CA {settings.Cluster} {tag}", settings.AuthorityLifetime, _time);
    }

    private CertificateAuthority Load(string certificatePem, string keyPem, string file)
    {
        try
        {
            return CertificateAuthority.Load(certificatePem, keyPem, _time);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new PkiException($"{file} and its key are not an authority: {e.Message}", e);
        }
    }

    private static bool IsSecret(string file) => file.EndsWith(".key", StringComparison.Ordinal);

    /// <summary>All files of one moment, being changed.</summary>
    private sealed class Content(PkiDirectory pki, IReadOnlyDictionary<string, string> files)
    {
        private readonly Dictionary<string, string> _files = new(files, StringComparer.Ordinal);

        public string this[string file]
        {
            get => _files.TryGetValue(file, out var text) ? text
                : throw new PkiException($"{pki.File(file)} is missing: restore it, or make the certificates anew in an empty directory");
            set => _files[file] = value;
        }

        public PkiSettings Settings
        {
            get => _files.ContainsKey(SettingsFileName) ? Json(SettingsFileName, text => JsonSerializer.Deserialize(text, PkiJson.Default.PkiSettings))
                : throw new PkiException($"{pki.Path} holds no certificates of ours ({SettingsFileName} is missing): "
                    + $"make them with `mesh ca init --dir {pki.Path} --cluster-name NAME`");
            set => _files[SettingsFileName] = JsonSerializer.Serialize(value, PkiJson.Default.PkiSettings) + "\n";
        }

        public IReadOnlyList<PeerCertificate> Peers
        {
            get => _files.ContainsKey(PeersFileName)
                ? Json(PeersFileName, text => JsonSerializer.Deserialize(text, PkiJson.Default.IReadOnlyListPeerCertificate)) : [];
            set => _files[PeersFileName] = JsonSerializer.Serialize(value, PkiJson.Default.IReadOnlyListPeerCertificate) + "\n";
        }

        public bool Has(string file) => _files.ContainsKey(file);

        public void Remove(string file) => _files.Remove(file);

        public CertificateAuthority Issuing() => pki.Load(this[IssuingFileName], this[CaKeyFileName], pki.File(IssuingFileName));

        public CertificateAuthority Authority(string certificate, string key) => pki.Load(this[certificate], this[key], pki.File(certificate));

        public void SetIssuing(CertificateAuthority authority) =>
            (this[IssuingFileName], this[CaKeyFileName]) = (authority.WithChainPem, authority.KeyPem);

        public void Issue(CertificateAuthority authority, PkiLeaf leaf, TimeSpan? lifetime = null)
        {
            var settings = Settings;
            var names = leaf == PkiLeaf.Server ? CertificateNames.ApiServer.With(CertificateNames.Parse(settings.ServerNames)) : CertificateNames.None;
            var use = leaf == PkiLeaf.Server ? CertificateUse.ServerAndClient : CertificateUse.Client;
            var issued = authority.Issue(leaf.CommonName(settings.Cluster), names, use, lifetime ?? settings.LeafLifetime);
            (this[leaf.CertFileName], this[leaf.KeyFileName]) = (issued.CertificatePem, issued.KeyPem);
        }

        public void Write() => pki._files.Write(_files, KnownFiles, IsSecret);

        private T Json<T>(string file, Func<string, T?> parse)
            where T : class
        {
            try
            {
                return parse(this[file]) ?? throw new JsonException("it is empty");
            }
            catch (JsonException e)
            {
                throw new PkiException($"{pki.File(file)} cannot be read: {e.Message}: restore it from a copy", e);
            }
        }
    }
}
