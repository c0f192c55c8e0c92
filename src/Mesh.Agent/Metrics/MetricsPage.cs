using System.Globalization;
using System.Text;
using Mesh.Agent.Api;
using Mesh.AgentApi;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Remote;
using Mesh.Datapath;
using Mesh.Datapath.Maps;
using Mesh.Policy.Engine;
using Mesh.StateDB;

namespace Mesh.Agent.Metrics;

/// <summary>GET /metrics in Prometheus' text format. What Cilium measures has Cilium's name; the rest begins with mesh_.</summary>
internal static class MetricsPage
{
    public static string Of(AgentView view)
    {
        var page = new StringBuilder();
        Peers(page, view);
        Certificates(page, view);
        Tables(page, view);
        Policies(page, view);
        if (view.Datapath is { } datapath)
            Kernel(page, datapath);
        if (LivenessBody.Of(view) is { } liveness)
            Liveness(page, liveness);
        return page.ToString();
    }

    /// <summary>The same as values.</summary>
    public static IReadOnlyList<Metric> Samples(AgentView view) => [.. Of(view).Split('\n').Where(line => line.Length > 0 && line[0] != '#').Select(Sample)];

    /// <param name="line">Of the page: name, labels in braces or none, value.</param>
    internal static Metric Sample(string line)
    {
        // A label's value may hold anything but its end: the last brace is the labels' own, and what follows it is a number.
        var (open, close) = (line.IndexOf('{', StringComparison.Ordinal), line.LastIndexOf('}'));
        var labels = new Dictionary<string, string>(StringComparer.Ordinal);
        for (var at = open + 1; open >= 0 && at < close;)
        {
            var equals = line.IndexOf('=', at);
            var value = new StringBuilder();
            var next = equals + 2;
            for (; line[next] != '"'; next++)
                value.Append(line[next] != '\\' ? line[next] : line[++next] == 'n' ? '\n' : line[next]);
            labels[line[at..equals]] = value.ToString();
            at = next + 2;
        }
        return new Metric
        {
            Name = line[..(open < 0 ? line.IndexOf(' ', StringComparison.Ordinal) : open)],
            Labels = labels.Count > 0 ? labels : null,
            Value = double.Parse(line.AsSpan(line.LastIndexOf(' ') + 1), CultureInfo.InvariantCulture),
        };
    }

    private static void Peers(StringBuilder page, AgentView view)
    {
        var peers = view.Peers?.Statuses ?? [];
        var source = $"source_cluster=\"{view.Options.Cluster.Name}\",source_node_name=\"{view.Options.NodeName}\"";
        Family(page, "cilium_clustermesh_remote_clusters", "gauge", "Configured remote clusters.", [(source, peers.Count)]);
        Family(page, "cilium_clustermesh_global_services", "gauge", "Services that a remote cluster offers.",
            [(source, view.LoadBalancing.GlobalServices)]);
        void PerPeer(string name, string help, Func<RemoteClusterStatus, double> value) =>
            Family(page, $"cilium_clustermesh_remote_cluster_{name}", "gauge", help,
                peers.Select(peer => ($"{source},target_cluster=\"{peer.Name}\"", value(peer))));
        PerPeer("readiness_status", "1 when connected and everything is listed.", peer => peer.Ready ? 1 : 0);
        PerPeer("failures", "Reconnections after a failure.", peer => peer.Failures);
        PerPeer("last_failure_ts", "Time of the last failure, seconds since 1970; 0 for never.",
            peer => peer.LastFailure is { } time ? time.ToUnixTimeMilliseconds() / 1000.0 : 0);
        PerPeer("nodes", "Nodes of the remote cluster.", peer => peer.Nodes);
        PerPeer("endpoints", "Address entries of the remote cluster.", peer => peer.IpEntries);
        PerPeer("services", "Services the remote cluster shares.", peer => peer.Services);
        PerPeer("identities", "Identities of the remote cluster.", peer => peer.Identities);
        Family(page, "mesh_clustermesh_rejected_records_total", "counter", "Records of the remote cluster that could not be accepted.",
            peers.Select(peer => ($"{source},target_cluster=\"{peer.Name}\"", (double)peer.Rejected)));
        void Imports(string name, string type, string help, Func<RemoteClusterStatus, double> value) =>
            Family(page, $"mesh_clustermesh_{name}", type, help, peers.Select(peer => ($"{source},target_cluster=\"{peer.Name}\"", value(peer))));
        Imports("quarantined_records", "gauge", "Refused records that still stand in the peer's store.", peer => peer.Quarantined);
        Imports("held_records", "gauge", "Records whose withdrawal waits for a proof.", peer => peer.Held);
        Imports("holds_total", "counter", "Withdrawals that had to be proved.", peer => peer.Holds);
        Imports("import_file_problem", "gauge", "1 while the peer's import file is not in force.", peer => peer.ImportsProblem is null ? 0 : 1);
        Family(page, "mesh_clustermesh_throttled_seconds_total", "counter", "Time that changes waited because the peer exceeded its rate.",
            (view.Peers?.Clusters ?? []).Select(peer => ($"{source},target_cluster=\"{peer.Name}\"", peer.Throttled.TotalSeconds)));
        Family(page, "mesh_clustermesh_refused_records_total", "counter", "Records refused, by reason.",
            (view.Peers?.Clusters ?? []).SelectMany(peer => peer.Refused.Select(pair =>
                ($"{source},target_cluster=\"{peer.Name}\",reason=\"{pair.Key.Word()}\"", (double)pair.Value))));
    }

    private static void Certificates(StringBuilder page, AgentView view)
    {
        var peers = (view.Peers?.Statuses ?? []).Where(peer => peer.Tls is not null).ToList();
        var ends = from peer in peers
                   from one in new[]
                   {
                       ("client", peer.Tls!.ClientNotAfter), ("server", peer.Tls.ServerNotAfter), ("authority", peer.Tls.AuthorityNotAfter),
                   }
                   where one.Item2 is not null
                   select ($"target_cluster=\"{peer.Name}\",certificate=\"{one.Item1}\"", (double)one.Item2!.Value.ToUnixTimeSeconds());
        Family(page, "mesh_clustermesh_certificate_not_after", "gauge",
            "End of a certificate towards a remote cluster, seconds since 1970: ours, its server's, its server's authority.", ends);
        Family(page, "mesh_clustermesh_certificate_problem", "gauge", "1 while a certificate file cannot be used and the last good one is.",
            peers.Select(peer => ($"target_cluster=\"{peer.Name}\"", peer.Tls!.Problem is null ? 0.0 : 1.0)));
    }

    private static void Tables(StringBuilder page, AgentView view)
    {
        var tables = new[]
        {
            Count(view.State.Frontends), Count(view.State.IPCache), Count(view.State.Nodes), Count(view.State.Endpoints),
            Count(view.State.RemoteClusters), Count(view.State.Policies),
        };
        Family(page, "mesh_table_rows", "gauge", "Rows of desired state.", tables.Select(table => ($"table=\"{table.Name}\"", (double)table.Rows)));
        Family(page, "mesh_table_failing_rows", "gauge", "Rows the kernel has not taken.",
            tables.Select(table => ($"table=\"{table.Name}\"", (double)table.Failing)));
        Family(page, "mesh_source_problems", "gauge", "Objects and files that could not be taken over.", [("", view.Objects.Problems.Count)]);
    }

    private static void Policies(StringBuilder page, AgentView view)
    {
        var (objects, unsupported, endpoints, rules, rows) = view.Policies.Read(engine => (engine.Policies.Count(),
            engine.Policies.Sum(policy => policy.Unsupported.Count) + engine.Problems.Count, engine.Enforcement(),
            engine.Policies.Sum(policy => policy.Specs.Sum(spec => spec.Rules.Count)), view.State.Policies.Count));
        static string Enforced(EndpointEnforcement endpoint) => endpoint switch
        {
            { Decided: false } => "undecided",
            { Ingress: not null, Egress: not null } => "both",
            { Ingress: not null } => "ingress",
            { Egress: not null } => "egress",
            _ => "none",
        };
        Family(page, "cilium_policy", "gauge", "Policy objects in force.", [("", objects)]);
        Family(page, "cilium_policy_endpoint_enforcement_status", "gauge", "Endpoints by the directions that policy governs.",
            endpoints.GroupBy(Enforced).OrderBy(group => group.Key, StringComparer.Ordinal)
                .Select(group => ($"enforcement=\"{group.Key}\"", (double)group.Count())));
        Family(page, "mesh_policy_rules", "gauge", "Rules of all policy objects.", [("", rules)]);
        Family(page, "mesh_policy_rows", "gauge", "Verdicts and words that the kernel is to hold.", [("", rows)]);
        Family(page, "mesh_policy_problems", "gauge", "Parts of policies that are not done, or could not be.", [("", unsupported)]);
    }

    private static void Kernel(StringBuilder page, Datapath.Datapath datapath)
    {
        Packets(page, datapath.Counters());
        var maps = datapath.MapUsage();
        static string Map(MapUsage map) => $"map_name=\"{map.Name}\"";
        Family(page, "mesh_bpf_map_entries", "gauge", "Entries in use, where the agent hands them out.",
            maps.Where(map => map.Used >= 0).Select(map => (Map(map), (double)map.Used)));
        Family(page, "mesh_bpf_map_capacity", "gauge", "Entries a map can hold.", maps.Select(map => (Map(map), (double)map.Capacity)));
        Family(page, "mesh_bpf_map_memory_bytes", "gauge", "Kernel memory of a map.", maps.Select(map => (Map(map), (double)map.MemoryBytes)));
        var reconcilers = datapath.Status().Reconcilers;
        Family(page, "mesh_reconciler_failures_total", "counter", "Operations the kernel refused.",
            reconcilers.Select(one => ($"table=\"{one.Table}\"", (double)one.Failures)));
        Family(page, "mesh_reconciler_pruned_total", "counter", "Leftovers removed from the kernel.",
            reconcilers.Select(one => ($"table=\"{one.Table}\"", (double)one.Pruned)));
    }

    private static void Liveness(StringBuilder page, LivenessStatus liveness)
    {
        var clusters = liveness.Clusters ?? [];
        void PerCluster(string name, string type, string help, Func<ClusterLiveness, double> value) =>
            Family(page, $"mesh_liveness_cluster_{name}", type, help,
                clusters.Select(one => ($"target_cluster=\"{one.Name}\"", value(one))));
        PerCluster("in", "gauge", "1 while traffic does not prove the cluster lost.", one => one.State == "out" ? 0 : 1);
        PerCluster("share", "gauge", "Share of its new flows that it takes, 0 to 1.", one => one.State is "out" or "drill" ? 0 : one.Share / 100.0);
        PerCluster("transitions_total", "counter", "Times the cluster went out or came in.", one => one.Transitions);
        var nodes = liveness.Nodes ?? [];
        Family(page, "mesh_liveness_node_in", "gauge", "1 while traffic does not prove the node lost.",
            nodes.Select(one => ($"node=\"{one.Name}\"", one.State == "out" ? 0.0 : 1.0)));
        Family(page, "mesh_liveness_node_round_trip_seconds", "gauge", "Time of an answer through the tunnel.",
            nodes.Where(one => one.Answered > 0).Select(one => ($"node=\"{one.Name}\"", one.RoundTrip / 1000)));
        Family(page, "mesh_liveness_late_turns_total", "counter", "Times the prober came too late to judge.", [("", liveness.LateTurns)]);
        Family(page, "mesh_liveness_self_suspicions_total", "counter", "Times everybody was silent and the node blamed itself.",
            [("", liveness.SelfSuspicions)]);
        Family(page, "mesh_liveness_real_time", "gauge", "1 when the prober has real-time priority.",
            [("", liveness.RealTimeProblem is null ? 1 : 0)]);
        var counts = liveness.Failover!;
        Family(page, "mesh_failover_panics_total", "counter", "Choices of a backend not known to live, because none was.", [("", counts.Panics)]);
        Family(page, "mesh_failover_connections_failed_total", "counter", "Connection attempts to a backend that failed.",
            [("reason=\"refused\"", counts.Refused), ("reason=\"unanswered\"", counts.Unanswered)]);
        Family(page, "mesh_failover_ejections_total", "counter", "Backends ejected after a failed connection.", [("", counts.Ejections)]);
        Family(page, "mesh_failover_readmissions_total", "counter", "Ejected backends that answered again.", [("", counts.Recovered)]);
        Family(page, "mesh_failover_ejected_backends", "gauge", "Backends ejected now.", [("", liveness.Ejected?.Count ?? 0)]);
        Family(page, "mesh_failover_repicked_flows_total", "counter", "Established flows given another backend.", [("", counts.Repicked)]);
        Family(page, "mesh_failover_closed_sockets_total", "counter", "Sockets closed because their backend was lost.", [("", counts.SocketsClosed)]);
    }

    internal static void Packets(StringBuilder page, IReadOnlyList<PacketCounter> counters)
    {
        Traffic(page, "drop", "dropped, by reason", [.. counters.Where(counter => counter.Reason is not (DropReason.Forwarded or DropReason.PolicyAudited))],
            counter => $"{Direction(counter)},reason=\"{DropNames.OfCilium(counter.Reason)}\"");
        Traffic(page, "forward", "forwarded", [.. counters.Where(counter => counter.Reason == DropReason.Forwarded)], Direction);
        Family(page, "mesh_policy_audited_count_total", "counter", "Packets that passed in audit mode and a policy would have dropped.",
            counters.Where(counter => counter.Reason == DropReason.PolicyAudited).Select(counter => (Direction(counter), (double)counter.Packets)));
    }

    private static string Direction(PacketCounter counter) => $"direction=\"{counter.Direction.ToString().ToUpperInvariant()}\"";

    private static void Traffic(StringBuilder page, string name, string what, IReadOnlyList<PacketCounter> counters,
        Func<PacketCounter, string> labels)
    {
        Family(page, $"cilium_{name}_count_total", "counter", $"Packets {what}.", counters.Select(counter => (labels(counter), (double)counter.Packets)));
        Family(page, $"cilium_{name}_bytes_total", "counter", $"Bytes {what}.", counters.Select(counter => (labels(counter), (double)counter.Bytes)));
    }

    private static (string Name, int Rows, int Failing) Count<TKey, TRow>(Table<TKey, TRow> table)
        where TKey : notnull
        where TRow : class
    {
        var rows = table.Snapshot();
        return (table.Name, rows.Count, rows.Count(row => row.Value.Status.State == RowState.Error));
    }

    private static void Family(StringBuilder page, string name, string type, string help, IEnumerable<(string Labels, double Value)> samples)
    {
        page.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");
        foreach (var (labels, value) in samples)
            page.Append(CultureInfo.InvariantCulture, $"{name}{(labels.Length == 0 ? "" : $"{{{labels}}}")} {value}\n");
    }
}
