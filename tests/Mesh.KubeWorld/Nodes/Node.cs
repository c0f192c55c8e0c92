using System.Diagnostics;
using System.Text.Json.Nodes;
using Mesh.TestKit;

namespace Mesh.KubeWorld.Nodes;

/// <summary>
/// A machine of a cluster: a network namespace with one underlay device, a file tree that stands for its host paths, a mount namespace in which
/// mounts below that tree are passed on as on a host, and a cgroup. Its containers begin there and end with it.
/// </summary>
internal sealed class Node : IDisposable
{
    private readonly Process _holder;

    /// <param name="address">IPv4 of the underlay, /16.</param>
    /// <param name="cgroup">A cgroup2 directory that the node makes.</param>
    public Node(string name, string address, string directory, string cgroup, NetworkNamespace network)
    {
        (Name, Address, Directory, Cgroup, Network) = (name, address, directory, cgroup, network);
        foreach (var path in new[] { "etc/cni/net.d", "opt/cni/bin", "var/run/netns", "sys/fs/bpf", "var/log", "volumes" })
            System.IO.Directory.CreateDirectory($"{directory}/{path}");
        System.IO.Directory.CreateDirectory(cgroup);
        network.Shell("sh", "-ec", "for key in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 > /proc/sys/net/$key; done; "
            + "for key in all default; do echo 0 > /proc/sys/net/ipv4/conf/$key/rp_filter; echo 0 > /proc/sys/net/ipv6/conf/$key/accept_dad; done");
        // Shared, so that a container with mountPropagation: Bidirectional mounts for the whole node, as kubelets have it.
        // The host's root, for whoever mounts that: the kernel's own trees and the node's cgroup are in it.
        var script = $"mount --bind '{directory}' '{directory}'; mount --make-shared '{directory}'; cd '{directory}'; "
            + "mkdir -p proc boot sys/kernel/btf sys/fs/cgroup; mount --rbind /proc proc; mount --bind /boot boot; "
            + "mount --bind /sys/kernel/btf sys/kernel/btf; "
            + $"mount --bind '{cgroup}' sys/fs/cgroup; echo ready; exec sleep infinity";
        var start = new ProcessStartInfo("nsenter",
            [$"--net=/run/netns/{network.Name}", "unshare", "--mount", "--propagation", "private", "sh", "-ec", script])
        { RedirectStandardOutput = true };
        _holder = ChildThread.Start(start);
        if (_holder.StandardOutput.ReadLine() != "ready")
            throw new InvalidOperationException($"node {name}: its mount namespace could not be made");
    }

    public string Name { get; }

    public string Address { get; }

    /// <summary>Stands for the host's root.</summary>
    public string Directory { get; }

    public string Cgroup { get; }

    public NetworkNamespace Network { get; }

    /// <summary>A capability that no container gets here; null for none.</summary>
    public string? Withheld { get; init; }

    /// <summary>Process whose namespaces are the node's.</summary>
    public int Holder => _holder.Id;

    /// <summary>Where a host path of the node is on this machine. The kernel's own trees are the machine's.</summary>
    public string HostPath(string path) => path switch
    {
        "/sys/fs/cgroup" or "/sys/fs/cgroup/unified" => Cgroup,
        _ when path.StartsWith("/sys/fs/bpf", StringComparison.Ordinal) => Directory + path,
        _ when path.StartsWith("/proc", StringComparison.Ordinal) || path.StartsWith("/sys", StringComparison.Ordinal)
            || path.StartsWith("/lib/modules", StringComparison.Ordinal) || path == "/boot" => path,
        // Debian's /var/run is /run.
        _ when path.StartsWith("/run/", StringComparison.Ordinal) => $"{Directory}/var{path}",
        _ => Directory + path.TrimEnd('/'),
    };

    /// <summary>A command in the node's namespaces; the words behind it.</summary>
    public IReadOnlyList<string> Enter(string network) =>
        // Twice: a namespace's file is opened before its opener moves, and only the node sees it.
        ["nsenter", $"--target={Holder}", "--mount", "nsenter", $"--net={network}", "unshare", "--mount", "--propagation", "unchanged"];

    public string NetworkPath => $"/run/netns/{Network.Name}";

    public JsonObject Object(string providerId) => new()
    {
        ["metadata"] = new JsonObject
        {
            ["name"] = Name,
            ["labels"] = new JsonObject
            {
                ["kubernetes.io/hostname"] = Name,
                ["kubernetes.io/os"] = "linux",
                ["kubernetes.io/arch"] = "amd64",
            },
        },
        ["spec"] = new JsonObject
        {
            ["providerID"] = providerId,
            ["taints"] = new JsonArray(new JsonObject { ["key"] = "node.kubernetes.io/not-ready", ["effect"] = "NoSchedule" }),
        },
    };

    public void Dispose()
    {
        _holder.Kill();
        _holder.WaitForExit();
        _holder.Dispose();
    }
}
