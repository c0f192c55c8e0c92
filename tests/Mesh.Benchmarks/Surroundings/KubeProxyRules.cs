using System.Globalization;
using System.Text;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>Rules in the shape that kube-proxy gives them, for packets of this node: a verdict map of services, a chain for each
/// service that draws a backend, a chain for each backend that translates.</summary>
internal static class KubeProxyRules
{
    public const string Table = "mesh_bench";

    /// <summary>Service i is 10.97.(i / 256).(i % 256), TCP port 80.</summary>
    /// <param name="backends">Of each service.</param>
    /// <param name="prefix">First two bytes of the backends' addresses, with a point behind each; all listen on port 8080.</param>
    /// <param name="shared">The same backends for all services: prefix.0.1 and on.</param>
    public static string Nft(int services, int backends, string prefix, bool shared = false)
    {
        var text = new StringBuilder($"table ip {Table} {{\n");
        for (var i = 0; i < services; i++)
        {
            for (var b = 0; b < backends; b++)
            {
                var number = shared ? b + 1 : (i * backends) + b;
                text.Append(CultureInfo.InvariantCulture,
                    $"chain e{i}-{b} {{ meta l4proto tcp dnat to {prefix}{number >> 8 & 255}.{number & 255}:8080; }}\n");
            }
            var choices = string.Join(", ", Enumerable.Range(0, backends).Select(b => $"{b} : goto e{i}-{b}"));
            text.Append(CultureInfo.InvariantCulture, $"chain s{i} {{ numgen random mod {backends} vmap {{ {choices} }}; }}\n");
        }
        text.Append("map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ");
        text.AppendJoin(", ", Enumerable.Range(0, services).Select(i => $"{Address(i)} . tcp . 80 : goto s{i}"));
        text.Append(" }; }\nchain services { ip daddr . meta l4proto . th dport vmap @services; }\n");
        text.Append("chain output { type nat hook output priority -100; policy accept; jump services; }\n}\n");
        return text.ToString();
    }

    public static string Address(int service) => string.Create(CultureInfo.InvariantCulture, $"10.97.{service >> 8}.{service & 255}");
}
