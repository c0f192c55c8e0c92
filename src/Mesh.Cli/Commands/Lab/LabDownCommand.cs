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
            if (LabStore.Find(parsed.GetValue(name)!) is not { } plan)
            {
                output.WriteLine($"There is no lab {parsed.GetValue(name)}: nothing to do.");
                return 0;
            }
            await LabDown.RunAsync(plan, cancel);
            output.WriteLine($"Lab {plan.Name} is gone.");
            return 0;
        });
        return command;
    }
}
