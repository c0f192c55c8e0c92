using System.Globalization;
using System.Text;
using Mesh.Cli.Text;

namespace Mesh.Cli.ClusterMesh;

/// <summary>The report as people know it from `cilium clustermesh status`.</summary>
public static class ClusterMeshText
{
    /// <param name="verbose">Also the evidence, which Cilium's layout has no place for.</param>
    public static string Format(ClusterMeshReport report, bool verbose = false)
    {
        var text = new StringBuilder();
        if (report.Head is { } head)
        {
            text.AppendJoin("", head.Select(line => $"{line}\n"));
        }
        else if (report.AccessInformation is { } access)
        {
            text.Append("✅ Cluster access information is available:\n");
            foreach (var ip in access.ServiceIPs)
                text.Append(CultureInfo.InvariantCulture, $"  - {ip}:{access.ServicePort}\n");
            text.Append(report.ApiServerNotReady is { } reason
                ? $"❌ clustermesh-apiserver is not ready: {reason}\n"
                : "✅ clustermesh-apiserver is ready\n");
        }
        else
        {
            text.Append("ℹ️  An agent on its own: there is no API server to ask\n");
        }
        text.Append($"ℹ️  KVStoreMesh is {(report.KvstoreMesh.Enabled ? "enabled" : "disabled")}\n\n");
        Readers(text, report.Connectivity, "nodes");
        if (report.KvstoreMesh.Status is { } relay)
            Readers(text, relay, "KVStoreMesh replicas");
        Clusters(text, report);
        Errors(text, report);
        if (verbose)
            Evidence(text, report);
        return text.ToString();
    }

    private static void Evidence(StringBuilder text, ClusterMeshReport report)
    {
        foreach (var (node, peers) in report.Evidence ?? [])
        {
            text.Append(CultureInfo.InvariantCulture, $"\n🔎 {node}:\n");
            foreach (var peer in peers)
                text.AppendJoin("", PeerText.Lines(peer).Select(line => $"  {line}\n"));
        }
    }

    private static void Readers(StringBuilder text, Connectivity connectivity, string what)
    {
        if (connectivity.Clusters.Count == 0)
            return;
        var spread = string.Create(CultureInfo.InvariantCulture,
            $"[min:{connectivity.Connected.Min} / avg:{connectivity.Connected.Avg:0.0} / max:{connectivity.Connected.Max}]");
        text.Append(connectivity.NotReady > 0
            ? $"⚠️  {connectivity.NotReady}/{connectivity.Total} {what} are not connected to all clusters {spread}\n"
            : $"✅ All {connectivity.Total} {what} are connected to all clusters {spread}\n");
    }

    private static void Clusters(StringBuilder text, ClusterMeshReport report)
    {
        var connectivity = report.Connectivity;
        if (connectivity.Clusters.Count == 0)
        {
            text.Append("\n🔌 No cluster connected\n\n");
            return;
        }
        text.Append("\n🔌 Cluster Connections:\n");
        foreach (var (name, count) in connectivity.Clusters)
            text.Append(CultureInfo.InvariantCulture,
                $"  - {name}: {count.Configured}/{connectivity.Total} configured, {count.Connected}/{connectivity.Total} connected{Relayed(name)}\n");
        text.Append('\n');

        string Relayed(string cluster) => report.KvstoreMesh switch
        {
            { Enabled: false } => "",
            { Status: { } relay } when relay.Clusters.TryGetValue(cluster, out var count) =>
                $" - KVStoreMesh: {count.Configured}/{relay.Total} configured, {count.Connected}/{relay.Total} connected",
            _ => " - KVStoreMesh: status not available",
        };
    }

    private static void Errors(StringBuilder text, ClusterMeshReport report)
    {
        var all = (report.Connectivity.Errors ?? []).Concat(report.KvstoreMesh.Status?.Errors ?? [])
            .SelectMany(n => n.Value.Select(c => (Node: n.Key, Cluster: c.Key, Count: c.Value))).ToList();
        var errors = all.SelectMany(a => a.Count.Errors.Select(e => $"  ❌ {a.Node} is not connected to cluster {a.Cluster}: {e}\n"
            + (a.Count.Hint is { } hint ? $"     💡 {hint}\n" : ""))).ToList();
        errors.AddRange((report.Unknown ?? []).Select(u => $"  ❌ unable to determine status of {u.Key}: {u.Value}\n"));
        if (errors.Count > 0)
            text.Append(CultureInfo.InvariantCulture, $"❌ {errors.Count} Errors:\n").AppendJoin("", errors);
        var warnings = all.SelectMany(a => a.Count.Warnings
            .Select(w => $"  ⚠️  {a.Node}{(a.Cluster.Length == 0 ? "" : $", cluster {a.Cluster}")}: {w}\n")).ToList();
        warnings.AddRange((report.ApiServerProblems ?? []).Select(line => $"  ⚠️  clustermesh-apiserver: {line}\n"));
        if (warnings.Count > 0)
            text.Append(CultureInfo.InvariantCulture, $"⚠️  {warnings.Count} Warnings:\n").AppendJoin("", warnings);
    }
}
