using Mesh.KubeWorld;
using Mesh.TestKit;

namespace Mesh.Cluster.Tests;

/// <summary>
/// What a mesh could leave behind in a cluster: kinds and objects, and of every node the devices, routes, rules and filters of its network, the
/// programs at its cgroup, and the files and pins below its root. A BPF file system that was mounted stays: others may have pins there by now.
/// </summary>
internal static class Traces
{
    private static readonly string[] Passing = ["events", "events.events.k8s.io", "componentstatuses"];

    // Programs on devices are links, and live as long as their pins; those that are not show here.
    private const string Network = """
        ip -o link | awk '{print "device", $2, $0 ~ /xdp/ ? "xdp" : ""}' | sed 's/[@:][^ ]*//'; tc qdisc show | grep -v noqueue
        ip -4 route; ip -6 route show table all | grep -v 'fe80\|ff00::'; ip rule; ip -6 rule; nft list ruleset
        bpftool cgroup show "$1" effective | awk '{print "cgroup", $2}'
        """;

    private const string Files = """
        cd "$1"; find . -path ./proc -prune -o -path ./boot -prune -o -path ./sys/kernel -prune -o -path ./sys/fs/cgroup -prune \
            -o -path ./volumes -prune -o -path ./var/log -prune -o -print | grep -v '^./var/run/cilium$\|^./sys/fs/bpf/[a-z]*\.debug$'
        """;

    /// <summary>One line for each; nothing in them changes by itself.</summary>
    public static IReadOnlyList<string> Of(KubeCluster cluster, Person person)
    {
        var kinds = person.Kubectl(cluster.Name, "api-resources", "--verbs=list", "-o", "name").Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Except(Passing).ToList();
        var lines = kinds.Select(kind => $"kind {kind}").ToList();
        lines.AddRange(person.Kubectl(cluster.Name, "get", string.Join(',', kinds), "-A", "--no-headers", "-o",
            "custom-columns=KIND:.kind,NAMESPACE:.metadata.namespace,NAME:.metadata.name").Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => $"object {line}"));
        foreach (var node in cluster.Nodes)
        {
            var network = cluster.NetworkOf(node).Shell("sh", "-c", Network, "sh", cluster.HostPath(node, "/sys/fs/cgroup"));
            var files = ChildThread.Run("nsenter", $"--target={cluster.HolderOf(node)}", "--mount", "sh", "-c", Files, "sh", cluster.HostPath(node, "/"));
            lines.AddRange($"{network}\n{files}".Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => $"{node}: {line.Trim()}"));
        }
        return [.. lines.Distinct().Order(StringComparer.Ordinal)];
    }
}
