using System.CommandLine;
using Mesh.Cli.Contexts;
using Mesh.Joining;
using Mesh.Joining.Listening;
using Mesh.Lab.Native;

namespace Mesh.Cli.Commands.Joining;

/// <summary>Which cluster a join command works for: the directory of its cluster.json, and where its sockets come from.</summary>
internal sealed class ClusterChoice
{
    public Option<string?> Context { get; } = new("--context")
    {
        Description = "CLUSTER or LAB/CLUSTER of a lab; default $MESH_CONTEXT, else the first cluster of the only lab",
    };

    public Option<string?> Directory { get; } = new("--cluster-dir") { Description = "Directory of the cluster's cluster.json, instead of a context" };

    public Option<string> Output { get; } = new("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };

    public ClusterChoice() => Output.AcceptOnlyFromAmong("text", "json");

    public Command AddTo(Command command)
    {
        command.Add(Context);
        command.Add(Directory);
        command.Add(Output);
        return command;
    }

    public bool Json(ParseResult parsed) => parsed.GetValue(Output) == "json";

    public bool HasDirectory(ParseResult parsed) => parsed.GetValue(Directory) is not null;

    public ChosenCluster Read(ParseResult parsed)
    {
        if (parsed.GetValue(Directory) is { } given)
        {
            if (parsed.GetValue(Context) is not null)
                throw new CliException("--cluster-dir and --context both name a cluster: give one of them");
            var directory = Path.GetFullPath(given);
            return new ChosenCluster(directory, ClusterDescription.Load(directory), null);
        }
        var context = Contexts.Context.Find(parsed.GetValue(Context));
        if (context is not { Lab: { } lab, Cluster: { } cluster })
            throw new CliException("name the cluster with --cluster-dir DIRECTORY: the directory of its cluster.json");
        return new ChosenCluster(cluster.Directory, ClusterDescription.Load(cluster.Directory) with { NetworkNamespace = cluster.Namespace }, context);
    }
}

/// <param name="Context">Null for a cluster outside a lab.</param>
internal sealed record ChosenCluster(string Directory, ClusterDescription Description, Context? Context)
{
    public JoinEnvironment Environment(Action<string> log) => new() { OpenSocket = OpenSocket, Log = log };

    /// <summary>Relays that can be asked and mirror the peer: this cluster's, and the peer's own when it is in the same lab.</summary>
    /// <param name="own">Only this cluster's, whether or not it has the peer's file (any more).</param>
    public IReadOnlyList<RelayWatcher> Relays(string peer, bool own = false)
    {
        if (Context is { Lab: { } lab, Cluster: { } cluster })
        {
            return [.. lab.Clusters.Where(one => one.Name == cluster.Name || (one.Name == peer && !own))
                .Select(one => (Cluster: one, Peer: one.Name == cluster.Name ? peer : cluster.Name))
                .Where(pair => pair.Cluster.RelayConfig is { } files && (own || File.Exists(Path.Combine(files, pair.Peer))))
                .Select(pair => new RelayWatcher(pair.Cluster.Name, pair.Peer, cancel => Mesh.Lab.LabReady.RelayAsync(pair.Cluster, cancel)))];
        }
        return Description is { RelayApi: { } api, RelayConfig: { } config } && (own || File.Exists(Path.Combine(config, peer)))
            ? [new RelayWatcher(Description.Name, peer, cancel => RelayWatcher.AskAsync(api, cancel))] : [];
    }

    private OpenSocket OpenSocket => Description.NetworkNamespace is { } name
        ? (family, type, protocol) => NetworkNamespace.OpenSocket(name, family, type, protocol) : Sockets.Open;

    /// <summary>Agents of this cluster, and those of the peer when it is in the same lab.</summary>
    public IReadOnlyList<(ContextNode Node, string Peer)> Watchers(string peer)
    {
        if (Context is { Lab: { } lab, Cluster: { } cluster })
        {
            var own = cluster.Nodes.Select(node => (new ContextNode(node.Name, node.Socket, null), peer));
            var others = lab.Clusters.Where(other => other.Name == peer)
                .SelectMany(other => other.Nodes.Select(node => (new ContextNode(node.Name, node.Socket, null), cluster.Name)));
            return [.. own, .. others];
        }
        return [.. Description.AgentSockets.Select(socket => (new ContextNode(Path.GetFileName(Path.GetDirectoryName(socket)!), socket, null), peer))];
    }
}
