using System.CommandLine;
using System.Net;
using Mesh.Cli.Hosts;
using Mesh.Lab;
using Mesh.Lab.Native;
using Mesh.Lab.Processes;
using Mesh.Model;

namespace Mesh.Cli.Commands.Host;

/// <summary>`mesh host …`: clusters of machines without Kubernetes, from one directory (<see cref="HostDirectory"/>).</summary>
internal static class HostCommand
{
    public static Command Build(TextWriter output) => new("host", "A cluster of machines without Kubernetes.")
    {
        Init(output),
        ApiServer(),
        Agent(),
    };

    public static Option<string> Directory() => new("--dir")
    {
        Description = "The cluster's directory",
        DefaultValueFactory = _ => Environment.GetEnvironmentVariable("MESH_DIR") is { Length: > 0 } given ? given : HostDirectory.Default,
    };

    private static Command Init(TextWriter output)
    {
        var directory = Directory();
        var name = new Option<string>("--cluster-name") { Required = true, Description = "1 to 32 of a-z, 0-9 and -" };
        var id = new Option<uint>("--cluster-id") { Required = true, Description = "1 to 255, another in each cluster of the mesh" };
        var max = new Option<int>("--max-connected-clusters") { Description = "255 or 511, the same in the whole mesh", DefaultValueFactory = _ => 255 };
        var api = new Option<string>("--address") { Required = true, Description = "This machine's address, where peers reach the API server" };
        var ranges = new Option<string[]>("--node-cidr") { Required = true, Description = "Range of the nodes' addresses; may be repeated" };
        var nodes = new Option<string[]>("--node") { Required = true, Description = $"{HostNode.Form}; may be repeated" };
        var command = new Command("init", "Make the directory of a cluster: authority, cluster.json, its nodes.")
        {
            directory, name, id, max, api, ranges, nodes,
        };
        command.SetAction(parsed =>
        {
            if (!IPAddress.TryParse(parsed.GetValue(api), out var address))
                throw new CliException($"--address {parsed.GetValue(api)}: must be an address");
            var within = parsed.GetValue(ranges)!.Select(text => IpPrefix.TryParse(text, out var range) ? range
                : throw new CliException($"--node-cidr {text}: must be a range such as 172.30.1.0/24")).ToList();
            var here = new HostDirectory(parsed.GetValue(directory)!);
            var made = here.Init(parsed.GetValue(name)!, parsed.GetValue(id), parsed.GetValue(max), address, within,
                [.. parsed.GetValue(nodes)!.Select(HostNode.Parse)]);
            output.WriteLine(made
                ? $"{here.Root}: cluster {parsed.GetValue(name)}, ID {parsed.GetValue(id)}. Next: mesh host apiserver, mesh host agent --node NAME, "
                    + $"and objects as YAML in {here.Manifests}"
                : $"{here.Root}: cluster {parsed.GetValue(name)} was here; its nodes and addresses are as said now");
            return 0;
        });
        return command;
    }

    private static Command ApiServer()
    {
        var directory = Directory();
        var etcd = new Option<string?>("--etcd") { Description = "URLs of an etcd that runs elsewhere, separated by commas; without it, one of its own" };
        var command = new Command("apiserver", "Become this cluster's API server.") { directory, etcd };
        command.SetAction(parsed => Become(new HostDirectory(parsed.GetValue(directory)!).ApiServer(parsed.GetValue(etcd))));
        return command;
    }

    private static Command Agent()
    {
        var directory = Directory();
        var node = new Option<string>("--node") { Description = "Which of the cluster's nodes this machine is", DefaultValueFactory = _ => Dns.GetHostName() };
        var bpf = new Option<string>("--bpf-root")
        {
            Description = "Directory on a bpffs; below /sys/fs/bpf one is mounted when there is none",
            DefaultValueFactory = _ => $"{BpfMount.Usual}/mesh",
        };
        var cgroup = new Option<string?>("--cgroup-root")
        {
            Description = "cgroup2 directory whose processes reach services by their sockets; without it, pods only",
        };
        var command = new Command("agent", "Become the agent of a node.") { directory, node, bpf, cgroup };
        command.SetAction(parsed =>
        {
            var line = new HostDirectory(parsed.GetValue(directory)!).Agent(parsed.GetValue(node)!, parsed.GetValue(bpf)!, parsed.GetValue(cgroup));
            if (parsed.GetValue(bpf)!.StartsWith($"{BpfMount.Usual}/", StringComparison.Ordinal))
                BpfMount.Ensure(BpfMount.Usual);
            return Become(line);
        });
        return command;
    }

    private static int Become(IReadOnlyList<string> line)
    {
        LabStore.RequireRoot();
        Execution.Become(Execution.FindSibling(line[0]), line);
        return 1;
    }
}
