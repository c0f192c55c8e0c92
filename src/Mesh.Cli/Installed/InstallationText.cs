using Mesh.Cli.Text;

namespace Mesh.Cli.Installed;

/// <summary>The report as people know it from `cilium status`.</summary>
internal static class InstallationText
{
    public static string Format(InstallationReport report)
    {
        var table = new TabWriter(4);
        table.Row("    /¯¯\\");
        table.Row(" /¯¯\\__/¯¯\\", "Cilium:", Judged(report, InstalledMesh.Agent));
        table.Row(" \\__/¯¯\\__/", "Operator:", Judged(report, InstalledMesh.Operator));
        table.Row(" /¯¯\\__/¯¯\\", "Envoy DaemonSet:", Judged(report, InstalledMesh.Envoy));
        table.Row(" \\__/¯¯\\__/", "Hubble Relay:", Judged(report, InstalledMesh.Relay));
        table.Row("    \\__/", "ClusterMesh:", Judged(report, InstalledMesh.ApiServer));
        table.Row("");
        var rows = new TabWriter(4);
        foreach (var (name, state) in report.Workloads)
            rows.Row(state.Type, name, State(state));
        var heading = "Containers:";
        foreach (var (name, phases) in report.Phases)
        {
            rows.Row(heading, name, string.Join(", ", phases.Select(phase => $"{phase.Key}: {phase.Value}")));
            heading = "";
        }
        rows.Row("Cluster Pods:", $"{report.Pods.ByCilium}/{report.Pods.All} managed by Cilium");
        rows.Row("Helm chart version:", report.ChartVersion);
        heading = "Image versions";
        foreach (var (name, images) in report.Images)
            foreach (var (image, count) in images)
            {
                rows.Row(heading, name, $"{image}: {count}");
                heading = "";
            }
        Complain(rows, report, "Errors:", each => each.Errors);
        Complain(rows, report, "Warnings:", each => each.Warnings);
        heading = "Configuration:";
        foreach (var message in report.Configuration)
        {
            rows.Row(heading, "", "", message);
            heading = "";
        }
        return $"{table}{rows}";
    }

    private static string Judged(InstallationReport report, string workload)
    {
        var all = report.Errors.GetValueOrDefault(workload)?.Values.ToList() ?? [];
        if (all.Any(each => each.Disabled))
            return workload == InstalledMesh.Envoy ? "disabled (using embedded mode)" : "disabled";
        var (errors, warnings) = (all.Sum(each => each.Errors.Count), all.Sum(each => each.Warnings.Count));
        string[] words = [.. errors > 0 ? [$"{errors} errors"] : Array.Empty<string>(), .. warnings > 0 ? [$"{warnings} warnings"] : Array.Empty<string>()];
        return words.Length > 0 ? string.Join(", ", words) : "OK";
    }

    private static string State(WorkloadState state)
    {
        var items = new List<string> { $"Desired: {state.Desired}" };
        if (state.Ready > 0)
            items.Add($"Ready: {state.Ready}/{state.Desired}");
        if (state.Available > 0)
            items.Add($"Available: {state.Available}/{state.Desired}");
        if (state.Unavailable > 0)
            items.Add($"Unavailable: {state.Unavailable}/{state.Desired}");
        return string.Join(", ", items);
    }

    private static void Complain(TabWriter rows, InstallationReport report, string heading, Func<Complaints, List<string>> which)
    {
        foreach (var (workload, pods) in report.Errors)
            foreach (var (pod, complaints) in pods)
                foreach (var message in which(complaints))
                {
                    rows.Row(heading, workload, pod, message);
                    heading = "";
                }
    }
}
