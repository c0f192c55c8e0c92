using System.Globalization;
using Mesh.AgentApi;

namespace Mesh.Cli.Text;

/// <summary>What a node has proved by traffic, in lines.</summary>
internal static class LivenessText
{
    /// <summary>For the line that Cilium calls cluster health.</summary>
    public static string Summary(LivenessStatus? liveness)
    {
        if (liveness is null)
            return "Probe disabled";
        var nodes = liveness.Nodes ?? [];
        var clusters = liveness.Clusters ?? [];
        return $"{nodes.Count(node => node.State == "in")}/{nodes.Count} nodes reachable through the tunnel, "
            + $"{clusters.Count(cluster => cluster.State == "in")}/{clusters.Count} clusters in";
    }

    /// <param name="all">Also what is well.</param>
    public static IEnumerable<string> Lines(LivenessStatus? liveness, bool all)
    {
        if (liveness is null)
            yield break;
        foreach (var cluster in liveness.Clusters ?? [])
            if (all || cluster.State != "in")
                yield return $"Traffic to {cluster.Name}: {State(cluster)}";
        foreach (var node in liveness.Nodes ?? [])
            if (all || node.State is "out" or "silent")
                yield return $"   └  node {node.Name}: {node.State}, {Number(node.RoundTrip)} ms, {node.Answered} of {node.Sent} answered, {node.Role}";
        foreach (var backend in liveness.Ejected ?? [])
            yield return $"Backend {backend.Address} of {backend.Cluster} is ejected: {backend.Failures} failures, "
                + $"tried again in {Number(backend.Left)} s at the latest";
        if (liveness.LinkDown)
            yield return "The device of the tunnel has no carrier: silence of others is not judged";
        if (liveness.RealTimeProblem is { } problem)
            yield return $"Prober without real-time priority: {problem}";
        if (all && liveness.Failover is { } counts)
            yield return $"Failover: {counts.Ejections} ejections ({counts.Refused} refused, {counts.Unanswered} unanswered), {counts.Recovered} "
                + $"recovered, {counts.Repicked} flows moved, {counts.SocketsClosed} sockets closed, {counts.Panics} choices in panic";
    }

    private static string State(ClusterLiveness cluster)
    {
        var text = cluster.State switch
        {
            "out" => $"out, {cluster.Silent} of {cluster.Representatives} nodes asked are silent",
            "drill" => $"rehearsed as lost for {Number(cluster.DrillLeft ?? 0)} s more",
            "returning" => $"returning, takes {cluster.Share} % of its share",
            _ => $"in, {cluster.Representatives} nodes are asked",
        };
        if (cluster.Since is { } since)
            text += $", since {Number(since)} s";
        if (cluster.HoldLeft is { } left)
            text += $", in again in {Number(left)} s";
        return cluster.Transitions > 0 ? $"{text}, {cluster.Transitions} transitions" : text;
    }

    private static string Number(double number) => Math.Round(number, 1).ToString(CultureInfo.InvariantCulture);
}
