using System.Net;
using System.Security.Cryptography;
using Mesh.Install.Text;
using Mesh.Pki;

namespace Mesh.Install.Charts;

/// <summary>The environment of our own installations: certificates by Mesh.Pki, and objects of the cluster that were read before.</summary>
/// <param name="found">Objects by apiVersion, kind, namespace and name; what is not among them does not exist.</param>
/// <param name="time">Certificates begin now.</param>
public sealed class ChartEnvironment(IReadOnlyDictionary<(string ApiVersion, string Kind, string Namespace, string Name), Map> found, TimeProvider time)
    : IChartEnvironment
{
    /// <summary>No cluster is asked.</summary>
    public static ChartEnvironment Nowhere { get; } =
        new(new Dictionary<(string ApiVersion, string Kind, string Namespace, string Name), Map>(), TimeProvider.System);

    public Map Lookup(string apiVersion, string kind, string ns, string name) =>
        found.TryGetValue((apiVersion, kind, ns, name), out var map) ? map.Copy() : [];

    public Map MakeAuthority(string commonName, int days)
    {
        using var authority = CertificateAuthority.Create(commonName, TimeSpan.FromDays(days), time);
        return Pair(authority.CertificatePem, authority.KeyPem);
    }

    public Map MakeCertificate(string commonName, IReadOnlyList<string> addresses, IReadOnlyList<string> names, int days, Map authority)
    {
        CertificateAuthority signer;
        try
        {
            signer = CertificateAuthority.Load((string)authority["Cert"]!, (string)authority["Key"]!, time);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new InstallException("the certificate authority of this cluster (Secret cilium-ca, or tls.ca.cert and tls.ca.key) cannot sign: "
                + $"{e.Message}. Correct it, or remove it to have a new one made", e);
        }
        using (signer)
        {
            var all = new CertificateNames([.. names], [.. addresses.Select(IPAddress.Parse)]);
            var use = all.IsEmpty ? CertificateUse.Client : CertificateUse.ServerAndClient;
            var issued = signer.Issue(commonName, all, use, TimeSpan.FromDays(days));
            return Pair(issued.CertificatePem, issued.KeyPem);
        }
    }

    private static Map Pair(string certificate, string key) => new() { ["Cert"] = WithEnd(certificate), ["Key"] = WithEnd(key) };

    private static string WithEnd(string pem) => pem.EndsWith('\n') ? pem : pem + "\n";
}
