using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using Mesh.Benchmarks.Surroundings;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A pod's network as the container runtime sees it: from the start of the plugin's process to its end, with a real agent, pod after pod on
/// one node. ADD is over when the kernel forwards for the pod. Beside it what a plugin would need that only calls the `ip` program, once per
/// namespace, for the same device, addresses and routes, and asks nobody; and beside the plugin's start the start of `true`.
/// </summary>
internal static class PodNetwork
{
    private const int Pods = 200;
    private const int WiredByProgram = 50;
    private const double AimAdd = 30_000;
    private const double AimStart = 15_000;

    public static async Task RunAsync(Report report, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var agent = AgentProcess.Start(node, [], Mesh.Model.IdentityNumbering.Max255);
        var plugin = Command.PathOf("mesh-cni");
        var socket = Path.Combine(node.Directory, "agent.sock");
        await agent.UntilAsync(() => Call(plugin, socket, "STATUS", 0, null).ExitCode == 0, "the agent ready for pods", cancellation);

        var spaces = Enumerable.Range(0, Pods + WiredByProgram).Select(_ => new NetworkNamespace()).ToList();
        try
        {
            var start = Measure(Pods, _ => Call(plugin, socket, "VERSION", 0, null));
            var nothing = Measure(Pods, _ => Run(new ProcessStartInfo("/bin/true"), ""));
            var byProgram = Measure(WiredByProgram, i => WireByProgram(spaces[Pods + i], i));
            var add = Measure(Pods, i => Call(plugin, socket, "ADD", i, spaces[i]));
            spaces[Pods - 1].Shell("ping", "-c", "1", "-W", "2", Node.Gateway4);
            var again = Measure(Pods, i => Call(plugin, socket, "STATUS", i, null));
            var delete = Measure(Pods, i => Call(plugin, socket, "DEL", i, spaces[i]));

            report.Add("plugin start-up (VERSION)", start.Milliseconds(), $"/bin/true: {nothing.Milliseconds()}", start.P50 / nothing.P50,
                "p50 ≤ 15 ms", start.P50 <= AimStart);
            report.Add($"CNI ADD, {Pods} pods on a node", add.Milliseconds(), $"two `ip -batch`: {byProgram.Milliseconds()}", add.P50 / byProgram.P50,
                "p50 and p99 ≤ 30 ms", add.P50 <= AimAdd && add.P99 <= AimAdd);
            report.Add("CNI STATUS", again.Milliseconds());
            report.Add("CNI DEL", delete.Milliseconds());
        }
        finally
        {
            foreach (var space in spaces)
                space.Dispose();
        }
    }

    private static Sample Measure(int times, Func<int, (int ExitCode, string Output)> work)
    {
        var microseconds = new double[times];
        for (var i = 0; i < times; i++)
        {
            var clock = Stopwatch.StartNew();
            var (code, output) = work(i);
            microseconds[i] = clock.Elapsed.TotalMicroseconds;
            if (code != 0)
                throw new InvalidOperationException($"call {i}: exit code {code}: {output}");
        }
        return new Sample(microseconds);
    }

    private static (int ExitCode, string Output) Call(string plugin, string socket, string command, int pod, NetworkNamespace? space)
    {
        var info = new ProcessStartInfo(plugin);
        var container = string.Create(CultureInfo.InvariantCulture, $"container-{pod}");
        info.Environment["CNI_COMMAND"] = command;
        info.Environment["CNI_CONTAINERID"] = container;
        info.Environment["CNI_IFNAME"] = "eth0";
        info.Environment["CNI_NETNS"] = space is null ? "" : $"/run/netns/{space.Name}";
        info.Environment["CNI_ARGS"] = $"K8S_POD_NAMESPACE=default;K8S_POD_NAME={container}";
        return Run(info, $$"""{"cniVersion":"1.0.0","name":"cilium","type":"cilium-cni","agent-socket":"{{JsonEncodedText.Encode(socket)}}"}""");
    }

    private static (int ExitCode, string Output) WireByProgram(NetworkNamespace space, int number)
    {
        var outside = Run(new ProcessStartInfo("ip", ["-batch", "-"]),
            $"link add name peer{number} mtu 1400 type veth peer name eth0 mtu 1400 netns {space.Name}\nlink set peer{number} up\n");
        if (outside.ExitCode != 0)
            return outside;
        var inside = Run(new ProcessStartInfo("ip", ["-n", space.Name, "-batch", "-"]),
            "link set eth0 up\naddr add 10.9.0.2/32 dev eth0\nroute add 10.9.0.1/32 dev eth0 scope link\nroute add default via 10.9.0.1 dev eth0\n");
        return inside;
    }

    private static (int ExitCode, string Output) Run(ProcessStartInfo info, string input)
    {
        info.RedirectStandardInput = true;
        info.RedirectStandardOutput = true;
        using var process = Process.Start(info)!;
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output);
    }
}
