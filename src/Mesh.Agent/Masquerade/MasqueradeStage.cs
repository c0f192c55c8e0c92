using Mesh.ControlPlane.Nodes;
using Mesh.Datapath;
using Mesh.Datapath.Masquerade;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.Agent.Masquerade;

/// <summary>
/// Keeps the kernel's masquerading as the node's pod ranges ask for. A firewall that begins anew throws away everybody's rules, so the
/// kernel is asked now and then whether ours are there. Where it refuses, pods go on without, and the status says why. Nothing is taken
/// back because the node is unknown for a while.
/// </summary>
internal sealed class MasqueradeStage : IDisposable
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(5);

    /// <summary>Between two looks when nodes come and go.</summary>
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(1);

    private readonly MasqueradeOptions _options;
    private readonly (ushort First, ushort Last) _nodePorts;
    private readonly ITable<NodeName, Node> _nodes;
    private readonly NodeName _self;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private MasqueradeTable? _table;
    private volatile string? _problem;

    public MasqueradeStage(AgentOptions options, ITable<NodeName, Node> nodes, TimeProvider time, Action<string> log)
    {
        _options = options.Masquerade;
        _nodePorts = options.NodePorts;
        _nodes = nodes;
        _self = new NodeName(options.Cluster.Name, options.NodeName);
        _time = time;
        _log = log;
    }

    /// <summary>Why pods are not masqueraded though they should be, and the mend; null when all is well.</summary>
    public string? Problem => _problem;

    /// <summary>Follows the nodes until cancelled. On a thread of the node's network namespace.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var feed = _nodes.Subscribe();
        try
        {
            while (true)
            {
                await feed.WaitAsync(Interval, cancellation);
                feed.Take();
                Look();
                await Task.Delay(Rest, _time, cancellation);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
    }

    /// <summary>Once.</summary>
    public void Look()
    {
        if (!_nodes.TryGet(_self, out var node) && (_options.IPv4 || _options.IPv6))
            return;
        try
        {
            _table ??= new MasqueradeTable(_options, _nodePorts);
            var ranges = (node?.PodCidrs.Items ?? []).Where(range => _options.IsOn(range.Address.IsV6)).ToList();
            if (_table.Apply(ranges))
                _log(ranges.Count == 0 ? "pods are masqueraded no more" : $"what leaves the mesh from {string.Join(", ", ranges)} gets this node's address");
            if (_problem is not null)
                _log("masquerading works again");
            _problem = null;
        }
        catch (DatapathException e)
        {
            if (_problem != e.Message)
                _log($"{e.Message}; pods reach only what knows the way to them");
            _problem = e.Message;
        }
    }

    public void Dispose() => _table?.Dispose();
}
