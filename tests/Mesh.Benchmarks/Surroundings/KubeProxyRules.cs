using System.Globalization;
using System.Text;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// Rules in the shape that kube-proxy gives them, for packets of this node and for those it passes on: in nft a verdict map of services,
/// with iptables one rule for each service in a row; behind both a chain for each service that draws a backend, and a chain for each backend
/// that translates.
/// </summary>
internal sealed class KubeProxyRules : IDisposable
{
    private const string Table = "mesh_bench";

    /// <summary>By what the rules can be written.</summary>
    public static readonly string[] Kinds = ["nft", "iptables-nft", "iptables-legacy"];

    private readonly string _kind;
    private readonly string _file;
    private readonly Func<string[], string> _run;

    /// <param name="kind">Of <see cref="Kinds"/>.</param>
    /// <param name="services">Service i is <see cref="Address"/>, TCP port 80.</param>
    /// <param name="backends">Of each service.</param>
    /// <param name="backend">Address and port of a backend, by its number and the service's.</param>
    /// <param name="run">Runs a command where the rules are to be; by default in the namespace of this program.</param>
    public KubeProxyRules(string kind, int services, int backends, Func<int, int, string> backend, Func<string[], string>? run = null)
    {
        _kind = kind;
        _run = run ?? (command => Command.Run(command[0], command[1..]));
        _file = Path.GetTempFileName();
        Load(kind == "nft" ? Nft(services, backends, backend) : Iptables(services, backends, backend));
    }

    public static string Address(int service) => string.Create(CultureInfo.InvariantCulture, $"10.97.{service >> 8}.{service & 255}");

    public void Dispose()
    {
        if (_kind == "nft")
            _run(["nft", "delete", "table", "ip", Table]);
        else
            Load("*nat\nCOMMIT\n");
        File.Delete(_file);
    }

    private void Load(string rules)
    {
        File.WriteAllText(_file, rules);
        _run(_kind == "nft" ? ["nft", "-f", _file] : [$"{_kind}-restore", _file]);
    }

    private static string Nft(int services, int backends, Func<int, int, string> backend)
    {
        var text = new StringBuilder($"table ip {Table} {{\n");
        for (var i = 0; i < services; i++)
        {
            for (var b = 0; b < backends; b++)
                text.Append(CultureInfo.InvariantCulture, $"chain e{i}-{b} {{ meta l4proto tcp dnat to {backend(i, b)}; }}\n");
            var choices = string.Join(", ", Enumerable.Range(0, backends).Select(b => $"{b} : goto e{i}-{b}"));
            text.Append(CultureInfo.InvariantCulture, $"chain s{i} {{ numgen random mod {backends} vmap {{ {choices} }}; }}\n");
        }
        text.Append("map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { ");
        text.AppendJoin(", ", Enumerable.Range(0, services).Select(i => $"{Address(i)} . tcp . 80 : goto s{i}"));
        text.Append(" }; }\nchain services { ip daddr . meta l4proto . th dport vmap @services; }\n");
        foreach (var hook in (string[])["output", "prerouting"])
            text.Append(CultureInfo.InvariantCulture, $"chain {hook} {{ type nat hook {hook} priority -100; policy accept; jump services; }}\n");
        return text.Append("}\n").ToString();
    }

    private static string Iptables(int services, int backends, Func<int, int, string> backend)
    {
        var text = new StringBuilder("*nat\n:KUBE-SERVICES - [0:0]\n");
        for (var i = 0; i < services; i++)
        {
            text.Append(CultureInfo.InvariantCulture, $":KUBE-SVC-{i} - [0:0]\n");
            for (var b = 0; b < backends; b++)
                text.Append(CultureInfo.InvariantCulture, $":KUBE-SEP-{i}-{b} - [0:0]\n");
        }
        text.Append("-A OUTPUT -j KUBE-SERVICES\n-A PREROUTING -j KUBE-SERVICES\n");
        for (var i = 0; i < services; i++)
        {
            text.Append(CultureInfo.InvariantCulture, $"-A KUBE-SERVICES -d {Address(i)}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{i}\n");
            for (var b = 0; b < backends; b++)
            {
                var chance = b == backends - 1 ? "" : string.Create(CultureInfo.InvariantCulture,
                    $"-m statistic --mode random --probability {1.0 / (backends - b):0.0000000000} ");
                text.Append(CultureInfo.InvariantCulture, $"-A KUBE-SVC-{i} {chance}-j KUBE-SEP-{i}-{b}\n");
                text.Append(CultureInfo.InvariantCulture, $"-A KUBE-SEP-{i}-{b} -p tcp -m tcp -j DNAT --to-destination {backend(i, b)}\n");
            }
        }
        return text.Append("COMMIT\n").ToString();
    }
}
