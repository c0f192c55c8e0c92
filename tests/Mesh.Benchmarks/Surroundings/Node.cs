using System.Globalization;
using Mesh.Datapath;
using Mesh.Model;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>
/// A node to measure on: an underlay device, a bpffs and a directory, in the namespaces this program was started in. Disposing it
/// leaves nothing; what a kill leaves goes with the namespaces, and the directory with tests/bench.sh.
/// </summary>
internal sealed class Node : IDisposable
{
    public const string Underlay = "172.30.0.1";
    public const string Gateway4 = "10.1.0.254";
    public const string Gateway6 = "fd00:1::fe";

    private const uint UnderlayMtu = 1450;

    private readonly List<string> _cgroups = [];

    public Node()
    {
        Directory = System.IO.Directory.CreateTempSubdirectory("mesh-bench-").FullName;
        System.IO.Directory.CreateDirectory(BpfRoot);
        Command.Run("mount", "-t", "bpf", "bpf", BpfRoot);
        Shell($"ip link set lo up; ip link add uplink type veth peer name wire; ip link set uplink mtu {UnderlayMtu} up; "
            + $"ip link set wire up; ip addr add {Underlay}/24 dev uplink");
    }

    /// <summary>For files of the benchmark.</summary>
    public string Directory { get; }

    public string BpfRoot => Path.Combine(Directory, "bpf");

    public DatapathOptions DatapathOptions => new()
    {
        BpfRoot = BpfRoot,
        ClusterId = 1,
        IdentityNumbering = IdentityNumbering.Max255,
        NodeName = "tokyo-1",
        UnderlayAddress = IpAddr.Parse(Underlay),
        GatewayAddresses = [IpAddr.Parse(Gateway4), IpAddr.Parse(Gateway6)],
    };

    public static string Shell(string script) => Command.Run("/bin/sh", "-ec", script);

    /// <summary>A cgroup2 directory of our own, removed with the node.</summary>
    public string AddCgroup(string name)
    {
        var path = $"{Cgroups.Mount}/mesh-bench-{Environment.ProcessId.ToString(CultureInfo.InvariantCulture)}-{name}";
        System.IO.Directory.CreateDirectory(path);
        _cgroups.Add(path);
        return path;
    }

    public void Dispose()
    {
        foreach (var device in (string[])["mesh_vxlan", "mesh_host", "uplink"])
            if (System.IO.Directory.Exists($"/proc/sys/net/ipv4/conf/{device}"))
                Command.Run("ip", "link", "del", device);
        // Pins of cgroup links go with it, and they hold no cgroup.
        Command.Run("umount", BpfRoot);
        foreach (var cgroup in _cgroups)
            System.IO.Directory.Delete(cgroup);
        System.IO.Directory.Delete(Directory, recursive: true);
    }
}

/// <summary>Where cgroup2 is, and where this process is in it.</summary>
internal static class Cgroups
{
    public static string Mount { get; } =
        File.ReadLines("/proc/mounts").Select(line => line.Split(' ')).First(fields => fields[2] == "cgroup2")[1];

    public static string Current =>
        Mount + File.ReadLines("/proc/self/cgroup").First(line => line.StartsWith("0::", StringComparison.Ordinal))[3..];

    public static void Join(string cgroup) =>
        File.WriteAllText($"{cgroup}/cgroup.procs", Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
}
