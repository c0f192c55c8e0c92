using System.CommandLine;

namespace Mesh.Cli.Contexts;

/// <summary>The flags that say whom a command asks and how it answers; the same words everywhere.</summary>
internal sealed class ContextOptions
{
    public Option<string?> Context { get; } = new("--context")
    {
        Description = "CLUSTER, CLUSTER/NODE, LAB/CLUSTER or LAB/CLUSTER/NODE; "
            + "default $MESH_CONTEXT, else the first cluster of the only lab",
    };

    public Option<string?> Socket { get; } = new("--socket", "-H") { Description = "Unix socket of one agent, instead of a context" };

    public Option<string> Output { get; } = new("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };

    public ContextOptions() => Output.AcceptOnlyFromAmong("text", "json");

    public void AddTo(Command command)
    {
        command.Add(Context);
        command.Add(Socket);
        command.Add(Output);
    }

    public bool Json(ParseResult parsed) => parsed.GetValue(Output) == "json";

    /// <summary>The one agent that a command asks.</summary>
    public ContextNode Node(ParseResult parsed)
    {
        if (parsed.GetValue(Socket) is not { } socket)
            return Contexts.Context.Find(parsed.GetValue(Context)).Nodes[0];
        if (parsed.GetValue(Context) is not null)
            throw new CliException("--socket and --context both say whom to ask: give one of them");
        return new ContextNode("", socket.StartsWith("unix://", StringComparison.Ordinal) ? socket["unix://".Length..] : socket, null);
    }
}
