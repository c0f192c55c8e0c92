using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>An etcd of our own: where it lives, where it listens, and how it and we prove who we are.</summary>
public sealed record EtcdServerOptions
{
    /// <summary>Made with mode 0700 when absent. Its content is a projection of the objects: losing it costs a rewrite.</summary>
    public required string DataDirectory { get; init; }

    /// <summary>http://IP:PORT or https://IP:PORT, at least one; etcd binds addresses, not names.</summary>
    public required IReadOnlyList<string> ListenClientUrls { get; init; }

    /// <summary>PEM file of the authority whose client certificates are let in. All five files are given, or none.</summary>
    public string? TrustedCaFile { get; init; }

    public string? ServerCertFile { get; init; }

    public string? ServerKeyFile { get; init; }

    /// <summary>Our own certificate; common name root or admin-CLUSTER.</summary>
    public string? ClientCertFile { get; init; }

    public string? ClientKeyFile { get; init; }

    /// <summary>Clients need a certificate, and users and roles decide what they may read.</summary>
    public bool IsSecure => ServerCertFile is not null;

    /// <summary>How this process reaches it.</summary>
    public EtcdOptions ClientOptions() => new()
    {
        Endpoints = [Reachable(ListenClientUrls[0])],
        TrustedCaFile = TrustedCaFile,
        CertFile = ClientCertFile,
        KeyFile = ClientKeyFile,
    };

    /// <summary>"Every address" is one to listen on, not one to call.</summary>
    internal static string Reachable(string url) =>
        url.Replace("//0.0.0.0:", "//127.0.0.1:", StringComparison.Ordinal).Replace("//[::]:", "//[::1]:", StringComparison.Ordinal);
}
