using System.CommandLine;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab …`: a whole mesh in network namespaces of this machine.</summary>
internal static class LabCommand
{
    public static Command Build(TextWriter output) => new("lab", "A whole mesh in network namespaces of this machine.")
    {
        LabUpCommand.Build(output),
        LabInfoCommand.Build(output),
        LabListCommand.Build(output),
        LabExecCommand.Build(),
        LabEtcdctlCommand.Build(),
        LabDownCommand.Build(output),
        LabProcessCommands.Spawn(),
        LabProcessCommands.Keep(),
        LabProcessCommands.Echo(),
        LabProcessCommands.Load(output),
        LabProcessCommands.Insist(),
    };

    public static Option<string> NameOption() => new("--name")
    {
        Description = "Name of the lab",
        DefaultValueFactory = _ => LabSpec.DefaultName,
    };
}
