using System.CommandLine;
using System.Text.Json.Nodes;
using Mesh.Install.Applying;
using Mesh.Install.Charts;
using Mesh.Install.Releases;
using Mesh.Install.Text;
using Mesh.Kubernetes.Api;

namespace Mesh.Cli.Commands.Install;

/// <summary>`mesh config view | set | delete | values`. What is set becomes a value of the release (extraConfig), so that no later upgrade
/// takes it away.</summary>
internal static class ConfigCommand
{
    private const string ConfigMap = "cilium-config";

    public static Command Build(TextWriter output) => new("config", "The settings of an installed mesh.")
    {
        View(output), Set(output), Delete(output), Values(output),
    };

    private static Command View(TextWriter output)
    {
        var options = new InstallOptions();
        var command = new Command("view", "Print the lines of ConfigMap cilium-config.");
        options.AddCluster(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var client = options.Connect(parsed);
            var ns = options.Target(parsed).Namespace;
            var map = await client.FindAsync(KubeResources.ConfigMaps.Raw, ns, ConfigMap, cancel)
                ?? throw new CliException($"there is no ConfigMap {ns}/{ConfigMap}: is the mesh installed, and in this namespace (-n)?");
            foreach (var (name, value) in (map["data"] as JsonObject ?? []).OrderBy(line => line.Key, StringComparer.Ordinal))
                output.WriteLine($"{name,-50} {(string?)value}");
            return 0;
        });
        return command;
    }

    private static Command Set(TextWriter output)
    {
        var options = new InstallOptions();
        var (name, value) = (new Argument<string>("KEY"), new Argument<string>("VALUE"));
        var command = new Command("set", "Set a line of cilium-config, and restart who reads it.") { name, value };
        options.AddCluster(command);
        options.AddChange(command);
        command.SetAction(async (parsed, cancel) =>
        {
            await ChangeAsync(options, parsed, parsed.GetValue(name)!, parsed.GetValue(value)!, output, cancel);
            return 0;
        });
        return command;
    }

    private static Command Delete(TextWriter output)
    {
        var options = new InstallOptions();
        var name = new Argument<string>("KEY");
        var command = new Command("delete", "Take back what `config set` has set.") { name };
        options.AddCluster(command);
        options.AddChange(command);
        command.SetAction(async (parsed, cancel) =>
        {
            await ChangeAsync(options, parsed, parsed.GetValue(name)!, null, output, cancel);
            return 0;
        });
        return command;
    }

    private static async Task ChangeAsync(InstallOptions options, ParseResult parsed, string name, string? value, TextWriter output,
        CancellationToken cancel)
    {
        using var client = options.Connect(parsed);
        var target = options.Target(parsed);
        if (value is null)
        {
            var former = await new ReleaseStore(client, target.Namespace, target.Release).DeployedAsync(cancel);
            if (former?.Config.At("extraConfig") is not Map extra || !extra.ContainsKey(name))
                throw new CliException($"{name} was not set by `mesh config set`: what stands there follows from the values (mesh config values)");
        }
        var changes = new Map { ["extraConfig"] = new Map { [name] = value } };
        var plan = await new Planner(client, target, TimeProvider.System).UpgradeAsync(changes, reuse: true, cancel);
        await InstallCommand.CarryOutAsync(client, plan, options, parsed, output, cancel);
    }

    private static Command Values(TextWriter output)
    {
        var options = new InstallOptions();
        var all = new Option<bool>("--all", "-a") { Description = "Every value there is, with what it means" };
        var command = new Command("values", "The values of the release that differ from the chart's own.") { all };
        options.AddCluster(command);
        command.SetAction(async (parsed, cancel) =>
        {
            if (parsed.GetValue(all))
            {
                output.Write(Chart.OfThisProgram.Files["values.yaml"]);
                return 0;
            }
            using var client = options.Connect(parsed);
            var target = options.Target(parsed);
            var record = await new ReleaseStore(client, target.Namespace, target.Release).DeployedAsync(cancel)
                ?? throw new CliException($"nothing is installed as release {target.Release} in namespace {target.Namespace} (--all needs no cluster)");
            output.WriteLine(YamlText.Write(record.Config));
            return 0;
        });
        return command;
    }
}
