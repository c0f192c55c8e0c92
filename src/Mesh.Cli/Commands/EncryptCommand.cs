using System.CommandLine;
using Mesh.Cli.Contexts;

namespace Mesh.Cli.Commands;

/// <summary>`mesh encrypt status`: what `cilium encryption status` asks of every agent. There is one answer, and only an agent that runs gives it.</summary>
internal static class EncryptCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var status = new Command("status", "Whether what nodes send each other is encrypted: it is not.");
        options.AddTo(status);
        status.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            await agent.GetStatusAsync(cancel);
            output.Write(options.IsStructured(parsed) ? options.Form(parsed, """{"mode":"Disabled"}"""u8.ToArray()) : "Encryption: Disabled\n");
            return 0;
        });
        return new Command("encrypt", "Encryption between nodes, which Mesh does not do.") { Hidden = true, Subcommands = { status } };
    }
}
