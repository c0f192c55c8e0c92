using System.Security.Cryptography;
using System.Text;

namespace Mesh.ClusterMesh.Config;

/// <summary>One peer as the configuration directory describes it.</summary>
/// <param name="Name">The file's name, which is the cluster's name.</param>
/// <param name="Path">Where the file was read; certificate files it names are read later, at each handshake.</param>
/// <param name="Text">An etcd client file in YAML.</param>
public sealed record PeerConfig(string Name, string Path, string Text)
{
    /// <summary>Decides whether the file changed; a new time stamp does not.</summary>
    public string Hash { get; } = Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(Text)));
}

public enum PeerChangeKind
{
    /// <summary>New, or with another content.</summary>
    Set,
    Removed,

    /// <summary>There is such a file, but its name cannot be a cluster's: never connected.</summary>
    Invalid,
}

/// <param name="Config">Null unless <paramref name="Kind"/> is Set.</param>
/// <param name="Problem">Why the file is not used; null unless Invalid.</param>
public sealed record PeerChange(PeerChangeKind Kind, string Name, PeerConfig? Config = null, string? Problem = null);
