using Mesh.ControlPlane.LoadBalancing;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.Agent.HealthChecks;

/// <summary>
/// Answers at the healthCheckNodePort of load balancers with externalTrafficPolicy Local, as kube-proxy does, so that a load balancer in
/// front of the cluster sends nobody to a node that would drop them. Follows the frontends: a port is open as long as a service has it.
/// Of two services with one port the first by name has it. A port that cannot be opened is told and tried again.
/// </summary>
internal sealed class HealthCheckStage
{
    /// <summary>Between two attempts at a port that is taken.</summary>
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(2);

    private readonly ITable<L3n4Addr, Frontend> _frontends;
    private readonly Func<bool> _programs;
    private readonly Action<string> _log;
    private readonly Dictionary<L3n4Addr, Frontend> _rows = [];
    private readonly Dictionary<ushort, HealthCheckServer> _open = [];
    private volatile List<string> _problems = [];

    /// <param name="programs">Whether the kernel forwards by what this agent says.</param>
    public HealthCheckStage(ITable<L3n4Addr, Frontend> frontends, Func<bool> programs, Action<string> log)
    {
        _frontends = frontends;
        _programs = programs;
        _log = log;
    }

    /// <summary>Ports that are not answered at, and the mend.</summary>
    public IReadOnlyList<string> Problems => _problems;

    /// <summary>Follows the frontends until cancelled, then closes every port. On a thread of the node's network namespace.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var feed = _frontends.Subscribe();
        try
        {
            while (true)
            {
                // A port that is taken may be free by now; without one there is nothing to do until something changes.
                await feed.WaitAsync(_problems.Count > 0 ? Retry : Timeout.InfiniteTimeSpan, cancellation);
                var changes = feed.Take();
                foreach (var change in changes)
                    Note(change);
                await ServeAsync();
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
        finally
        {
            foreach (var server in _open.Values)
                await server.DisposeAsync();
            _open.Clear();
        }
    }

    private void Note(Change<L3n4Addr, Frontend> change)
    {
        if (change.Row is { HealthCheckNodePort: > 0 } row)
            _rows[change.Key] = row;
        else
            _rows.Remove(change.Key);
    }

    private async Task ServeAsync()
    {
        var problems = new List<string>();
        var wanted = new Dictionary<ushort, NodeHealth>();
        foreach (var service in _rows.Values.GroupBy(row => row.Service).OrderBy(group => group.Key))
        {
            var port = service.Max(row => row.HealthCheckNodePort);
            if (!wanted.TryAdd(port, new NodeHealth(service.Key, LocalEndpoints(service))))
                problems.Add($"Service {service.Key}: healthCheckNodePort {port} already belongs to Service {wanted[port].Service}: give one of them another");
        }
        foreach (var port in _open.Keys.Except(wanted.Keys).ToList())
        {
            _open.Remove(port, out var closed);
            await closed!.DisposeAsync();
            _log($"healthCheckNodePort {port} closed");
        }
        foreach (var (port, health) in wanted)
            if (_open.TryGetValue(port, out var server))
                server.Health = health;
            else if (await OpenAsync(port, health) is { } problem)
                problems.Add(problem);
        foreach (var problem in problems.Except(_problems))
            _log(problem);
        _problems = problems;
    }

    /// <summary>Null when it is open, otherwise why not and the mend.</summary>
    private async Task<string?> OpenAsync(ushort port, NodeHealth health)
    {
        try
        {
            _open[port] = await HealthCheckServer.StartAsync(port, health, _programs);
            _log($"healthCheckNodePort {port} open for Service {health.Service}");
            return null;
        }
        catch (IOException e)
        {
            return $"Service {health.Service}: healthCheckNodePort {port} cannot be opened, so load balancers take this node for dead: "
                + $"{e.Message.TrimEnd('.')}: free the port on this node, or give the service another";
        }
    }

    /// <summary>Ready backends on this node. Of a dual-stack service each has an address of both families: the larger count is theirs.</summary>
    private static int LocalEndpoints(IEnumerable<Frontend> rows) =>
        rows.SelectMany(row => row.Backends.Where(backend => backend.IsHere && backend.State == BackendState.Active))
            .Select(backend => backend.Address.Address).Distinct()
            .GroupBy(address => address.IsV6)
            .Select(family => family.Count())
            .DefaultIfEmpty(0)
            .Max();
}

/// <summary>What a node says about a service.</summary>
/// <param name="LocalEndpoints">Ready backends on this node.</param>
internal sealed record NodeHealth(ServiceName Service, int LocalEndpoints);
