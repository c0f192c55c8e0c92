using System.CommandLine;
using Mesh.Datapath;
using Mesh.Install.Applying;
using Mesh.Install.Charts;
using Mesh.Install.Detecting;
using Mesh.Install.Preflight;
using Mesh.Install.Values;

namespace Mesh.Cli.Commands.Install;

/// <summary>`mesh preflight`: can these nodes run the mesh? And `mesh preflight node`, what it runs on each of them.</summary>
internal static class PreflightCommand
{
    /// <summary>Some node cannot; as with `clustermesh status`, 1 is for what could not be asked.</summary>
    private const int UnfitCode = 2;

    public static Command Build(TextWriter output)
    {
        var options = new InstallOptions();
        var format = Format();
        var verbose = new Option<bool>("--verbose", "-v") { Description = "Also what is well" };
        var command = new Command("preflight", "Look at every node of a cluster, and change nothing.") { format, verbose, Node(output) };
        options.AddCluster(command);
        options.AddValues(command);
        options.AddWait(command);
        command.SetAction(async (parsed, cancel) =>
        {
            using var client = options.Connect(parsed);
            var given = options.Values(parsed).Plain();
            ValueCheck.ThrowIfWrong(Chart.OfThisProgram, given);
            var cluster = await ClusterFacts.ReadAsync(client, cancel);
            foreach (var pick in Choice.Pick(cluster, given, client.Configuration.Context))
                given.Set(pick.Name, pick.Value);
            var values = Chart.OfThisProgram.Values.With(given);
            var ns = options.Target(parsed).Namespace;
            var json = parsed.GetValue(format) == "json";
            // JSON stays alone on stdout.
            var narrator = new Narrator(line =>
            {
                if (!json)
                    output.WriteLine(line);
            });
            var verdicts = await ClusterPreflight.RunAsync(client, ns, ClusterPreflight.Nodes(cluster.Nodes, values), values, narrator,
                options.Wait(parsed), Chart.OfThisProgram.AppVersion, cancel);
            output.Write(json ? PreflightText.Json(verdicts) + "\n" : PreflightText.Format(verdicts, parsed.GetValue(verbose)));
            return verdicts.All(verdict => verdict.IsFit) ? 0 : UnfitCode;
        });
        return command;
    }

    private static Command Node(TextWriter output)
    {
        var format = Format();
        var defaults = new NodeQuestions();
        var root = Text("--host-root", "Where the node's own files are", defaults.HostRoot);
        var port = new Option<ushort>("--tunnel-port") { Description = "UDP port of the tunnel", DefaultValueFactory = _ => defaults.TunnelPort };
        var bpf = Text("--bpf-root", "Where the BPF file system is to be", defaults.BpfRoot);
        var mounts = Switch("--mounts-bpf", "Whether it will be mounted where it is not", defaults.MountsBpf);
        var cgroup = Text("--cgroup-root", "Where cgroup v2 is to be", defaults.CgroupRoot);
        var cni = Text("--cni-conf-path", $"Directory of CNI configurations; {NodeQuestions.None} when none will be written", defaults.CniConfPath!);
        var exclusive = Switch("--cni-exclusive", "Whether other configurations will be renamed", defaults.CniExclusive);
        var chained = Text("--cni-chained-plugin", "Path of the plugin that is called after ours, or " + NodeQuestions.None, NodeQuestions.None);
        var replaces = Switch("--replaces-kube-proxy", "Whether kube-proxy is expected not to run", defaults.ReplacesKubeProxy);
        var command = new Command("node", "Look at the node that this runs on.")
        {
            format, root, port, bpf, mounts, cgroup, cni, exclusive, chained, replaces,
        };
        command.SetAction(parsed =>
        {
            var report = new NodeProbe(Questions(parsed), NodeDatapath.TryLoad, NodeDatapath.TryMasquerade).Run();
            if (parsed.GetValue(format) == "json")
            {
                // Exit code 0: the report was made, whatever it says.
                output.WriteLine(report.ToJson());
                return 0;
            }
            output.Write(PreflightText.Format([new NodeVerdict(Environment.MachineName, report)], all: true));
            return report.IsFit ? 0 : UnfitCode;
        });
        return command;
    }

    /// <summary>What `preflight node` was asked, by whoever ran it there.</summary>
    internal static NodeQuestions Questions(ParseResult parsed) => new()
    {
        HostRoot = parsed.GetValue<string>("--host-root")!,
        TunnelPort = parsed.GetValue<ushort>("--tunnel-port"),
        BpfRoot = parsed.GetValue<string>("--bpf-root")!,
        MountsBpf = parsed.GetValue<bool>("--mounts-bpf"),
        CgroupRoot = parsed.GetValue<string>("--cgroup-root")!,
        CniConfPath = OrNone(parsed.GetValue<string>("--cni-conf-path")),
        CniExclusive = parsed.GetValue<bool>("--cni-exclusive"),
        ChainedPlugin = OrNone(parsed.GetValue<string>("--cni-chained-plugin")),
        ReplacesKubeProxy = parsed.GetValue<bool>("--replaces-kube-proxy"),
    };

    private static string? OrNone(string? path) => path == NodeQuestions.None ? null : path;

    private static Option<string> Format()
    {
        var format = new Option<string>("--output", "-o") { Description = "text or json", DefaultValueFactory = _ => "text" };
        format.AcceptOnlyFromAmong("text", "json");
        return format;
    }

    private static Option<string> Text(string name, string description, string byDefault) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };

    private static Option<bool> Switch(string name, string description, bool byDefault) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
