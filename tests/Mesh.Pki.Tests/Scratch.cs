using System.Security.Cryptography.X509Certificates;

namespace Mesh.Pki.Tests;

/// <summary>A directory of a test's own, and what a TLS stack would say about certificates in it.</summary>
public sealed class Scratch : IDisposable
{
    public string Path { get; } = Directory.CreateTempSubdirectory("mesh-pki-").FullName;

    public string Pki => System.IO.Path.Combine(Path, "pki");

    public PkiDirectory Init(string cluster = "tokyo", TimeProvider? time = null) =>
        PkiDirectory.Init(Pki, new PkiSettings { Cluster = cluster, ServerNames = ["10.0.0.1"] }, time: time);

    public string Text(string file) => File.ReadAllText(System.IO.Path.Combine(Pki, file));

    /// <summary>As a handshake decides: the first certificate is the leaf, the others came with it, the bundle is trusted.</summary>
    public static bool Verifies(string presentedPem, string bundlePem)
    {
        var presented = new X509Certificate2Collection();
        presented.ImportFromPem(presentedPem);
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.ImportFromPem(bundlePem);
        chain.ChainPolicy.ExtraStore.AddRange(presented);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.DisableCertificateDownloads = true;
        return chain.Build(presented[0]);
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
