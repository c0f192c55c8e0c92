using Mesh.Install.Text;

namespace Mesh.Install.Charts;

/// <summary>What templates ask the world around them for.</summary>
public interface IChartEnvironment
{
    /// <summary>An object of the cluster as it is; empty when there is none, or no cluster to ask.</summary>
    Map Lookup(string apiVersion, string kind, string ns, string name);

    /// <returns>Cert and Key, PEM.</returns>
    Map MakeAuthority(string commonName, int days);

    /// <param name="authority">Cert and Key of who signs.</param>
    /// <returns>Cert and Key, PEM.</returns>
    Map MakeCertificate(string commonName, IReadOnlyList<string> addresses, IReadOnlyList<string> names, int days, Map authority);
}
