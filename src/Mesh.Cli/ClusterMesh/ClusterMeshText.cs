using System.Globalization;
using System.Text;

namespace Mesh.Cli.ClusterMesh;

/// <summary>The report as people know it from `cilium clustermesh status`.</summary>
public static class ClusterMeshText
{
    public static string Format(ClusterMeshReport report)
    {
        var text = new StringBuilder();
        if (report.AccessInformation is { } access)
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
        text.Append("ℹ️  KVStoreMesh is disabled\n\n");
        Nodes(text, report.Connectivity);
        Clusters(text, report.Connectivity);
        Errors(text, report);
        return text.ToString();
    }

    private static void Nodes(StringBuilder text, Connectivity connectivity)
    {
        if (connectivity.Clusters.Count == 0)
            return;
        var spread = string.Create(CultureInfo.InvariantCulture,
            $"[min:{connectivity.Connected.Min} / avg:{connectivity.Connected.Avg:0.0} / max:{connectivity.Connected.Max}]");
        text.Append(connectivity.NotReady > 0
            ? $"⚠️  {connectivity.NotReady}/{connectivity.Total} nodes are not connected to all clusters {spread}\n"
            : $"✅ All {connectivity.Total} nodes are connected to all clusters {spread}\n");
    }

    private static void Clusters(StringBuilder text, Connectivity connectivity)
    {
        if (connectivity.Clusters.Count == 0)
        {
            text.Append("\n🔌 No cluster connected\n\n");
            return;
        }
        text.Append("\n🔌 Cluster Connections:\n");
        foreach (var (name, count) in connectivity.Clusters)
            text.Append(CultureInfo.InvariantCulture,
                $"  - {name}: {count.Configured}/{connectivity.Total} configured, {count.Connected}/{connectivity.Total} connected\n");
        text.Append('\n');
    }

    private static void Errors(StringBuilder text, ClusterMeshReport report)
    {
        var all = (report.Connectivity.Errors ?? [])
            .SelectMany(n => n.Value.Select(c => (Node: n.Key, Cluster: c.Key, Count: c.Value))).ToList();
        var errors = all.SelectMany(a => a.Count.Errors.Select(e => $"  ❌ {a.Node} is not connected to cluster {a.Cluster}: {e}\n"
            + (a.Count.Hint is { } hint ? $"     💡 {hint}\n" : ""))).ToList();
        errors.AddRange((report.Unknown ?? []).Select(u => $"  ❌ unable to determine status of {u.Key}: {u.Value}\n"));
        if (errors.Count > 0)
            text.Append(CultureInfo.InvariantCulture, $"❌ {errors.Count} Errors:\n").AppendJoin("", errors);
        var warnings = all.SelectMany(a => a.Count.Warnings
            .Select(w => $"  ⚠️  {a.Node}{(a.Cluster.Length == 0 ? "" : $", cluster {a.Cluster}")}: {w}\n")).ToList();
        if (warnings.Count > 0)
            text.Append(CultureInfo.InvariantCulture, $"⚠️  {warnings.Count} Warnings:\n").AppendJoin("", warnings);
    }
}
