using Mesh.AgentApi;
using Mesh.Cli.Text;

namespace Mesh.Cli.ClusterMesh;

/// <summary>One node's answer: its status, or why there is none.</summary>
public sealed record NodeAnswer(string Node, StatusResponse? Status, string? Failure);

/// <summary>
/// Turns the nodes' answers into the report. Pure. A cluster counts as expected when it is configured for this cluster, whether or not
/// a node has heard of it; and whatever an answer says beside "ready" (refused records, files that cannot be used, rows that the kernel
/// refused) is told as a warning, because "connected" alone has misled people. A warning lasts as long as its reason: what was mended
/// is history, which the evidence and the metrics keep.
/// </summary>
public static class ClusterMeshEvaluation
{
    /// <param name="expected">Names of the configured peers.</param>
    /// <param name="command">How the reader calls this program on one node, for the hints; null for none of that kind.</param>
    /// <param name="relayed">Nodes read their peers through a relay.</param>
    public static Connectivity Evaluate(
        IReadOnlyList<NodeAnswer> answers, IReadOnlyCollection<string> expected, string? command, DateTimeOffset now,
        bool relayed = false)
    {
        var counts = new SortedDictionary<string, ClusterCount>(StringComparer.Ordinal);
        var errors = new SortedDictionary<string, SortedDictionary<string, ErrorCount>>(StringComparer.Ordinal);
        var readyPerNode = new List<int>();
        var notReady = 0;
        foreach (var answer in answers)
        {
            if (answer.Status is null)
            {
                readyPerNode.Add(0);
                notReady++;
                continue;
            }
            var rows = (answer.Status.ClusterMesh?.Clusters ?? []).ToDictionary(c => c.Name, StringComparer.Ordinal);
            var found = new SortedDictionary<string, ErrorCount>(StringComparer.Ordinal);
            var names = rows.Keys.Union(expected).Order(StringComparer.Ordinal).ToList();
            var ready = 0;
            foreach (var name in names)
            {
                var row = rows.GetValueOrDefault(name);
                var before = counts.GetValueOrDefault(name) ?? new ClusterCount();
                counts[name] = new ClusterCount
                {
                    Configured = before.Configured + (row is null ? 0 : 1),
                    Connected = before.Connected + (row is { Ready: true } ? 1 : 0),
                };
                ready += row is { Ready: true } ? 1 : 0;
                var evidence = (answer.Status.Mesh?.Peers ?? []).FirstOrDefault(p => p.Name == name);
                var error = Cause(row, evidence);
                var warnings = Warnings(row, answer.Status.Mesh, name, now);
                if (error is not null || warnings.Count > 0)
                    found[name] = new ErrorCount
                    {
                        Errors = error is null ? [] : [error],
                        Warnings = warnings,
                        Hint = error is null ? null : relayed ? Hint(row, answer.Node, command, relayed) ?? Mend(evidence)
                            : Mend(evidence) ?? Hint(row, answer.Node, command, relayed),
                    };
            }
            if (NodeWarnings(answer.Status) is { Count: > 0 } general)
                found[""] = new ErrorCount { Warnings = general };
            readyPerNode.Add(ready);
            if (ready < names.Count)
                notReady++;
            if (found.Count > 0)
                errors[answer.Node] = found;
        }
        return new Connectivity
        {
            Total = answers.Count,
            NotReady = notReady,
            Clusters = counts,
            Connected = readyPerNode.Count == 0 ? new Spread()
                : new Spread { Min = readyPerNode.Min(), Avg = readyPerNode.Average(), Max = readyPerNode.Max() },
            Errors = errors.Count > 0 ? errors : null,
        };
    }

    /// <summary>Null when the cluster is connected; the order decides which of several causes is told. An agent of ours says itself
    /// what kind of fault it is.</summary>
    internal static string? Cause(RemoteCluster? row, PeerStatus? evidence = null)
    {
        if (row is null)
            return "unknown status";
        if (evidence is { Healthy: false })
            return $"{evidence.Fault}: {evidence.Cause}";
        if (row.Ready)
            return null;
        if (!row.Connected)
            return string.IsNullOrEmpty(row.Status) ? "unknown status" : row.Status;
        if (row.Config is null)
            return "remote cluster configuration retrieval status unknown";
        if (row.Config is { Required: true, Retrieved: false })
            return "remote cluster configuration required but not found";
        if (row.Synced is null)
            return "synchronization status unknown";
        var missing = new List<string>();
        if (!row.Synced.Endpoints)
            missing.Add("endpoints");
        if (!row.Synced.Identities)
            missing.Add("identities");
        if (!row.Synced.Nodes)
            missing.Add("nodes");
        if (!row.Synced.Services)
            missing.Add("services");
        if (row.Synced.ServiceExports is false)
            missing.Add("service-exports");
        return missing.Count > 0 ? $"synchronization in progress for {string.Join(", ", missing)}" : "not ready";
    }

    private static string? Mend(PeerStatus? evidence) => evidence is { Healthy: false, Mend: { Length: > 0 } mend }
        ? $"{char.ToUpperInvariant(mend[0])}{mend[1..]}. More: 'mesh clustermesh troubleshoot {evidence.Name}'" : null;

    private static string? Hint(RemoteCluster? row, string node, string? command, bool relayed) => row switch
    {
        { Connected: true, Config: { Required: true, Retrieved: false } } when relayed =>
            "This is likely caused by KVStoreMesh not being connected to the given cluster",
        _ when command is null => null,
        null => $"The node's agent has not read this cluster's file yet: run '{command}/{node} --all-clusters'",
        { Connected: true, Config: { Required: true, Retrieved: false } } =>
            "Double check if the cluster name matches the one configured in the remote cluster",
        { Connected: false } => $"Run '{command}/{node} --all-clusters' to investigate the cause",
        _ => null,
    };

    private static List<string> Warnings(RemoteCluster? row, MeshStatus? mesh, string cluster, DateTimeOffset now)
    {
        var warnings = new List<string>();
        if (row is { Ready: false } && row.NumNodes + row.NumEndpoints + row.NumSharedServices > 0)
            warnings.Add($"still using what was last known of it: {row.NumNodes} nodes, {row.NumEndpoints} endpoints, "
                + $"{row.NumSharedServices} services"
                + (row.ConnectedUntil.Year > 1 ? $", cut off for {GoText.Duration(now - row.ConnectedUntil)}" : ""));
        if (row is { Ready: false, NumFailures: > 0 })
            warnings.Add($"{row.NumFailures} reconnections, last failure {GoText.Ago(row.LastFailure, now)}");
        if ((mesh?.Peers ?? []).FirstOrDefault(peer => peer.Name == cluster) is { Quarantined: > 0 } evidence)
        {
            var last = (mesh?.Rejections ?? []).FirstOrDefault(peer => peer.Name == cluster)?.Last;
            warnings.Add($"{evidence.Quarantined} of its records are refused{(last is null ? "" : $", last: {last}")} (mesh clustermesh quarantine)");
        }
        warnings.AddRange(row?.Problems ?? []);
        return warnings;
    }

    private static List<string> NodeWarnings(StatusResponse status)
    {
        var warnings = new List<string>();
        if (status.Cilium is { State: StatusState.Warning or StatusState.Failure } agent)
            warnings.Add($"agent: {agent.Msg}");
        foreach (var table in (status.Mesh?.Tables ?? []).Where(t => t.Failing > 0))
            warnings.Add($"{table.Failing} of {table.Rows} rows of {table.Name} are not in the kernel"
                + (table.Failures is [var first, ..] ? $", first {first.Key}: {first.Error}" : ""));
        foreach (var problem in (status.Mesh?.ConfigProblems ?? []).Concat(status.Mesh?.SourceProblems ?? []))
            warnings.Add($"{problem.Where}: {problem.Message}");
        return warnings;
    }
}
