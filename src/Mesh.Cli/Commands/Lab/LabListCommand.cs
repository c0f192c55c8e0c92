using System.CommandLine;
using Mesh.Cli.Text;
using Mesh.Lab;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab list`.</summary>
internal static class LabListCommand
{
    public static Command Build(TextWriter output)
    {
        var command = new Command("list", "The labs of this machine.");
        command.SetAction(_ =>
        {
            var table = new TabWriter(3);
            table.Row("NAME", "CLUSTERS", "NODES", "PODS");
            foreach (var plan in LabStore.Names().Select(LabStore.Get))
                table.Row(plan.Name, $"{plan.Clusters.Count}", $"{plan.Nodes.Count()}", $"{plan.Pods.Count()}");
            output.Write(table.ToString());
            return 0;
        });
        return command;
    }
}
