using System.CommandLine;
using System.CommandLine.Parsing;
using Mesh.AgentApi;
using Mesh.Bpf;
using Mesh.Cli.Commands;
using Mesh.Cli.Commands.Bpf;
using Mesh.Cli.Commands.Ca;
using Mesh.Cli.Commands.Drill;
using Mesh.Cli.Commands.Explain;
using Mesh.Cli.Commands.Host;
using Mesh.Cli.Commands.Install;
using Mesh.Cli.Commands.Joining;
using Mesh.Cli.Commands.Kube;
using Mesh.Cli.Commands.Lab;
using Mesh.Cli.Commands.Observe;
using Mesh.Cli.Commands.Policies;
using Mesh.Cli.Commands.Reachability;
using Mesh.Datapath;
using Mesh.Install;
using Mesh.Joining;
using Mesh.Kubernetes.Api;
using Mesh.Lab;
using Mesh.Pki;

namespace Mesh.Cli;

/// <summary>
/// `mesh`, also installed as `cilium`: one file per command under Commands, the texts they print under Text. A command returns its
/// exit code; whatever a person can mend arrives here as an exception with a complete message and becomes one line on stderr
/// and exit code 1. Nothing else is ever written to stderr by a command that succeeds, because scripts take that for a failure.
/// </summary>
public static class MeshCommand
{
    public static async Task<int> RunAsync(string[] arguments, TextWriter output, TextWriter error)
    {
        var parsed = Parse(arguments, output, error);
        if (parsed.Errors.Count > 0)
        {
            await error.WriteLineAsync($"mesh: {Explain(parsed)}");
            return 1;
        }
        try
        {
            return await parsed.InvokeAsync(new InvocationConfiguration
            {
                Output = output,
                Error = error,
                EnableDefaultExceptionHandler = false,
                // Long enough to take a lab down.
                ProcessTerminationTimeout = TimeSpan.FromSeconds(30),
            });
        }
        catch (Exception e) when (e is LabException or AgentException or CliException or DatapathException or BpfException or PkiException or JoinException
            or InstallException or KubeApiException or KubeConfigurationException
            or System.ComponentModel.Win32Exception)
        {
            await error.WriteLineAsync($"mesh: {e.Message}");
            return 1;
        }
        catch (OperationCanceledException)
        {
            await error.WriteLineAsync("mesh: interrupted");
            return 130;
        }
    }

    /// <summary>Everything behind -- belongs to the command that is run inside the lab, flags and all.</summary>
    internal static ParseResult Parse(IReadOnlyList<string> arguments, TextWriter output, TextWriter error) =>
        Build(output, error).Parse(arguments, new ParserConfiguration { EnablePosixBundling = false, ResponseFileTokenReplacer = null });

    private static RootCommand Build(TextWriter output, TextWriter error)
    {
        var root = new RootCommand("Mesh connects the pods and services of many clusters.");
        foreach (var command in new[]
        {
            new Command("clustermesh", "This cluster's connections to the others.")
            {
                ClusterMeshStatusCommand.Build(output, error),
                TroubleshootCommand.Build(output),
                TokenCommand.Build(output),
                PlanCommand.Build(output),
                ConnectCommand.Build(output),
                DisconnectCommand.Build(output),
                KubePeeringCommands.BuildEnable(output),
                KubePeeringCommands.BuildDisable(output),
                QuarantineCommand.Build(output),
                QuarantineCommand.BuildRelease(output),
            },
            TroubleshootCommand.BuildAsCilium(output),
            StatusCommand.Build(output, error),
            HealthCommand.Build(output),
            new Command("metrics", "What an agent counts.") { MetricsListCommand.Build(output) },
            ConnectivityCommand.Build(output),
            ExplainCommand.Build(output),
            ObserveCommand.Build(output, error),
            ObserveCommand.BuildMonitor(output, error),
            new Command("service", "Services as the agent sees them.") { ServiceListCommand.Build(output) },
            new Command("node", "Nodes of all clusters; what is done on one.")
            {
                NodeListCommand.Build(output),
                NodeCommands.BuildMount(output),
                NodeCommands.BuildCleanup(output),
            },
            new Command("ip", "Addresses and who they are.") { IPListCommand.Build(output) },
            new Command("identity", "Identities of all clusters.") { IdentityListCommand.Build(output) },
            new Command("endpoint", "Pods of a node.") { EndpointListCommand.Build(output) },
            PolicyCommand.Build(output),
            EncryptCommand.Build(output),
            BpfCommand.Build(output),
            CaCommand.Build(output),
            DrillCommand.Build(output),
            HostCommand.Build(output),
            PodCommand.Build(),
            InstallCommand.Build(output),
            InstallCommand.BuildUpgrade(output),
            UninstallCommand.Build(output),
            ConfigCommand.Build(output),
            PreflightCommand.Build(output),
            LabCommand.Build(output),
            DemoCommand.Build(output),
            VersionCommand.Build(output),
        })
            root.Add(command);
        return root;
    }

    /// <summary>One line: what is wrong and what is allowed.</summary>
    private static string Explain(ParseResult parsed)
    {
        var command = parsed.CommandResult.Command;
        var path = Path(parsed.CommandResult);
        var unknown = parsed.UnmatchedTokens.FirstOrDefault(t => t.StartsWith('-'))
            ?? (parsed.UnmatchedTokens is [var first, ..] ? first : null);
        if (unknown is null)
        {
            return command.Subcommands.Count > 0 && parsed.Errors[0].SymbolResult is CommandResult
                ? $"{path} needs one of {Names(command)}"
                : $"{OneLine(parsed.Errors[0].Message).TrimEnd('.')}: see {path} --help";
        }
        if (unknown.StartsWith('-'))
            return $"{path} does not know the flag {unknown}; allowed are {Flags(parsed.CommandResult)}";
        return command.Subcommands.Any(c => !c.Hidden)
            ? $"{path} does not know '{unknown}'; allowed are {Names(command)}"
            : $"{path} takes no argument '{unknown}'; allowed are {Flags(parsed.CommandResult)}";
    }

    private static string OneLine(string text) => string.Join(' ', text.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries));

    private static string Names(Command command) => string.Join(", ", command.Subcommands.Where(c => !c.Hidden).Select(c => c.Name));

    private static string Flags(CommandResult command) => string.Join(", ",
        command.Command.Options.Where(o => !o.Hidden).Select(o => string.Join("/", o.Aliases.Append(o.Name).Order(StringComparer.Ordinal)))
            .Append("--help").Distinct());

    private static string Path(CommandResult command) =>
        command.Parent is CommandResult parent ? $"{Path(parent)} {command.Command.Name}" : "mesh";
}

/// <summary>Something that the person at the keyboard can mend: a complete message.</summary>
public sealed class CliException(string message) : Exception(message);
