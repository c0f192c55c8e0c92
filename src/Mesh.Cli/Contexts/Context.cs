using Mesh.AgentApi;
using Mesh.Lab;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Contexts;

/// <summary>
/// What the other commands are asked about: a cluster of a lab, or, on a machine of its own, the agent that listens there.
/// Written CLUSTER, LAB/CLUSTER, and with a node behind it CLUSTER/NODE, LAB/CLUSTER/NODE.
/// </summary>
public sealed record Context
{
    /// <summary>The environment variable that stands in for --context.</summary>
    public const string Variable = "MESH_CONTEXT";

    public required string Name { get; init; }

    /// <summary>Null for an agent outside a lab.</summary>
    public ClusterPlan? Cluster { get; init; }

    public LabPlan? Lab { get; init; }

    /// <summary>At least one; the first is the one asked when a command asks a single agent.</summary>
    public required IReadOnlyList<ContextNode> Nodes { get; init; }

    /// <exception cref="CliException">There is no such context; says which there are.</exception>
    public static Context Find(string? text)
    {
        text ??= Environment.GetEnvironmentVariable(Variable);
        // Who names a lab is not concerned by what another one, of another version perhaps, has written down.
        if (text?.Split('/') is [var name, var cluster, ..] && LabStore.Names().Contains(name)
            && LabStore.Get(name) is var lab && lab.Clusters.Any(c => c.Name == cluster))
            return Find(text, [lab], null);
        return Find(text, [.. LabStore.Names().Select(LabStore.Get)], StandaloneSocket());
    }

    internal static Context Find(string? text, IReadOnlyList<LabPlan> labs, string? standaloneSocket)
    {
        if (string.IsNullOrEmpty(text))
            return Default(labs, standaloneSocket);
        var parts = text.Split('/');
        var candidates = new List<Context>();
        foreach (var lab in labs)
            foreach (var cluster in lab.Clusters)
            {
                var rest = parts[0] == lab.Name && parts.Length > 1 ? parts[1..] : parts;
                if (rest[0] != cluster.Name || rest.Length > 2)
                    continue;
                var nodes = rest.Length == 1 ? cluster.Nodes
                    : [.. cluster.Nodes.Where(n => n.Name == rest[1] || n.Name == $"{cluster.Name}-{rest[1]}")];
                if (nodes.Count == 0)
                    throw new CliException($"there is no node '{rest[1]}' in {cluster.Name}: choose one of "
                        + string.Join(", ", cluster.Nodes.Select(n => $"{cluster.Name}/{n.Name}")));
                candidates.Add(Of(lab, cluster, nodes));
            }
        return candidates switch
        {
            [var only] => only,
            [] => throw new CliException($"there is no context '{text}': {Choices(labs)}"),
            _ => throw new CliException($"'{text}' is in several labs: {Choices(labs)}"),
        };
    }

    private static Context Default(IReadOnlyList<LabPlan> labs, string? standaloneSocket)
    {
        if (standaloneSocket is not null)
            return new Context { Name = "standalone", Nodes = [new ContextNode("", standaloneSocket, null)] };
        return labs switch
        {
            [] => throw new CliException(
                "there is no lab and no agent on this machine: run `mesh lab up`, or name an agent with --socket PATH"),
            [var lab] => Of(lab, lab.Clusters[0], lab.Clusters[0].Nodes),
            _ => throw new CliException($"there are several labs: {Choices(labs)}"),
        };
    }

    private static Context Of(LabPlan lab, ClusterPlan cluster, IReadOnlyList<NodePlan> nodes) => new()
    {
        Name = $"{lab.Name}/{cluster.Name}",
        Lab = lab,
        Cluster = cluster,
        Nodes = [.. nodes.Select(n => new ContextNode(n.Name, n.Socket, n.BpfRoot, n.StateDirectory))],
    };

    private static string Choices(IReadOnlyList<LabPlan> labs) => labs.Count == 0
        ? "there is no lab, run `mesh lab up`"
        : "choose with --context one of "
            + string.Join(", ", labs.SelectMany(l => l.Clusters.Select(c => labs.Count == 1 ? c.Name : $"{l.Name}/{c.Name}")));

    /// <summary>The agent of this machine, or null when none ever listened on it outside a lab.</summary>
    public static ContextNode? Standalone() => StandaloneSocket() is { } socket ? new ContextNode("", socket, null) : null;

    /// <summary>Null when no agent ever listened on this machine outside a lab.</summary>
    private static string? StandaloneSocket()
    {
        if (Environment.GetEnvironmentVariable("CILIUM_SOCK") is { Length: > 0 } given)
            return given;
        return File.Exists(AgentClient.DefaultSocketPath) ? AgentClient.DefaultSocketPath : null;
    }
}

/// <param name="Name">"" when unknown.</param>
/// <param name="Socket">Unix socket of its agent.</param>
/// <param name="BpfRoot">Directory of its pins; null when unknown.</param>
/// <param name="StateDirectory">Its --state-dir; null when unknown.</param>
public sealed record ContextNode(string Name, string Socket, string? BpfRoot, string? StateDirectory = null)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>Where an agent's own container has its settings, a file each: read with the agent dead or busy too.</summary>
    internal string SettingsDirectory { get; init; } = "/tmp/cilium/config-map";

    public AgentClient Connect(TimeSpan? timeout = null) => new(Socket, Name, timeout);

    /// <summary>As the context says, else as the agent's settings beside us do, else as the agent says when asked.</summary>
    /// <exception cref="CliException">None of them says.</exception>
    public string FindBpfRoot() => BpfRoot ?? Setting("bpf-root") ?? Ask(map => map.BPFRoot, "maps are pinned", "--bpf-root");

    /// <summary>As <see cref="FindBpfRoot"/>.</summary>
    /// <exception cref="CliException">Nobody says.</exception>
    public string FindStateDirectory() => StateDirectory ?? Setting("state-dir") ?? Ask(map => map.StateDir, "state is", "--state-dir");

    private string? Setting(string name)
    {
        var file = Path.Combine(SettingsDirectory, name);
        return File.Exists(file) && File.ReadAllText(file).Trim() is { Length: > 0 } value ? value : null;
    }

    private string Ask(Func<DaemonConfigurationMap, string?> value, string what, string flag)
    {
        try
        {
            using var agent = Connect(Patience);
            if (agent.GetConfigurationAsync().GetAwaiter().GetResult().Status?.DaemonConfigurationMap is { } map && value(map) is { Length: > 0 } found)
                return found;
        }
        catch (AgentException e)
        {
            throw new CliException($"where this agent's {what} is not known: give its {flag} ({e.Message})");
        }
        throw new CliException($"where this agent's {what} is not known, and it does not say: give its {flag}");
    }
}
