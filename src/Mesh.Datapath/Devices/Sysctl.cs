using System.Globalization;

namespace Mesh.Datapath.Devices;

/// <summary>Kernel settings of the calling thread's network namespace, under sys/net of a procfs. Written only when they differ, so that a
/// read-only /proc with right values is no error.</summary>
internal static class Sysctl
{
    /// <summary>Where the kernel's settings are. One for the process: there is one kernel. In a container /proc/sys cannot be written, and
    /// the node's is mounted elsewhere.</summary>
    internal static string Procfs { get; set; } = "/proc";

    private static string Root => $"{Procfs}/sys/net";

    /// <summary>False on a kernel without IPv6.</summary>
    internal static bool HasIPv6 => Directory.Exists($"{Root}/ipv6");

    /// <summary>Forwarding for pods that leave the mesh. The reverse path filter compares a pod's packets with routes that point to
    /// mesh_host and would drop them: the highest of "all" and the device counts, so it must be off in both.</summary>
    internal static void PrepareNode()
    {
        Set("ipv4/ip_forward", "1");
        Set("ipv4/conf/all/rp_filter", "0");
        Set("ipv4/conf/default/rp_filter", "0");
        if (HasIPv6)
            Set("ipv6/conf/all/forwarding", "1");
    }

    /// <param name="isBpfSide">No program of the host speaks over it: IPv6's own chatter is switched off.</param>
    internal static void PrepareDevice(string device, bool isBpfSide)
    {
        Set($"ipv4/conf/{device}/rp_filter", "0");
        Set($"ipv4/conf/{device}/forwarding", "1");
        if (!HasIPv6)
            return;
        Set($"ipv6/conf/{device}/disable_ipv6", isBpfSide ? "1" : "0");
        if (!isBpfSide)
            Set($"ipv6/conf/{device}/accept_dad", "0");
    }

    /// <summary>A pod's device: see <see cref="PrepareNode"/>; devices made before the node was prepared keep the old default.</summary>
    internal static void PreparePodDevice(string device) => Set($"ipv4/conf/{device}/rp_filter", "0");

    /// <summary>The ports that the stack hands out, both ends included.</summary>
    internal static (int Low, int High) LocalPorts()
    {
        var path = $"{Root}/ipv4/ip_local_port_range";
        try
        {
            var words = File.ReadAllText(path).Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            return (int.Parse(words[0], CultureInfo.InvariantCulture), int.Parse(words[1], CultureInfo.InvariantCulture));
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new DatapathException($"cannot read {path}: {exception.Message}", exception);
        }
    }

    private static void Set(string key, string value)
    {
        var path = $"{Root}/{key}";
        try
        {
            if (File.ReadAllText(path).Trim() != value)
                File.WriteAllText(path, value);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new DatapathException($"cannot set {path} to {value}: {exception.Message}", exception);
        }
    }
}
