using System.CommandLine;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab exec`: this process becomes the command, so input, output, signals and exit code are the command's own.</summary>
internal static class LabExecCommand
{
    public static Command Build()
    {
        var name = LabCommand.NameOption();
        var place = new Argument<string>("PLACE") { Description = "CLUSTER/NODE, CLUSTER/NODE/POD (numbers will do, such as osaka/1/2) or CLUSTER/cp" };
        var words = new Argument<string[]>("COMMAND") { Description = "What to run there, behind --", Arity = ArgumentArity.OneOrMore };
        var command = new Command("exec", "Run a command inside a node, a pod or a control plane.") { name, place, words };
        command.SetAction(parsed =>
        {
            LabPlace.Find(LabStore.Get(parsed.GetValue(name)!), parsed.GetValue(place)!).Become(parsed.GetValue(words)!);
            return 1;
        });
        return command;
    }
}
