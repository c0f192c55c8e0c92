using Mesh.AgentApi;
using Mesh.Liveness;

namespace Mesh.Agent.Api;

/// <summary>What traffic has proved, in the API's shape.</summary>
internal static class LivenessBody
{
    /// <summary>Nodes listed by name; all of them are judged.</summary>
    private const int NodesShown = 100;

    public static LivenessStatus? Of(AgentView view)
    {
        if (view.Liveness is not { } stage || view.Datapath is not { } datapath)
            return null;
        var report = stage.Report;
        var names = view.State.Nodes.Snapshot().Select(pair => pair.Value.Row).GroupBy(node => node.ClusterId)
            .ToDictionary(group => group.Key, group => group.First().Name.Cluster);
        var failover = datapath.Failover();
        return new LivenessStatus
        {
            RealTimeProblem = stage.RealTimeProblem,
            LinkDown = report.LinkDown,
            LateTurns = report.LateTurns,
            SelfSuspicions = report.SelfSuspicions,
            Clusters = [.. report.Clusters.Select(cluster => Cluster(cluster, names, datapath))],
            Nodes = [.. report.Nodes.OrderBy(node => node.IsIn && !node.IsSilent).Take(NodesShown).Select(Node)],
            Ejected = view.Ejections is { Ejected: { Count: > 0 } ejected }
                ? [.. ejected.Select(one => new EjectedBackend
                {
                    Address = one.Address.ToString(),
                    Cluster = names.GetValueOrDefault(one.ClusterId, ""),
                    Left = Math.Round(one.Left.TotalSeconds, 2),
                    Failures = one.Failures,
                })]
                : null,
            Failover = new FailoverCounts
            {
                Panics = (long)failover.Panics,
                Refused = (long)failover.Refused,
                Unanswered = (long)failover.Unanswered,
                Ejections = (long)failover.Ejections,
                Recovered = (long)failover.Recovered,
                Repicked = (long)failover.Repicked,
                SocketsClosed = (long)failover.SocketsClosed,
            },
        };
    }

    private static ClusterLiveness Cluster(ClusterReport cluster, Dictionary<uint, string> names, Datapath.Datapath datapath)
    {
        var drill = datapath.Liveness.DrillLeft(cluster.ClusterId);
        return new ClusterLiveness
        {
            Name = names.GetValueOrDefault(cluster.ClusterId, ""),
            ClusterId = cluster.ClusterId,
            State = !cluster.IsIn ? "out" : drill is not null ? "drill" : cluster.Share < byte.MaxValue ? "returning" : "in",
            Share = cluster.Share * 100 / byte.MaxValue,
            Since = Seconds(cluster.Since),
            HoldLeft = Seconds(cluster.HoldLeft),
            DrillLeft = Seconds(drill),
            Representatives = cluster.Representatives,
            Silent = cluster.Silent,
            Transitions = cluster.Transitions,
        };
    }

    private static NodeLiveness Node(NodeReport node) => new()
    {
        Name = node.Name.ToString(),
        Role = node.Role switch
        {
            TargetRole.Representative => "representative",
            TargetRole.Reserve => "reserve",
            TargetRole.OwnNode => "own-node",
            _ => "watched",
        },
        State = !node.IsIn ? "out" : !node.Proved ? "unknown" : node.IsSilent ? "silent" : "in",
        RoundTrip = Math.Round(node.RoundTrip.TotalMilliseconds, 2),
        SinceAnswer = Seconds(node.SinceAnswer),
        Sent = node.Sent,
        Answered = node.Answered,
    };

    private static double? Seconds(TimeSpan? time) => time is { } known ? Math.Round(known.TotalSeconds, 2) : null;
}
