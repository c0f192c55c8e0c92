using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Mesh.Install.Preflight;

/// <summary>
/// Looks at the node it runs on, from inside a container with the node's root at <see cref="NodeQuestions.HostRoot"/> and the node's network,
/// or on the node itself. It changes nothing: what it tries, it tries among mounts of its own.
/// </summary>
/// <param name="load">Loads all programs with pins below the given directory of a bpffs and lets go of them; throws what the kernel said.
/// Null to leave this out.</param>
/// <param name="masquerade">Has the kernel judge the rules that masquerade pods, keeps none, and says why it refused; null when it did not. Null to
/// leave this out.</param>
public sealed class NodeProbe(NodeQuestions questions, Action<string>? load, Func<string?>? masquerade = null)
{
    /// <summary>Iterators over sockets and CAP_BPF came with 5.8; what is older than 5.10 nobody maintains.</summary>
    private static readonly Version OldestKernel = new(5, 10);

    /// <summary>From this on programs are attached to devices by links.</summary>
    private static readonly Version TcxKernel = new(6, 6);

    /// <summary>Metrics and health, as kube-proxy opens them by default on the node.</summary>
    private static readonly int[] KubeProxyPorts = [10249, 10256];

    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(2);

    /// <summary>Devices that tell of another network plugin at work, and whose they are.</summary>
    private static readonly (string Prefix, string Owner)[] OtherDevices =
    [
        ("flannel.", "flannel"), ("cni0", "a bridge plugin such as flannel's"), ("vxlan.calico", "Calico"), ("cali", "Calico"), ("tunl0", "Calico"),
        ("weave", "Weave Net"), ("antrea-", "Antrea"), ("ovn-k8s", "OVN-Kubernetes"), ("kube-ipvs0", "kube-proxy in IPVS mode"), ("eni", "the AWS VPC plugin"),
    ];

    public NodeReport Run()
    {
        // What `uname -r` prints.
        var kernel = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        return new NodeReport(kernel, RuntimeInformation.OSArchitecture.ToString().ToLowerInvariant(),
            [Kernel(kernel), Btf(), BpfFs(), Programs(), Masquerading(), Cgroup(), Tunnel(), OtherMesh(), Cni(), KubeProxy()]);
    }

    internal static NodeCheck Kernel(string release)
    {
        var numbers = release.Split('.', '-', '+');
        if (numbers.Length < 2 || !int.TryParse(numbers[0], CultureInfo.InvariantCulture, out var major)
            || !int.TryParse(numbers[1], CultureInfo.InvariantCulture, out var minor))
            return new("kernel", CheckResult.Warning, $"its release '{release}' says no version");
        var version = new Version(major, minor);
        if (version < OldestKernel)
            return new("kernel", CheckResult.Fault, release, $"upgrade the node's kernel to {OldestKernel} or later");
        return new("kernel", CheckResult.Ok, version < TcxKernel ? $"{release} (no tcx: legacy filters are used)" : release);
    }

    private NodeCheck Btf() => File.Exists(Host("/sys/kernel/btf/vmlinux"))
        ? new("BTF", CheckResult.Ok, "/sys/kernel/btf/vmlinux")
        : new("BTF", CheckResult.Fault, "the kernel does not describe its types: /sys/kernel/btf/vmlinux is missing",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as all current distributions have");

    private NodeCheck BpfFs()
    {
        var path = questions.BpfRoot;
        switch (HostFiles.TypeOf(Host(path)))
        {
            case HostFiles.BpfMagic:
                return new("bpffs", CheckResult.Ok, $"mounted at {path}");
            case null when path.StartsWith("/sys/", StringComparison.Ordinal):
                return new("bpffs", CheckResult.Fault, $"there is no directory {path}: the kernel has no BPF file system, or sysfs is not mounted there",
                    $"mount it on the node (mount -t bpf bpf {path}), or set bpf.root to a directory that exists");
        }
        if (File.Exists(Host(path)))
            return new("bpffs", CheckResult.Fault, $"not mounted at {path}, and it cannot be: that is a file",
                $"put a directory in its place (on the node: rm {path} && mkdir {path}), or set bpf.root to one that exists");
        if (!questions.MountsBpf)
            return new("bpffs", CheckResult.Fault, $"not mounted at {path}", $"mount -t bpf bpf {path} on the node, or bpf.autoMount.enabled=true");
        try
        {
            InOwnBpf(_ => { });
            return new("bpffs", CheckResult.Ok, $"not mounted at {path} yet; it can be");
        }
        catch (InstallException e)
        {
            return new("bpffs", CheckResult.Fault, $"not mounted at {path}, and it cannot be: {e.Message}",
                $"mount it on the node (mount -t bpf bpf {path}; for good: a line `bpf {path} bpf defaults 0 0` in /etc/fstab), "
                + "or allow this container to");
        }
    }

    private NodeCheck Programs()
    {
        if (load is null)
            return new("programs", CheckResult.Warning, "not tried");
        var tried = false;
        try
        {
            InOwnBpf(directory =>
            {
                tried = true;
                load(directory);
            });
            return new("programs", CheckResult.Ok, "the kernel takes all of them");
        }
        catch (InstallException e) when (tried)
        {
            return new("programs", CheckResult.Fault, $"the kernel does not take them: {e.Message.Split('\n')[0]}",
                "a kernel of 5.10 or later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, CONFIG_NET_CLS_BPF is needed, and leave to load programs");
        }
        catch (InstallException)
        {
            // Why is said of the file system.
            return new("programs", CheckResult.Warning, "not tried: there is no BPF file system to pin them on");
        }
    }

    /// <summary>No fault: the mesh runs without, and where the network knows the way to pods nobody misses it.</summary>
    private NodeCheck Masquerading()
    {
        const string name = "masquerading";
        if (masquerade is null)
            return new(name, CheckResult.Warning, "not tried");
        return masquerade() is not { } refused
            ? new(name, CheckResult.Ok, "the kernel takes its rules")
            : new(name, CheckResult.Warning, refused,
                "without it pods reach only what knows the way to them: mend it, or set enableIPv4Masquerade=false and enableIPv6Masquerade=false");
    }

    /// <summary>Among mounts of our own, on a BPF file system of our own.</summary>
    private static void InOwnBpf(Action<string> action) => HostFiles.WithOwnMounts(() =>
    {
        var directory = Directory.CreateTempSubdirectory("mesh-preflight-").FullName;
        try
        {
            HostFiles.MountBpf(directory);
            action(directory);
        }
        finally
        {
            // Its mount ends with the thread; the directory itself can go where nothing is mounted on it.
            HostFiles.Detach(directory);
            Directory.Delete(directory);
        }
    });

    private NodeCheck Cgroup()
    {
        var path = questions.CgroupRoot;
        if (HostFiles.TypeOf(Host(path)) == HostFiles.Cgroup2Magic)
            return new("cgroup v2", CheckResult.Ok, $"mounted at {path}");
        foreach (var other in new[] { "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/run/cilium/cgroupv2" })
        {
            if (HostFiles.TypeOf(Host(other)) == HostFiles.Cgroup2Magic)
                return new("cgroup v2", CheckResult.Fault, $"not at {path}, but at {other}", $"set cgroup.hostRoot={other}");
        }
        return new("cgroup v2", CheckResult.Fault, $"not mounted at {path}",
            "boot the node with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none DIRECTORY and set cgroup.hostRoot");
    }

    private NodeCheck Tunnel()
    {
        var port = questions.TunnelPort;
        var name = $"UDP {port}";
        try
        {
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(IPAddress.Any, port));
            return new(name, CheckResult.Ok, "free");
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            var tunnels = Devices().Where(device => device.StartsWith("mesh_vxlan", StringComparison.Ordinal)
                || device.Contains("vxlan", StringComparison.Ordinal) || device.StartsWith("flannel.", StringComparison.Ordinal)).ToList();
            if (tunnels.Contains("mesh_vxlan"))
                return new(name, CheckResult.Ok, "in use by mesh_vxlan, our own device");
            var owner = tunnels.Count > 0 ? $"in use, it seems by the device {string.Join(", ", tunnels)}" : "in use by some program";
            return new(name, CheckResult.Fault, owner, "remove that, or choose another port for the whole mesh: tunnelPort");
        }
        catch (SocketException e)
        {
            return new(name, CheckResult.Warning, $"could not be tried: {e.Message}");
        }
    }

    private NodeCheck OtherMesh()
    {
        var devices = Devices();
        if (devices.Contains("cilium_host") || Directory.Exists(Path.Combine(Host(questions.BpfRoot), "tc/globals")) && devices.Contains("cilium_net"))
            return new("other plugins", CheckResult.Fault, "Cilium runs on this node, or did: device cilium_host",
                "uninstall Cilium and remove its devices (cilium-dbg post-uninstall-cleanup -f), or drain and reboot the node");
        var others = OtherDevices.Where(other => devices.Any(device => device.StartsWith(other.Prefix, StringComparison.Ordinal)))
            .Select(other => other.Owner).Distinct().ToList();
        return others.Count == 0
            ? new("other plugins", CheckResult.Ok, "no devices of any")
            : new("other plugins", CheckResult.Warning, $"devices of {string.Join(" and ", others)}",
                "pods that run keep their old network until they are restarted");
    }

    private NodeCheck Cni()
    {
        const string ours = "05-cilium.conflist";
        if (questions.CniConfPath is not { } path)
            return new("CNI", CheckResult.Ok, "not ours to configure (cni.install=false)");
        if (questions.ChainedPlugin is { } chained && !File.Exists(Host(chained)))
            return new("CNI", CheckResult.Fault, $"there is no plugin {chained}: no pod would get a network",
                "put it there (containernetworking-plugins), or set cni.chainingMode=none");
        var directory = Host(path);
        var others = Directory.Exists(directory)
            ? Directory.EnumerateFiles(directory).Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)
                .Where(file => Path.GetExtension(file) is ".conf" or ".conflist" or ".json" && file != ours).ToList()
            : [];
        if (others.Count == 0)
            return new("CNI", CheckResult.Ok, $"no other configuration in {path}");
        var names = string.Join(", ", others);
        if (questions.CniExclusive)
            return new("CNI", CheckResult.Warning, $"{names} in {path} will be renamed to *.cilium_bak", "cni.exclusive=false leaves them");
        return string.CompareOrdinal(others[0], ours) < 0
            ? new("CNI", CheckResult.Fault, $"{others[0]} in {path} comes before {ours}: the container runtime would go on using it",
                "remove or rename it, or set cni.exclusive=true")
            : new("CNI", CheckResult.Ok, $"{names} in {path} come after {ours}");
    }

    private NodeCheck KubeProxy()
    {
        var port = KubeProxyPorts.Where(Answers).Select(port => (int?)port).FirstOrDefault();
        return (port, questions.ReplacesKubeProxy) switch
        {
            (null, true) => new("kube-proxy", CheckResult.Ok, "does not run"),
            (null, false) => new("kube-proxy", CheckResult.Warning, "does not seem to run (nothing on 10249 and 10256)",
                "if it does not, set kubeProxyReplacement=true, and k8sServiceHost and k8sServicePort"),
            (_, false) => new("kube-proxy", CheckResult.Ok, $"runs (port {port}); sockets are translated before it sees them"),
            (_, true) => new("kube-proxy", CheckResult.Warning, $"runs (port {port}) although kubeProxyReplacement=true",
                "remove it (kubectl -n kube-system delete daemonset kube-proxy), or set kubeProxyReplacement=false"),
        };
    }

    private static bool Answers(int port)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            return socket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port)).Wait(ConnectTimeout);
        }
        catch (AggregateException e) when (e.InnerException is SocketException)
        {
            // Nobody listens there: that is the answer.
            return false;
        }
    }

    private static List<string> Devices() => [.. NetworkInterface.GetAllNetworkInterfaces().Select(device => device.Name)];

    private string Host(string path) => HostFiles.Below(questions.HostRoot, path);
}
