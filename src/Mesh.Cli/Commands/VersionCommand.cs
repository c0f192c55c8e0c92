using System.CommandLine;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Contexts;

namespace Mesh.Cli.Commands;

/// <summary>`mesh version`; as `cilium version -o jsonpath={$.Daemon.Version}` it is the first thing that Cilium's connectivity test
/// asks of an agent.</summary>
internal static class VersionCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new ContextOptions();
        var command = new Command("version", "The version of this program, and of the agent where there is one.");
        options.AddTo(command);
        command.SetAction(async (parsed, cancel) =>
        {
            var own = typeof(VersionCommand).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "0";
            var node = Agent(options, parsed);
            var answer = new VersionAnswer
            {
                Client = new VersionOfProgram(SpokenVersion.Of(own), Architecture()),
                Daemon = node is null ? null : await DaemonAsync(node, cancel),
            };
            if (options.IsStructured(parsed))
                output.Write(options.Form(parsed, JsonSerializer.SerializeToUtf8Bytes(answer, AgentApiJson.Wire.VersionAnswer)));
            else
                output.Write($"mesh {own}\n{(answer.Daemon is { } daemon ? $"agent {daemon.Version}\n" : "")}");
            return 0;
        });
        return command;
    }

    /// <summary>The one that was named, or the one of this machine; null where nobody asks for one and there is none.</summary>
    private static ContextNode? Agent(ContextOptions options, ParseResult parsed) =>
        parsed.GetValue(options.Socket) is not null || parsed.GetValue(options.Context) is not null ? options.Node(parsed) : Context.Standalone();

    private static async Task<VersionOfProgram> DaemonAsync(ContextNode node, CancellationToken cancel)
    {
        using var agent = node.Connect();
        return new VersionOfProgram((await agent.GetDebugInfoAsync(cancel)).CiliumVersion.Split(' ')[0], Architecture());
    }

    /// <summary>In Go's words.</summary>
    private static string Architecture() => RuntimeInformation.ProcessArchitecture switch
    {
        System.Runtime.InteropServices.Architecture.X64 => "linux/amd64",
        System.Runtime.InteropServices.Architecture.Arm64 => "linux/arm64",
        var other => $"linux/{other}".ToLowerInvariant(),
    };
}
