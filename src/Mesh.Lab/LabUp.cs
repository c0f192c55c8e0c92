using System.Diagnostics;
using Mesh.AgentApi;
using Mesh.Lab.Making;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Mesh.Lab.Processes;

namespace Mesh.Lab;

/// <summary>
/// Makes a lab: plan first, then directories, namespaces, files, keepers, pods, tokens, and waits until the mesh is one. Whatever goes
/// wrong, the half-made lab is taken down again before the failure is told.
/// </summary>
public static class LabUp
{
    /// <summary>For the agents to answer, and again for the clusters to be one mesh.</summary>
    public static readonly TimeSpan ReadyDeadline = TimeSpan.FromSeconds(40);

    /// <param name="progress">Gets one line per stage.</param>
    /// <exception cref="LabException">It could not be made; nothing of it is left.</exception>
    public static Task<LabPlan> RunAsync(LabSpec spec, Action<string> progress, CancellationToken cancel) =>
        RunAsync(spec, progress, ReadyDeadline, cancel);

    /// <param name="progress">Gets one line per stage.</param>
    /// <param name="readyDeadline">For the agents to answer, and again for the clusters to be one mesh.</param>
    /// <exception cref="LabException">It could not be made; nothing of it is left.</exception>
    public static async Task<LabPlan> RunAsync(LabSpec spec, Action<string> progress, TimeSpan readyDeadline, CancellationToken cancel)
    {
        spec.Validate();
        LabStore.RequireRoot();
        var plan = LabPlanner.Plan(spec, Programs.Find(), ControlGroup.FindRoot());
        if (LabStore.Find(spec.Name) is not null)
            throw new LabException($"lab '{spec.Name}' is up already: `mesh lab info --name {spec.Name}`, "
                + $"or `mesh lab down --name {spec.Name}` first");
        try
        {
            await MakeAsync(plan, progress, readyDeadline, cancel);
            return plan;
        }
        catch (Exception e)
        {
            var reason = e is OperationCanceledException ? "interrupted" : $"{e.Message}{Evidence(plan)}";
            progress("taking the half-made lab down");
            await LabDown.RunAsync(plan, CancellationToken.None);
            if (e is OperationCanceledException)
                throw;
            throw new LabException(reason);
        }
    }

    private static async Task MakeAsync(LabPlan plan, Action<string> progress, TimeSpan deadline, CancellationToken cancel)
    {
        var clock = Stopwatch.StartNew();
        void Tell(string what) => progress($"{clock.Elapsed.TotalSeconds,5:0.0}s  {what}");

        MakeDirectories(plan);
        await Wiring.CreateAsync(plan, cancel);
        await Wiring.ConfigurePodsAsync(plan, cancel);
        Tell($"{1 + plan.Clusters.Count + plan.Nodes.Count() + plan.Pods.Count()} network namespaces wired");
        ClusterFiles.Write(plan);
        Manifests.Write(plan);
        cancel.ThrowIfCancellationRequested();
        using (Spawn.Start(plan, plan.Processes[0], plan.Processes[0].Program))
        {
            // Collected by init once this command has ended: the keeper outlives it.
        }
        await LabReady.WaitForAgentsAsync(plan, deadline, cancel);
        await RegisterPodsAsync(plan, cancel);
        Tell($"{plan.Processes.Count} processes started, {plan.Pods.Count()} pods registered with their agents");
        if (plan.Connected)
        {
            await LabReady.WaitForControlPlanesAsync(plan, deadline, cancel);
            await LabJoin.ConnectAllAsync(plan, cancel);
            Tell($"{plan.Clusters.Count} clusters connected, each two by a token");
        }
        await LabReady.WaitForMeshAsync(plan, deadline, cancel);
        Tell(plan.Connected ? "every node is connected to every cluster" : "every cluster is ready, and knows no other");
    }

    private static void MakeDirectories(LabPlan plan)
    {
        const UnixFileMode owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(plan.Root, owner);
        // First of all: from here on `lab down` knows what may exist.
        File.WriteAllText(plan.StateFile, plan.ToJson());
        foreach (var directory in new[] { $"{plan.Root}/run", $"{plan.Root}/log", plan.Bpffs })
            Directory.CreateDirectory(directory, owner);
        Libc.Mount("bpf", plan.Bpffs, "bpf", Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC);
        foreach (var node in plan.Nodes)
        {
            Directory.CreateDirectory(node.BpfRoot);
            Directory.CreateDirectory(node.StateDirectory, owner);
        }
        foreach (var cgroup in plan.Nodes.Select(n => n.Cgroup).Concat(plan.Processes.Select(p => p.Cgroup)))
            Directory.CreateDirectory(cgroup);
    }

    private static Task RegisterPodsAsync(LabPlan plan, CancellationToken cancel) =>
        Parallel.ForEachAsync(plan.Nodes, cancel, async (node, token) =>
        {
            using var agent = new AgentClient(node.Socket, node.Name);
            foreach (var pod in node.Pods)
                await agent.PutEndpointAsync(new EndpointChangeRequest
                {
                    K8sNamespace = "default",
                    K8sPodName = pod.Name,
                    InterfaceName = pod.HostInterface,
                    Mac = pod.Mac,
                    HostMac = pod.HostMac,
                    Addressing = new AddressPair { Ipv4 = pod.IPv4, Ipv6 = pod.IPv6 },
                }, token);
        });

    /// <summary>The last log line of every process that does not run, because that is where the cause is.</summary>
    private static string Evidence(LabPlan plan)
    {
        var lines = plan.Processes
            .Where(p => p.Keeper == LabPlanner.KeeperName && ProcessReference.FromPidFile(plan.PidFile(p.Name)) is null)
            .Select(p => (p.Name, Last: LogFile.LastLine(plan.LogFile(p.Name))))
            .Where(p => p.Last is not null)
            .Select(p => $"\n  {p.Name}: {p.Last}")
            .Take(6);
        return string.Concat(lines);
    }
}
