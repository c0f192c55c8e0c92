using System.CommandLine;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;
using Mesh.Cli.Text;

namespace Mesh.Cli.Commands;

/// <summary>`mesh status`: one agent. As `cilium status -o json` it is also what `cilium clustermesh status` runs in each pod.</summary>
internal static class StatusCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var all = new Option<bool>("--all-clusters") { Description = "Also the clusters that are ready" };
        var verbose = new Option<bool>("--verbose") { Description = "The same as --all-clusters" };
        var brief = new Option<bool>("--brief") { Description = "OK, or the first thing that is wrong" };
        var command = new Command("status", "What one agent says of itself and of the other clusters.") { all, verbose, brief };
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var agent = options.Node(parsed).Connect();
            var body = await agent.GetBytesAsync("healthz", cancel);
            var status = JsonSerializer.Deserialize(body, AgentApiJson.Wire.StatusResponse)
                ?? throw new CliException("the agent answered null: is it another program?");
            if (options.Json(parsed))
                output.Write(ListCommand.Indent(body));
            else if (parsed.GetValue(brief))
                output.WriteLine(StatusText.Brief(status));
            else
                output.Write(StatusText.Format(status, parsed.GetValue(all) || parsed.GetValue(verbose), DateTimeOffset.UtcNow));
            // These two are what other tools run this for: to them a code means that the agent itself is not well.
            return options.Json(parsed) || parsed.GetValue(brief) ? StatusText.IsHealthy(status) ? 0 : 1 : StatusText.ExitCode(status);
        });
        return command;
    }
}
