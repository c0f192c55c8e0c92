using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Processes;

namespace Mesh.Lab;

/// <summary>A place inside a lab where a command can run: a node, a pod or a control plane.</summary>
public sealed record LabPlace(string Name, string Namespace, string Cgroup)
{
    /// <summary>Stands for the control plane where a node's name would stand.</summary>
    public const string ControlPlaneName = "cp";

    /// <summary>CLUSTER/NODE, CLUSTER/NODE/POD or CLUSTER/cp; a node or pod may be given by its number.</summary>
    /// <exception cref="LabException">There is no such place; says which there are.</exception>
    public static LabPlace Find(LabPlan plan, string path)
    {
        var parts = path.Split('/');
        if (parts.Length is not (2 or 3))
            throw new LabException($"'{path}' must be CLUSTER/NODE, CLUSTER/NODE/POD or CLUSTER/{ControlPlaneName}, such as {Example(plan)}");
        var cluster = FindCluster(plan, parts[0]);
        if (parts is [_, ControlPlaneName])
            return ControlPlane(plan, cluster);
        var node = Choose(cluster.Nodes, n => n.Name == parts[1] || n.Name == $"{cluster.Name}-{parts[1]}",
            $"node '{parts[1]}' in {cluster.Name}", cluster.Nodes.Select(n => n.Name));
        if (parts.Length == 2)
            return new LabPlace($"{cluster.Name}/{node.Name}", node.Namespace, node.Cgroup);
        var pod = Choose(node.Pods, p => p.Name == parts[2] || p.Name.EndsWith($"-{parts[2]}", StringComparison.Ordinal),
            $"pod '{parts[2]}' on {node.Name}", node.Pods.Select(p => p.Name));
        return new LabPlace($"{cluster.Name}/{node.Name}/{pod.Name}", pod.Namespace, pod.Cgroup);
    }

    /// <summary>Where the cluster's API server and etcd run.</summary>
    public static LabPlace ControlPlane(LabPlan plan, ClusterPlan cluster) =>
        new($"{cluster.Name}/{ControlPlaneName}", cluster.Namespace, plan.ControlPlaneCgroup(cluster));

    /// <exception cref="LabException">There is no such cluster; says which there are.</exception>
    public static ClusterPlan FindCluster(LabPlan plan, string name) =>
        Choose(plan.Clusters, c => c.Name == name, $"cluster '{name}'", plan.Clusters.Select(c => c.Name));

    private static string Example(LabPlan plan) =>
        $"{plan.Clusters[0].Name}/{plan.Clusters[0].Nodes[0].Name}/{plan.Clusters[0].Nodes[0].Pods[0].Name}";

    private static T Choose<T>(IEnumerable<T> items, Func<T, bool> match, string what, IEnumerable<string> names) =>
        items.FirstOrDefault(match) ?? throw new LabException($"there is no {what}, only {string.Join(", ", names)}");

    /// <summary>Replaces this process by the command, run in the place. Returns only by an exception.</summary>
    public void Become(IReadOnlyList<string> command)
    {
        LabStore.RequireRoot();
        var program = Execution.Find(command[0]);
        ControlGroup.Join(Cgroup);
        Libc.EnterNetworkNamespace(NetworkNamespace.PathOf(Namespace));
        Execution.Become(program, command);
    }
}
