using System.Diagnostics;
using System.Text;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab.Making;

/// <summary>
/// Namespaces, devices, addresses and routes. Every device is born inside a namespace of the lab: the namespace of whoever runs
/// `lab up` is never touched.
/// </summary>
internal static class Wiring
{
    private const int TunnelOverheadBytes = 50;
    private const int UnderlayMtu = 1500;

    public static async Task CreateAsync(LabPlan plan, CancellationToken cancel)
    {
        Parallel.Invoke(
        [
            () => NetworkNamespace.Create(plan.WanNamespace, () => Set("ipv6/conf/default/disable_ipv6", "1")),
            .. plan.Clusters.Select<ClusterPlan, Action>(c => () => NetworkNamespace.Create(c.Namespace, QuietIPv6)),
            .. plan.Nodes.Select<NodePlan, Action>(n => () => NetworkNamespace.Create(n.Namespace, NodeSysctls)),
            .. plan.Pods.Select<PodPlan, Action>(p => () => NetworkNamespace.Create(p.Namespace, QuietIPv6)),
        ]);
        await IpAsync(plan, plan.WanNamespace, Wan(plan), cancel);
        await Parallel.ForEachAsync(Inner(plan), cancel, async (inner, token) => await IpAsync(plan, inner.Namespace, inner.Lines, token));
    }

    /// <summary>Cuts or mends one control plane's link to everybody else; the nodes keep theirs.</summary>
    public static Task SetLinkAsync(LabPlan plan, string port, bool up, CancellationToken cancel) =>
        IpAsync(plan, plan.WanNamespace, [$"link set {port} {(up ? "up" : "down")}"], cancel);

    /// <summary>Name of the wan bridge's port to a control plane.</summary>
    public static string ControlPlanePort(ClusterPlan cluster) => $"{cluster.Name}-cp";

    private static IEnumerable<string> Wan(LabPlan plan)
    {
        yield return "link set lo up";
        yield return "link add br0 type bridge";
        yield return "link set br0 up";
        var members = plan.Clusters.Select(c => (Port: ControlPlanePort(c), c.Namespace))
            .Concat(plan.Nodes.Select(n => (Port: n.Name, n.Namespace)));
        foreach (var (port, ns) in members)
        {
            yield return $"link add name {port} mtu {UnderlayMtu} type veth peer name eth0 mtu {UnderlayMtu} netns {ns}";
            yield return $"link set {port} master br0 up";
        }
    }

    private static IEnumerable<(string Namespace, List<string> Lines)> Inner(LabPlan plan)
    {
        foreach (var cluster in plan.Clusters)
            yield return (cluster.Namespace, Underlay(cluster.Ip));
        foreach (var node in plan.Nodes)
        {
            var lines = Underlay(node.Ip);
            foreach (var pod in node.Pods)
            {
                lines.Add($"link add name {pod.HostInterface} address {pod.HostMac} type veth "
                    + $"peer name eth0 address {pod.Mac} netns {pod.Namespace}");
                lines.Add($"link set {pod.HostInterface} up");
            }
            yield return (node.Namespace, lines);
        }
    }

    /// <summary>The inside of the pods: after their devices exist.</summary>
    public static Task ConfigurePodsAsync(LabPlan plan, CancellationToken cancel) => Parallel.ForEachAsync(
        plan.Nodes.SelectMany(n => n.Pods.Select(p => (Node: n, Pod: p))), cancel,
        async (item, token) => await IpAsync(plan, item.Pod.Namespace, Pod(item.Node, item.Pod), token));

    private static IEnumerable<string> Pod(NodePlan node, PodPlan pod) =>
    [
        "link set lo up",
        $"link set eth0 mtu {UnderlayMtu - TunnelOverheadBytes} up",
        $"addr add {pod.IPv4}/32 dev eth0",
        $"addr add {pod.IPv6}/128 dev eth0 nodad",
        // The gateway is the node's own address in the pod range; the datapath answers for it.
        $"route add {node.InternalIPv4}/32 dev eth0 scope link",
        $"route add default via {node.InternalIPv4} dev eth0 src {pod.IPv4}",
        $"route add {node.InternalIPv6}/128 dev eth0",
        $"route add default via {node.InternalIPv6} dev eth0 src {pod.IPv6}",
    ];

    private static List<string> Underlay(string ip) =>
        ["link set lo up", $"addr add {ip}/16 dev eth0", "link set eth0 up"];

    private static void NodeSysctls()
    {
        QuietIPv6();
        Set("ipv4/ip_forward", "1");
        Set("ipv4/conf/all/rp_filter", "0");
        Set("ipv4/conf/default/rp_filter", "0");
        Set("ipv6/conf/all/forwarding", "1");
    }

    /// <summary>No duplicate address detection and no router solicitations: an address works the moment it is set.</summary>
    private static void QuietIPv6()
    {
        foreach (var scope in new[] { "all", "default" })
        {
            Set($"ipv6/conf/{scope}/accept_dad", "0");
            Set($"ipv6/conf/{scope}/accept_ra", "0");
        }
    }

    /// <summary>/proc/sys/net shows the namespace of the calling thread.</summary>
    private static void Set(string key, string value) => File.WriteAllText($"/proc/sys/net/{key}", value);

    private static async Task IpAsync(LabPlan plan, string ns, IEnumerable<string> lines, CancellationToken cancel)
    {
        var start = new ProcessStartInfo("ip", ["-n", ns, "-batch", "-"])
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        using var ip = Process.Start(start)!;
        // It waits for its commands, so nothing is done before the lab's cgroup holds it: `lab down` then finds it, whoever dies.
        ControlGroup.Move(ip.Id, plan.Cgroup);
        var commands = new StringBuilder().AppendJoin('\n', lines).Append('\n').ToString();
        await ip.StandardInput.WriteAsync(commands.AsMemory(), cancel);
        ip.StandardInput.Close();
        var output = ip.StandardOutput.ReadToEndAsync(cancel);
        var errors = await ip.StandardError.ReadToEndAsync(cancel);
        await output;
        await ip.WaitForExitAsync(cancel);
        if (ip.ExitCode != 0)
            throw new LabException($"ip in namespace {ns}: {errors.Trim().ReplaceLineEndings("; ")}");
    }
}
