using System.CommandLine;
using System.Diagnostics;
using Mesh.Datapath;
using Mesh.Install.Preflight;

namespace Mesh.Cli.Commands.Install;

/// <summary>`mesh node mount-bpf-fs` and `mesh node cleanup`: what our containers do on a node beside running agents.</summary>
internal static class NodeCommands
{
    private const string Plugin = "/usr/bin/mesh-cni";

    public static Command BuildMount(TextWriter output)
    {
        var path = new Argument<string>("PATH") { DefaultValueFactory = _ => "/sys/fs/bpf" };
        var command = new Command("mount-bpf-fs", "Mount the BPF file system where it is not mounted.") { path };
        command.SetAction(parsed =>
        {
            var at = parsed.GetValue(path)!;
            output.WriteLine(BpfFileSystem.Mount(at) ? $"mounted the BPF file system at {at}" : $"the BPF file system is mounted at {at}");
            return 0;
        });
        return command;
    }

    public static Command BuildCleanup(TextWriter output)
    {
        var bpf = Text("--bpf-root", "As the agent's", "/sys/fs/bpf/mesh");
        var bin = Text("--cni-bin-dir", "Where the plugin is", "/opt/cni/bin");
        var conf = Text("--cni-conf-dir", "Where its configuration is", "/etc/cni/net.d");
        var run = Text("--run-dir", "The agent's socket and state", "/var/run/cilium");
        var command = new Command("cleanup", "Remove from this node what agents leave on purpose; pods of the mesh lose their network.")
        {
            bpf, bin, conf, run,
        };
        command.SetAction(async (parsed, cancel) =>
        {
            // The configuration first: no pod is to be given a network that is being taken away.
            if (File.Exists(Plugin))
                await RunPluginAsync(parsed.GetValue(bin)!, parsed.GetValue(conf)!, output, cancel);
            foreach (var removed in NodeDatapath.Remove(parsed.GetValue(bpf)!))
                output.WriteLine($"removed {removed}");
            // The directory itself may be a mount.
            var directory = parsed.GetValue(run)!;
            if (Directory.Exists(directory))
            {
                foreach (var entry in Directory.EnumerateFileSystemEntries(directory))
                {
                    if (Directory.Exists(entry))
                        Directory.Delete(entry, recursive: true);
                    else
                        File.Delete(entry);
                    output.WriteLine($"removed {entry}");
                }
            }
            return 0;
        });
        return command;
    }

    private static async Task RunPluginAsync(string bin, string conf, TextWriter output, CancellationToken cancel)
    {
        using var process = Process.Start(new ProcessStartInfo(Plugin, ["uninstall", "--cni-bin-dir", bin, "--cni-conf-dir", conf])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        var (said, failed) = (process.StandardOutput.ReadToEndAsync(cancel), process.StandardError.ReadToEndAsync(cancel));
        await process.WaitForExitAsync(cancel);
        output.Write(await said);
        if (process.ExitCode != 0)
            throw new CliException($"{Plugin} uninstall failed: {(await failed).Trim()}");
    }

    private static Option<string> Text(string name, string description, string byDefault) =>
        new(name) { Description = description, DefaultValueFactory = _ => byDefault };
}
