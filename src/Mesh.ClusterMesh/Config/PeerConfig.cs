using System.Security.Cryptography;
using System.Text;
using Mesh.ClusterMesh.Imports;

namespace Mesh.ClusterMesh.Config;

/// <summary>One peer as the configuration directory describes it.</summary>
/// <param name="Name">The file's name, which is the cluster's name.</param>
/// <param name="Path">Where the file was read; certificate files it names are read later, at each handshake.</param>
/// <param name="Text">An etcd client file in YAML.</param>
public sealed record PeerConfig(string Name, string Path, string Text)
{
    /// <summary>What the peer may publish: from CLUSTER.imports.json beside the file; the last good one while that is malformed or
    /// lost. Null without such a file.</summary>
    public ImportPolicy? Imports { get; init; }

    /// <summary>Why CLUSTER.imports.json is not in force; null when it is, or there is none. With no good one to fall back on the peer
    /// must not be connected.</summary>
    public string? ImportsProblem { get; init; }

    /// <summary>The import file's text; null without one, also when there was one.</summary>
    public string? ImportsText { get; init; }

    /// <summary>Decides whether the files changed; a new time stamp does not.</summary>
    public string Hash => Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes($"{Text}\0{ImportsText}")));
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
