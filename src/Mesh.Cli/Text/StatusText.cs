using System.Globalization;
using Mesh.AgentApi;

namespace Mesh.Cli.Text;

/// <summary>What one agent says of itself, in the layout of `cilium-dbg status`, and behind it what that layout has no room for.</summary>
internal static class StatusText
{
    /// <param name="allClusters">Also those that are ready.</param>
    public static string Format(StatusResponse status, bool allClusters, DateTimeOffset now)
    {
        var table = new TabWriter(3);
        if (status.Kvstore is { } kvstore)
            table.Row("KVStore:", kvstore.State, kvstore.Msg ?? "");
        if (status.Cilium is { } agent)
            table.Row("Cilium:", agent.State, agent.Msg ?? "");
        table.Row("NodeMonitor:", "Disabled");
        if (status.ClusterMesh is { } mesh)
            Clusters(table, mesh, allClusters, now);
        if (status.Masquerading is { } masquerading)
            table.Row("Masquerading:", Masquerading(masquerading));
        table.Row("Proxy Status:", "No managed proxy redirect");
        table.Row("Global Identity Range:",
            status.IdentityRange is { } range ? $"min {range.MinIdentity}, max {range.MaxIdentity}" : "Unknown");
        if (status.Hubble is { } hubble)
            table.Row("Hubble:", hubble.State);
        if (status.Encryption is { } encryption)
            table.Row("Encryption:", encryption.Mode);
        table.Row("Cluster health:", "", LivenessText.Summary(status.Mesh?.Liveness));
        return table + Own(status.Mesh, now, allClusters);
    }

    private static string Masquerading(MasqueradingStatus status) => !status.Enabled
        ? "Disabled"
        : $"IPTables [IPv4: {Word(status.EnabledProtocols.IPv4)}, IPv6: {Word(status.EnabledProtocols.IPv6)}]";

    private static string Word(bool enabled) => enabled ? "Enabled" : "Disabled";

    /// <summary>OK, or the first thing that is wrong.</summary>
    public static string Brief(StatusResponse status) =>
        status.Kvstore is { State: StatusState.Failure } kvstore ? $"error in kvstore: {kvstore.Msg}"
        : status.Cilium is { State: StatusState.Warning or StatusState.Failure } agent ? $"error in cilium: {agent.Msg}"
        : status.Mesh?.Faults is [var fault, ..] ? $"error in mesh: {fault.Class}: {fault.Cause}"
        : "OK";

    /// <summary>False makes `mesh status` fail.</summary>
    public static bool IsHealthy(StatusResponse status) => status.Cilium?.State is StatusState.Ok or StatusState.Disabled;

    /// <summary>What `mesh status` returns: 0 well, 1 the agent itself is not, 2 a fault is known besides.</summary>
    public static int ExitCode(StatusResponse status) => !IsHealthy(status) ? 1 : status.Mesh?.Faults is { Count: > 0 } ? 2 : 0;

    private static void Clusters(TabWriter table, ClusterMeshStatus mesh, bool all, DateTimeOffset now)
    {
        var clusters = mesh.Clusters ?? [];
        table.Row("ClusterMesh:",
            $"{clusters.Count(c => c.Ready)}/{clusters.Count} remote clusters ready, {mesh.NumGlobalServices} global-services");
        foreach (var cluster in clusters)
        {
            if (cluster.Ready && !all)
                continue;
            var state = cluster.Ready ? "ready" : "not-ready";
            table.Line(string.Create(CultureInfo.InvariantCulture,
                $"   {cluster.Name}: {state}, {cluster.NumNodes} nodes, {cluster.NumEndpoints} endpoints, "
                + $"{cluster.NumIdentities} identities, {cluster.NumSharedServices} services, "
                + $"{cluster.NumServiceExports} MCS-API service exports, "
                + $"{cluster.NumFailures} reconnections (last: {GoText.Ago(cluster.LastFailure, now)})"));
            table.Line($"   └  {cluster.Status}");
            table.Line($"   └  remote configuration: {Configuration(cluster.Config)}");
            if (cluster.Synced is { } synced)
                table.Line($"   └  synchronization status: nodes={Go(synced.Nodes)}, endpoints={Go(synced.Endpoints)}, "
                    + $"identities={Go(synced.Identities)}, services={Go(synced.Services)}"
                    + (synced.ServiceExports is { } exports ? $", service-exports={Go(exports)}" : ""));
        }
        foreach (var cluster in clusters)
        {
            foreach (var problem in cluster.Problems ?? [])
                table.Line($"   ⚠️  {cluster.Name}: {problem}");
        }
    }

    private static string Configuration(RemoteClusterConfig? config)
    {
        if (config is null)
            return "expected=unknown, retrieved=unknown";
        var text = $"expected={Go(config.Required)}, retrieved={Go(config.Retrieved)}";
        if (!config.Retrieved)
            return text;
        var exports = config.ServiceExportsEnabled switch { null => "unsupported", true => "enabled", false => "disabled" };
        return $"{text}, cluster-id={config.ClusterId}, kvstoremesh={Go(config.Kvstoremesh)}, "
            + $"sync-canaries={Go(config.SyncCanaries)}, service-exports={exports}";
    }

    private static string Own(MeshStatus? mesh, DateTimeOffset now, bool allClusters)
    {
        if (mesh is null)
            return "";
        var table = new TabWriter(3);
        foreach (var t in mesh.Tables ?? [])
        {
            var state = t switch
            {
                { WaitingFor: { Count: > 0 } sources } =>
                    $"nothing is pruned before the first complete list of {string.Join(", ", sources)}",
                { Failing: > 0 } => $"{t.Failing} failing, {t.Pending} pending",
                { Pending: > 0 } => $"{t.Pending} pending",
                _ => "in the kernel",
            };
            table.Row($"Table {t.Name}:", $"{t.Rows} rows", state);
            foreach (var map in t.Full ?? [])
                table.Line($"   └  map-full {map.Map}: {map.Waiting} rows wait for room; {map.Error} (since {GoText.Ago(map.Since, now)})");
            foreach (var failure in t.Failures ?? [])
                table.Line($"   └  {failure.Key}: {failure.Error} ({failure.Attempts} attempts, since {GoText.Ago(failure.Since, now)})");
        }
        foreach (var peer in (mesh.Peers ?? []).Where(p => allClusters || !p.Healthy))
        {
            var lines = PeerText.Lines(peer).ToList();
            table.Line($"Peer {lines[0]}");
            foreach (var line in lines[1..])
                table.Line($"   {line}");
        }
        foreach (var line in LivenessText.Lines(mesh.Liveness, allClusters))
            table.Line(line);
        Problems(table, "Objects not taken over:", mesh.SourceProblems, now);
        Problems(table, "Peer files not taken over:", mesh.ConfigProblems, now);
        foreach (var peer in (mesh.Rejections ?? []).Where(p => p.Rejected > 0 && (allClusters || IsRefused(p.Name))))
            table.Line($"Records of {peer.Name} rejected: {peer.Rejected}, last: {peer.Last}");
        if (mesh.Switching is { } switching)
            table.Line($"Maps: {switching}");
        if (mesh.Uplinks is { Count: > 0 } uplinks)
            table.Line($"Uplinks: {string.Join(", ", uplinks.Select(u => $"{u.Device} ({u.Hooks})"
                + (u.Problem is null ? "" : $", no native XDP: {u.Problem}")))}");
        var drops = (mesh.Drops ?? new Dictionary<string, long>())
            .Where(d => d.Value > 0).OrderBy(d => d.Key, StringComparer.Ordinal).ToList();
        if (drops.Count > 0)
            table.Line($"Packets dropped: {string.Join(", ", drops.Select(d => $"{d.Key} {d.Value}"))}");
        return table.ToString();

        bool IsRefused(string cluster) => (mesh.Peers ?? []).All(peer => peer.Name != cluster || peer.Quarantined > 0);
    }

    private static void Problems(TabWriter table, string title, IReadOnlyList<Problem>? problems, DateTimeOffset now)
    {
        if (problems is not { Count: > 0 })
            return;
        table.Line(title);
        foreach (var problem in problems)
            table.Line($"   └  {problem.Where}: {problem.Message}{(problem.Since.Year > 1 ? $" (since {GoText.Ago(problem.Since, now)})" : "")}");
    }

    private static string Go(bool value) => value ? "true" : "false";
}
