using System.Security.Cryptography;
using System.Text;
using Mesh.Model;

namespace Mesh.Multicluster;

/// <summary>The names that exported services are known by in every cluster. STABLE: two clusters that derive another name do not meet.</summary>
public static class MulticlusterNames
{
    /// <summary>On derived Services, their slices and imports: the exported service's name.</summary>
    public const string ServiceNameLabel = "multicluster.kubernetes.io/service-name";

    /// <summary>On slices: where the endpoints are.</summary>
    public const string SourceClusterLabel = "multicluster.kubernetes.io/source-cluster";

    /// <summary>On an import of ours: the Service that has its address.</summary>
    public const string DerivedServiceAnnotation = "multicluster.kubernetes.io/derived-service";

    private const string Digits = "0123456789abcdefghijklmnopqrstuv";
    private const int HashLength = 10;

    private static readonly string[] Reserved =
    [
        "kubernetes.io", "endpointslice.kubernetes.io", "multicluster.kubernetes.io", "service.kubernetes.io", "service.beta.kubernetes.io", "io.cilium",
        "cilium.io",
    ];

    /// <summary>Name of the Service that stands for an exported one, in its namespace.</summary>
    public static string Derived(ServiceName service) => $"derived-{Hash(service.ToString(), HashLength)}";

    /// <summary>The first digits of the text's SHA-256 in base32 with extended hexadecimal digits, lower case.</summary>
    /// <param name="length">1 to 51.</param>
    public static string Hash(string text, int length)
    {
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(text));
        var digits = new char[length];
        for (var i = 0; i < length; i++)
        {
            var (at, shift) = (i * 5 / 8, i * 5 % 8);
            var pair = (hash[at] << 8) | (at + 1 < hash.Length ? hash[at + 1] : 0);
            digits[i] = Digits[(pair >> (11 - shift)) & 31];
        }
        return new string(digits);
    }

    /// <summary>A label or annotation that means something to Kubernetes or to the mesh itself: no other cluster may set it here.</summary>
    public static bool IsReserved(string key)
    {
        var slash = key.IndexOf('/', StringComparison.Ordinal);
        if (slash < 0)
            return false;
        var domain = key[..slash];
        return Array.IndexOf(Reserved, domain) >= 0 || domain.EndsWith(".cilium.io", StringComparison.Ordinal);
    }
}
