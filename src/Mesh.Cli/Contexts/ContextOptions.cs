using System.CommandLine;
using Mesh.Cli.Text;

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

    public Option<string> Output { get; } = new("--output", "-o")
    {
        Description = $"text, {AnswerFormat.Choices}",
        DefaultValueFactory = _ => "text",
    };

    /// <param name="words">What people may be told in, beside the forms of <see cref="AnswerFormat"/>.</param>
    public ContextOptions(params string[] words) => Output.Validators.Add(result =>
    {
        if (AnswerFormat.FaultOf(result.GetValueOrDefault<string>() ?? "", [.. words.DefaultIfEmpty("text")]) is { } fault)
            result.AddError(fault);
    });

    public void AddTo(Command command)
    {
        command.Add(Context);
        command.Add(Socket);
        command.Add(Output);
    }

    /// <summary>Whether a program is to read the answer.</summary>
    public bool IsStructured(ParseResult parsed) => AnswerFormat.IsStructured(parsed.GetValue(Output)!);

    /// <summary>The document in the form that was asked for.</summary>
    public string Form(ParseResult parsed, byte[] json) => AnswerFormat.Of(parsed.GetValue(Output)!, json);

    /// <summary>All agents of the context, or the one that was named.</summary>
    public IReadOnlyList<ContextNode> Nodes(ParseResult parsed) =>
        parsed.GetValue(Socket) is null ? Contexts.Context.Find(parsed.GetValue(Context)).Nodes : [Node(parsed)];

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
