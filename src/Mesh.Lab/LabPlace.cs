using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Processes;

namespace Mesh.Lab;

/// <summary>A place inside a lab where a command can run: a node or a pod.</summary>
public sealed record LabPlace(string Name, string Namespace, string Cgroup)
{
    private const string DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// <summary>CLUSTER/NODE or CLUSTER/NODE/POD; a node or pod may be given by its number.</summary>
    /// <exception cref="LabException">There is no such place; says which there are.</exception>
    public static LabPlace Find(LabPlan plan, string path)
    {
        var parts = path.Split('/');
        if (parts.Length is not (2 or 3))
            throw new LabException($"'{path}' must be CLUSTER/NODE or CLUSTER/NODE/POD, such as {Example(plan)}");
        var cluster = Choose(plan.Clusters, c => c.Name == parts[0], $"cluster '{parts[0]}'", plan.Clusters.Select(c => c.Name));
        var node = Choose(cluster.Nodes, n => n.Name == parts[1] || n.Name == $"{cluster.Name}-{parts[1]}",
            $"node '{parts[1]}' in {cluster.Name}", cluster.Nodes.Select(n => n.Name));
        if (parts.Length == 2)
            return new LabPlace($"{cluster.Name}/{node.Name}", node.Namespace, node.Cgroup);
        var pod = Choose(node.Pods, p => p.Name == parts[2] || p.Name.EndsWith($"-{parts[2]}", StringComparison.Ordinal),
            $"pod '{parts[2]}' on {node.Name}", node.Pods.Select(p => p.Name));
        return new LabPlace($"{cluster.Name}/{node.Name}/{pod.Name}", pod.Namespace, pod.Cgroup);
    }

    private static string Example(LabPlan plan) =>
        $"{plan.Clusters[0].Name}/{plan.Clusters[0].Nodes[0].Name}/{plan.Clusters[0].Nodes[0].Pods[0].Name}";

    private static T Choose<T>(IEnumerable<T> items, Func<T, bool> match, string what, IEnumerable<string> names) =>
        items.FirstOrDefault(match) ?? throw new LabException($"there is no {what}, only {string.Join(", ", names)}");

    /// <summary>Replaces this process by the command, run in the place. Returns only by an exception.</summary>
    public void Become(IReadOnlyList<string> command)
    {
        LabStore.RequireRoot();
        var program = FindProgram(command[0]);
        ControlGroup.Join(Cgroup);
        Libc.EnterNetworkNamespace(NetworkNamespace.PathOf(Namespace));
        Libc.Execute(program, command, Spawn.CurrentEnvironment());
    }

    private static string FindProgram(string name)
    {
        if (name.Contains('/'))
            return File.Exists(name) ? name : throw new LabException($"{name}: there is no such program");
        var path = Environment.GetEnvironmentVariable("PATH") is { Length: > 0 } given ? given : DefaultPath;
        return path.Split(':').Select(directory => $"{directory}/{name}").FirstOrDefault(File.Exists)
            ?? throw new LabException($"{name}: not found in PATH ({path})");
    }
}
