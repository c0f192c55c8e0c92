using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Mesh.Pki;

namespace Mesh.Joining;

/// <summary>A cluster's own certificates, read from its pki directory at the moment of use: what was rotated is what is used.</summary>
internal static class OwnPki
{
    public static string AuthorityFile(string pki) => Path.Combine(pki, "ca.crt");

    /// <summary>PEM of the authorities that sign for this cluster, normalised.</summary>
    public static string AuthoritiesPem(string pki)
    {
        using var authorities = Authorities(pki);
        return authorities.Pem;
    }

    public static IReadOnlyList<string> AuthoritiesDer(string pki)
    {
        using var authorities = Authorities(pki);
        return [.. authorities.Certificates.Select(certificate => Convert.ToBase64String(certificate.RawData))];
    }

    public static Authorities Authorities(string pki)
    {
        var authorities = ClusterFacts.ReadAuthorities(Text(AuthorityFile(pki)));
        return authorities.Count > 0 ? authorities
            : throw new JoinException("pki", $"{AuthorityFile(pki)} holds no certificate: make an authority with `mesh ca init`");
    }

    /// <summary>Certificate and key of a pair of files such as server.{crt,key}.</summary>
    public static X509Certificate2 Pair(string pki, string name)
    {
        try
        {
            return X509Certificate2.CreateFromPem(Text(Path.Combine(pki, $"{name}.crt")), Text(Path.Combine(pki, $"{name}.key")));
        }
        catch (CryptographicException e)
        {
            throw new JoinException("pki", $"{pki}/{name}.crt and {name}.key are not a certificate and its key: issue them again with `mesh ca issue`", e);
        }
    }

    /// <summary>The certificates behind the first in a file: what a client needs between it and the authority it trusts.</summary>
    public static X509Certificate2Collection Chain(string pki, string name)
    {
        var all = new X509Certificate2Collection();
        all.ImportFromPem(Text(Path.Combine(pki, $"{name}.crt")));
        all.RemoveAt(0);
        return all;
    }

    /// <summary>Signs a request for a peer's client certificate. Only its key is taken over: the name is ours to give.</summary>
    /// <returns>PEM: the certificate with its chain.</returns>
    /// <exception cref="JoinException">The request is not one, or is not signed by its own key.</exception>
    public static string Sign(string pki, string request, string commonName, TimeProvider time)
    {
        try
        {
            return PkiDirectory.Open(pki, time).IssueForPeer(request, commonName).CertificatePem;
        }
        catch (PkiException e)
        {
            throw new JoinException("pki", e.Message, e);
        }
    }

    /// <summary>A peer was left: what it holds hinders no rotation any more.</summary>
    public static void Forget(string pki, string commonName, TimeProvider time)
    {
        // Shared by all peers of a door without users: others may hold it.
        if (commonName == PkiLeaf.Remote.CommonName(""))
            return;
        try
        {
            PkiDirectory.Open(pki, time).ForgetPeer(commonName);
        }
        catch (PkiException e)
        {
            throw new JoinException("pki", e.Message, e);
        }
    }

    /// <exception cref="JoinException">There is nothing to sign a peer's certificate with.</exception>
    public static void RequireSigner(string pki, TimeProvider time)
    {
        try
        {
            using var authority = PkiDirectory.Open(pki, time).OpenAuthority();
        }
        catch (Exception e) when (e is PkiException or CryptographicException or ArgumentException)
        {
            throw new JoinException("pki", e.Message, e);
        }
    }

    public static string Text(string path)
    {
        try
        {
            return File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new JoinException("pki", $"{path}: {InWords.Of(e)}: make the certificates with `mesh ca`", e);
        }
    }
}
