namespace Mesh.Pki;

/// <summary>One of the certificates that every cluster issues to its own programs.</summary>
public sealed class PkiLeaf
{
    private readonly Func<string, string> _commonName;

    private PkiLeaf(string name, Func<string, string> commonName)
    {
        Name = name;
        _commonName = commonName;
    }

    /// <summary>What the API server's door shows.</summary>
    public static PkiLeaf Server { get; } = new("server", _ => "clustermesh-apiserver.cilium.io");

    /// <summary>The cluster's own agents, which read the cached view.</summary>
    public static PkiLeaf Local { get; } = new("local", cluster => $"local-{cluster}");

    /// <summary>Other clusters, when they share one certificate.</summary>
    public static PkiLeaf Remote { get; } = new("remote", _ => "remote");

    /// <summary>Reads and writes everything.</summary>
    public static PkiLeaf Admin { get; } = new("admin", cluster => $"admin-{cluster}");

    public static IReadOnlyList<PkiLeaf> All { get; } = [Server, Local, Remote, Admin];

    /// <summary>Its files are called by it: NAME.crt, NAME.key.</summary>
    public string Name { get; }

    public string CertFileName => Name + ".crt";

    public string KeyFileName => Name + ".key";

    /// <summary>For a client this is the etcd user.</summary>
    public string CommonName(string cluster) => _commonName(cluster);

    public override string ToString() => Name;
}
