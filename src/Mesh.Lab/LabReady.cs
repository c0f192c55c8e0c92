using System.Net.Sockets;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;

namespace Mesh.Lab;

/// <summary>Waits for a lab to become what it should be, and says what is still missing when it does not.</summary>
public static class LabReady
{
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(30);

    /// <summary>Every agent answers on its socket.</summary>
    public static Task WaitForAgentsAsync(LabPlan plan, TimeSpan deadline, CancellationToken cancel) =>
        WaitAsync(plan, deadline, async () => await FirstAsync(plan.Nodes, async node =>
        {
            using var agent = Agent(node);
            await agent.GetStatusAsync(cancel);
            return null;
        }), cancel);

    /// <summary>Every API server is ready.</summary>
    public static Task WaitForControlPlanesAsync(LabPlan plan, TimeSpan deadline, CancellationToken cancel) =>
        WaitAsync(plan, deadline, () => FirstAsync(plan.Clusters, c => ControlPlaneAsync(c, cancel)), cancel);

    /// <summary>Every API server is ready, every pod has its identity, and, if the lab connects its clusters, every relay and
    /// every agent is in sync with every other one.</summary>
    public static async Task WaitForMeshAsync(LabPlan plan, TimeSpan deadline, CancellationToken cancel)
    {
        await WaitForControlPlanesAsync(plan, deadline, cancel);
        await WaitAsync(plan, deadline, () => FirstAsync(plan.Clusters, c => RelayedAsync(plan, c, cancel)), cancel);
        await WaitAsync(plan, deadline, () => FirstAsync(plan.Nodes, n => NodeAsync(plan, n, cancel)), cancel);
    }

    /// <summary>Null when the control plane says that it is ready, otherwise what it says instead.</summary>
    public static async Task<string?> ControlPlaneAsync(ClusterPlan cluster, CancellationToken cancel)
    {
        using var http = ControlPlaneClient(cluster);
        try
        {
            using var answer = await http.GetAsync(new Uri(cluster.ReadyzUrl), cancel);
            return answer.IsSuccessStatusCode ? null
                : $"the API server of {cluster.Name} is not ready: {(await answer.Content.ReadAsStringAsync(cancel)).Trim()}";
        }
        catch (Exception e) when (IsSilence(e, cancel))
        {
            return $"the API server of {cluster.Name} does not answer on {cluster.ReadyzUrl}: {e.Message}";
        }
    }

    /// <summary>What the API server complains of, one line each; empty also when it does not answer, which its readiness tells.</summary>
    public static async Task<IReadOnlyList<string>> ProblemsAsync(ClusterPlan cluster, CancellationToken cancel)
    {
        using var http = ControlPlaneClient(cluster);
        try
        {
            var text = await http.GetStringAsync(new Uri(new Uri(cluster.ReadyzUrl), "/problems"), cancel);
            return text.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        }
        catch (Exception e) when (IsSilence(e, cancel))
        {
            return [];
        }
    }

    /// <summary>What the cluster's relay says of its peers.</summary>
    /// <exception cref="LabException">It does not answer, or there is none.</exception>
    public static async Task<IReadOnlyList<RemoteCluster>> RelayAsync(ClusterPlan cluster, CancellationToken cancel)
    {
        const string url = "http://127.0.0.1:9889/v1/cluster";
        using var http = ControlPlaneClient(cluster);
        try
        {
            await using var body = await http.GetStreamAsync(new Uri(url), cancel);
            return await JsonSerializer.DeserializeAsync(body, AgentApiJson.Wire.IReadOnlyListRemoteCluster, cancel) ?? [];
        }
        catch (Exception e) when (IsSilence(e, cancel) || e is JsonException)
        {
            throw new LabException($"the relay of {cluster.Name} does not answer on {url}: {e.Message}");
        }
    }

    /// <summary>Speaks HTTP inside the control plane's namespace.</summary>
    private static HttpClient ControlPlaneClient(ClusterPlan cluster) => new(new SocketsHttpHandler
    {
        UseProxy = false,
        ConnectCallback = async (context, token) =>
        {
            var socket = NetworkNamespace.OpenSocket(cluster.Namespace, AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await socket.ConnectAsync(context.DnsEndPoint, token);
                return new NetworkStream(socket, ownsSocket: true);
            }
            catch
            {
                socket.Dispose();
                throw;
            }
        },
    })
    { Timeout = TimeSpan.FromSeconds(5) };

    private static bool IsSilence(Exception e, CancellationToken cancel) =>
        e is HttpRequestException or IOException or System.ComponentModel.Win32Exception
        || e is OperationCanceledException && !cancel.IsCancellationRequested;

    private static async Task<string?> RelayedAsync(LabPlan plan, ClusterPlan cluster, CancellationToken cancel)
    {
        if (cluster.RelayConfig is null || !plan.Connected)
            return null;
        var rows = await RelayAsync(cluster, cancel);
        return plan.Clusters.Where(peer => peer != cluster).Select(peer => (peer.Name, Row: rows.FirstOrDefault(r => r.Name == peer.Name)))
            .Where(pair => pair.Row is not { Ready: true })
            .Select(pair => $"the relay of {cluster.Name} is not connected to {pair.Name}: {pair.Row?.Status ?? "it does not know that cluster"}")
            .FirstOrDefault();
    }

    private static async Task<string?> NodeAsync(LabPlan plan, NodePlan node, CancellationToken cancel)
    {
        using var agent = Agent(node);
        var status = await agent.GetStatusAsync(cancel);
        var clusters = status.ClusterMesh?.Clusters ?? [];
        if (status.Mesh?.Tables?.FirstOrDefault(t => t.Pending + t.Failing > 0 || t.WaitingFor is { Count: > 0 }) is { } table)
            return $"{node.Name}: table {table.Name} is not in the kernel yet, {table.Pending} rows pending, {table.Failing} failing "
                + $"{(table.Failures is [var first, ..] ? first.Error : "")}"
                + $"{(table.WaitingFor is { Count: > 0 } sources ? $", waiting for {string.Join(", ", sources)}" : "")}";
        foreach (var peer in plan.Clusters.Where(c => plan.Connected && !c.Nodes.Contains(node)))
        {
            var row = clusters.FirstOrDefault(c => c.Name == peer.Name);
            if (row is not { Ready: true })
                return $"{node.Name} is not connected to {peer.Name}: {row?.Status ?? "it does not know that cluster"}";
        }
        var endpoints = await agent.GetEndpointsAsync(cancel);
        var known = endpoints.Count(e => e.Status?.State == "ready");
        return known >= node.Pods.Count ? null : $"{node.Name}: {known} of {node.Pods.Count} pods are ready";
    }

    private static AgentClient Agent(NodePlan node) => new(node.Socket, node.Name, TimeSpan.FromSeconds(5));

    private static async Task<string?> FirstAsync<T>(IEnumerable<T> items, Func<T, Task<string?>> missing)
    {
        foreach (var item in items)
        {
            if (await missing(item) is { } reason)
                return reason;
        }
        return null;
    }

    private static async Task WaitAsync(LabPlan plan, TimeSpan deadline, Func<Task<string?>> missing, CancellationToken cancel)
    {
        var end = DateTime.UtcNow + deadline;
        while (true)
        {
            cancel.ThrowIfCancellationRequested();
            if (File.Exists(plan.StoppingFile))
                throw new LabException("`mesh lab down` was called meanwhile");
            string? reason;
            try
            {
                reason = await missing();
            }
            catch (Exception e) when (e is HttpRequestException or IOException or SocketException or AgentException or LabException)
            {
                reason = e.Message;
            }
            if (reason is null)
                return;
            if (DateTime.UtcNow > end)
                throw new LabException($"not ready after {deadline.TotalSeconds:0} s: {reason}");
            await Task.Delay(Pause, cancel);
        }
    }
}
