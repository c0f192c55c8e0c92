using System.CommandLine;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab down`.</summary>
internal static class LabDownCommand
{
    public static Command Build(TextWriter output)
    {
        var name = LabCommand.NameOption();
        var command = new Command("down", "Take a lab away, whole or half made.") { name };
        command.SetAction(async (parsed, cancel) =>
        {
            var lab = parsed.GetValue(name)!;
            output.WriteLine(await LabDown.RunAsync(lab, cancel) ? $"Lab {lab} is gone." : $"There is no lab {lab}: nothing to do.");
            return 0;
        });
        return command;
    }
}
