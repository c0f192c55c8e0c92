using System.Diagnostics;
using Mesh.Lab.Making;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Breaks a lab on purpose, one thing at a time, and mends it again.</summary>
public static class LabFaults
{
    /// <summary>The control plane of one cluster and everybody else no longer see each other; nodes and pods all do.</summary>
    public static Task CutControlPlaneAsync(LabPlan plan, ClusterPlan cluster, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, Wiring.ControlPlanePort(cluster), !cut, cancel);

    /// <summary>The cluster's etcd is killed and everything that it ever stored is gone: its successor begins with nothing.</summary>
    /// <exception cref="LabException">No etcd runs there at this moment.</exception>
    public static void WipeEtcd(LabPlan plan, ClusterPlan cluster)
    {
        var etcd = LabEtcd.Process(plan, cluster) ?? throw new LabException($"no etcd runs in {cluster.Name} at this moment: try again");
        // Away while it still runs, so that however fast its successor starts, it finds nothing.
        var gone = $"{cluster.Directory}/etcd-wiped";
        Directory.Move($"{cluster.Directory}/etcd/member", gone);
        etcd.Kill();
        Directory.Delete(gone, recursive: true);
    }

    /// <summary>The tunnels between two clusters carry nothing any more; everything else, their control planes too, does. Cut on the
    /// bridge between them: on the nodes themselves the programs send and take the packets before a filter could see them.</summary>
    /// <exception cref="LabException">nft refused.</exception>
    public static async Task CutTunnelAsync(LabPlan plan, ClusterPlan one, ClusterPlan other, bool cut, CancellationToken cancel)
    {
        var table = $"bridge mesh_cut_{one.Id}_{other.Id}";
        var (left, right) = (Addresses(one), Addresses(other));
        var rules = cut
            ? $"add table {table}; add chain {table} forward {{ type filter hook forward priority 0; }}; "
                + $"add rule {table} forward ip saddr {left} ip daddr {right} udp dport 8472 drop; "
                + $"add rule {table} forward ip saddr {right} ip daddr {left} udp dport 8472 drop"
            : $"delete table {table}";
        using var nft = Process.Start(new ProcessStartInfo("nsenter", [$"--net={NetworkNamespace.PathOf(plan.WanNamespace)}", "nft", rules])
        {
            RedirectStandardError = true,
        })!;
        var error = await nft.StandardError.ReadToEndAsync(cancel);
        await nft.WaitForExitAsync(cancel);
        if (nft.ExitCode != 0)
            throw new LabException($"nft {rules}: {error.Trim()}");

        static string Addresses(ClusterPlan cluster) => $"{{ {string.Join(", ", cluster.Nodes.Select(node => node.Ip))} }}";
    }

    /// <summary>One node and everybody else no longer see each other: its pods cannot be reached from other nodes.</summary>
    public static Task CutNodeAsync(LabPlan plan, NodePlan node, bool cut, CancellationToken cancel) =>
        Wiring.SetLinkAsync(plan, node.Name, !cut, cancel);
}
