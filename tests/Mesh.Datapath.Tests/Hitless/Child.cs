using System.Diagnostics;
using System.Globalization;
using System.Net;
using Mesh.Datapath.Loader;
using Mesh.TestKit;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>This program as a child of its tests. It says "ready" when it is; it goes on until its standard input ends, or it is killed.</summary>
internal sealed class Child : IDisposable
{
    internal const string Flag = "--child";
    internal const string Ready = "ready";
    internal const string Started = "started";
    internal const string Settled = "settled";
    private readonly Process _process;

    private Child(string[] arguments) =>
        _process = ChildThread.Start(new ProcessStartInfo(Environment.ProcessPath!, [Flag, .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        });

    /// <summary>Clients whose sockets belong to a cgroup.</summary>
    internal static Child Clients(string space, string cgroup, string service, int longOnes, int perSecond) =>
        new(["clients", space, cgroup, service, $"{longOnes}", $"{perSecond}"]);

    /// <summary>The agent of a node, of another build where there are objects of one.</summary>
    internal static Child Agent(LiveNode node, LiveNode other, LayoutVariant? variant) => new(["agent", node.Space.Name, node.Pod.Name, node.BpfRoot,
        node.Cgroup!, other.Space.Name, other.Pod.Name, other.BpfRoot, variant?.Objects ?? ""]);

    /// <summary>An agent's writers, which go from one intent to the other and back.</summary>
    internal static Child Writers(PinDirectory pins) => new(["writers", pins.Root]);

    internal void WaitUntilReady() => WaitFor(Ready);

    /// <summary>Until it says so.</summary>
    internal void WaitFor(string word)
    {
        string? line;
        while ((line = _process.StandardOutput.ReadLine()) != word)
            Assert.True(line is not null, $"ended before it was {word}");
    }

    /// <summary>As nobody can prevent.</summary>
    internal void Kill()
    {
        _process.Kill();
        _process.WaitForExit();
    }

    /// <summary>Ends it, and gives back what it had to say.</summary>
    internal string[] End()
    {
        _process.StandardInput.Close();
        var said = _process.StandardOutput.ReadToEnd();
        _process.WaitForExit();
        return said.Split('\n', StringSplitOptions.RemoveEmptyEntries);
    }

    public void Dispose()
    {
        if (!_process.HasExited)
            Kill();
        _process.Dispose();
    }

    internal static int Run(string[] arguments)
    {
        switch (arguments)
        {
            case ["clients", var space, var cgroup, var service, var longOnes, var perSecond]:
                RunClients(space, cgroup, IPEndPoint.Parse(service), Number(longOnes), Number(perSecond));
                return 0;
            case ["agent", var space, var pod, var root, var cgroup, var otherSpace, var otherPod, var otherRoot, var objects]:
                RunAgent(new LiveNode(1, space, pod, root, policy: true)
                {
                    Cgroup = cgroup,
                    Uplink = HitlessLoadTests.Uplink,
                    Variant = objects.Length > 0 ? new LayoutVariant { Objects = objects } : null,
                }, new LiveNode(2, otherSpace, otherPod, otherRoot));
                return 0;
            case ["writers", var root]:
                RunWriters(new PinDirectory(root));
                return 0;
            default:
                Console.Error.WriteLine($"no such child: {string.Join(' ', arguments)}");
                return 2;
        }
    }

    private static int Number(string text) => int.Parse(text, CultureInfo.InvariantCulture);

    private static void RunClients(string space, string cgroup, IPEndPoint service, int longOnes, int perSecond)
    {
        File.WriteAllText($"{cgroup}/cgroup.procs", Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
        var run = NetworkNamespace.Existing(space);
        using var traffic = new Traffic(service, run.Run, longOnes, perSecond);
        Console.WriteLine(Ready);
        Console.In.ReadToEnd();
        Console.WriteLine($"{traffic.Connections} {traffic.Exchanges} {traffic.Slowest.TotalMilliseconds:F0}");
        foreach (var fault in traffic.Faults)
            Console.WriteLine(fault);
    }

    /// <summary>Starts, follows its tables, and from then on one service changes with every turn.</summary>
    private static void RunAgent(LiveNode node, LiveNode other)
    {
        Console.WriteLine(Ready);
        node.Restart();
        node.Want(node, other);
        HitlessLoadTests.Want(node, turn: 0);
        HitlessLoadTests.Judge(node);
        Console.WriteLine(Started);
        node.Settle();
        Console.WriteLine(Settled);
        for (var turn = 1; ; turn++)
        {
            HitlessLoadTests.Want(node, turn);
            node.Settle();
        }
    }

    private static void RunWriters(PinDirectory pins)
    {
        using var writers = new Writers(pins);
        writers.Follow(Intent.None, Intent.Before);
        writers.Prune(Intent.Before);
        Console.WriteLine(Ready);
        while (true)
        {
            writers.Follow(Intent.Before, Intent.After);
            writers.Prune(Intent.After);
            writers.Follow(Intent.After, Intent.Before);
            writers.Prune(Intent.Before);
        }
    }
}
