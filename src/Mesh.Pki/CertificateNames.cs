using System.Net;
using System.Security.Cryptography.X509Certificates;

namespace Mesh.Pki;

/// <summary>What a server is reached by: the subject alternative names of its certificate.</summary>
/// <param name="Dns">A wildcard covers exactly one label.</param>
public sealed record CertificateNames(IReadOnlyList<string> Dns, IReadOnlyList<IPAddress> Addresses)
{
    public static CertificateNames None { get; } = new([], []);

    /// <summary>The names that Cilium's installers give to every clustermesh API server.</summary>
    public static CertificateNames ApiServer { get; } = new(
        ["clustermesh-apiserver.cilium.io", "*.mesh.cilium.io", "clustermesh-apiserver.kube-system.svc", "localhost"],
        [IPAddress.Loopback, IPAddress.IPv6Loopback]);

    public bool IsEmpty => Dns.Count == 0 && Addresses.Count == 0;

    /// <summary>Reads each as an address if it is one, else as a DNS name.</summary>
    /// <exception cref="PkiException">One is neither; the message says which.</exception>
    public static CertificateNames Parse(IEnumerable<string> names)
    {
        var dns = new List<string>();
        var addresses = new List<IPAddress>();
        foreach (var name in names)
        {
            if (IPAddress.TryParse(name, out var address))
                addresses.Add(address);
            else if (Uri.CheckHostName(name.StartsWith("*.", StringComparison.Ordinal) ? name[2..] : name) == UriHostNameType.Dns)
                dns.Add(name);
            else
                throw new PkiException($"'{name}' is neither a DNS name nor an IP address: a server certificate cannot name it");
        }
        return new CertificateNames(dns, addresses);
    }

    /// <summary>These and those, each once.</summary>
    public CertificateNames With(CertificateNames more) =>
        new([.. Dns.Union(more.Dns, StringComparer.OrdinalIgnoreCase)], [.. Addresses.Union(more.Addresses)]);

    /// <summary>The names in a certificate.</summary>
    public static CertificateNames Of(X509Certificate2 certificate)
    {
        var names = certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>().FirstOrDefault();
        return names is null ? None : new([.. names.EnumerateDnsNames()], [.. names.EnumerateIPAddresses()]);
    }

    public override string ToString() => string.Join(", ", Dns.Concat(Addresses.Select(address => address.ToString())));

    internal X509Extension ToExtension()
    {
        var builder = new SubjectAlternativeNameBuilder();
        foreach (var name in Dns)
            builder.AddDnsName(name);
        foreach (var address in Addresses)
            builder.AddIpAddress(address);
        return builder.Build();
    }
}

/// <summary>What a certificate may be used for.</summary>
public enum CertificateUse
{
    /// <summary>A client's: nobody can pose as a server with it.</summary>
    Client,

    /// <summary>A server's, which is also a client of itself: etcd's own HTTP gateway dials its own port with it.</summary>
    ServerAndClient,
}
