using System.Text;
using Mesh.KVStore;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Cilium's etcd client file: how one of our programs is told to connect.</summary>
internal static class ClientFile
{
    public static string Of(EtcdOptions options)
    {
        var text = new StringBuilder("endpoints:\n");
        foreach (var endpoint in options.Endpoints)
            text.Append("- ").Append(endpoint).Append('\n');
        return text.Append("trusted-ca-file: ").Append(options.TrustedCaFile).Append("\ncert-file: ").Append(options.CertFile)
            .Append("\nkey-file: ").Append(options.KeyFile).Append('\n').ToString();
    }
}
