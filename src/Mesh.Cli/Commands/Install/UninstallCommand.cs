using System.CommandLine;
using Mesh.Install.Applying;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Commands.Install;

/// <summary>`mesh uninstall`.</summary>
internal static class UninstallCommand
{
    public static Command Build(TextWriter output)
    {
        var options = new InstallOptions();
        var definitions = new Option<bool>("--delete-crds")
        {
            Description = "Also the definitions of our kinds, and with them all Cilium policies and ServiceExports",
        };
        var keep = new Option<bool>("--keep-nodes") { Description = "Leave programs, devices and CNI configuration on the nodes" };
        var command = new Command("uninstall", "Remove the mesh from a Kubernetes cluster.") { definitions, keep };
        options.AddCluster(command);
        options.AddWait(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var client = options.Connect(parsed);
            var how = new UninstallOptions { DeletesDefinitions = parsed.GetValue(definitions), CleansNodes = !parsed.GetValue(keep) };
            await new Uninstaller(client, options.Target(parsed), new Narrator(output.WriteLine), options.Wait(parsed)).RunAsync(how,
                [.. CrdInstaller.Definitions.Concat(CrdInstaller.MulticlusterDefinitions)
                    .Select(definition => (string)definition["metadata"]!["name"]!)], cancel);
            output.WriteLine(how.DeletesDefinitions
                ? "✅ Uninstalled"
                : "✅ Uninstalled. Policies and the definitions of our kinds stay; --delete-crds removes them too");
            return 0;
        });
        return command;
    }
}
