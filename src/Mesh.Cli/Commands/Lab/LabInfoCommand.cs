using System.CommandLine;
using Mesh.Cli.Text;
using Mesh.Lab;
using Mesh.Lab.Plan;

namespace Mesh.Cli.Commands.Lab;

/// <summary>`mesh lab info`.</summary>
internal static class LabInfoCommand
{
    public static Command Build(TextWriter output)
    {
        var name = LabCommand.NameOption();
        var format = new Option<string>("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };
        format.AcceptOnlyFromAmong("text", "json");
        var command = new Command("info", "Names, addresses, files and processes of a lab.") { name, format };
        command.SetAction(parsed =>
        {
            var info = LabInfo.Of(LabStore.Get(parsed.GetValue(name)!));
            output.WriteLine(parsed.GetValue(format) == "json" ? info.ToJson() : Text(info));
            return 0;
        });
        return command;
    }

    private static string Text(LabInfo info)
    {
        var table = new TabWriter(3);
        table.Line($"Lab {info.Name}\t{info.Root}");
        foreach (var (cluster, access) in info.Clusters.Zip(info.Access))
        {
            table.Line("");
            table.Line($"Cluster {cluster.Name}, id {cluster.Id}");
            var readers = access.Door.Count == 0 ? "nobody yet" : string.Join(", ", access.Door.Keys);
            table.Line($"  door\t{cluster.Etcd.Endpoint}\tread by {readers}");
            table.Line($"  etcd behind it\t{access.Own?.Endpoint ?? "-"}\tnamespace {cluster.Namespace}");
            table.Line($"  certificates\t{cluster.Pki}");
            table.Line($"  rebel-base\t{cluster.ServiceIPv4}, {cluster.ServiceIPv6} (http 80/TCP, dns 53/UDP)");
            table.Line($"  manifests\t{cluster.Manifests}");
            table.Line($"  peers, for agents\t{cluster.ClusterMeshConfig}");
            if (cluster.RelayConfig is { } relay)
                table.Line($"  peers, for the relay\t{relay}");
            foreach (var node in cluster.Nodes)
            {
                table.Line($"  {cluster.Name}/{node.Name}\t{node.Ip}\tnamespace {node.Namespace}\tagent {node.Socket}");
                foreach (var pod in node.Pods)
                    table.Line($"  {cluster.Name}/{node.Name}/{pod.Name}\t{pod.IPv4}, {pod.IPv6}\tnamespace {pod.Namespace}");
            }
        }
        table.Line("");
        table.Line("Process\tPID\tLog");
        foreach (var process in info.Processes)
            table.Line($"{process.Name}\t{process.Pid?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "-"}\t{process.Log}");
        return table.ToString().TrimEnd('\n');
    }
}
