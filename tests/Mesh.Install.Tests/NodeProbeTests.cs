using System.Net;
using System.Net.Sockets;
using Mesh.Install.Charts;
using Mesh.Install.Preflight;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>The looks at a node, on this machine and on trees of files that stand for others.</summary>
public sealed class NodeProbeTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("mesh-install-").FullName;

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Theory]
    [InlineData("6.8.0-41-generic", CheckResult.Ok)]
    [InlineData("5.10.0", CheckResult.Ok)]
    [InlineData("5.4.0-200-generic", CheckResult.Fault)]
    [InlineData("4.19.0+", CheckResult.Fault)]
    [InlineData("odd", CheckResult.Warning)]
    public void Kernels_are_judged_by_their_release(string release, CheckResult expected) => Assert.Equal(expected, NodeProbe.Kernel(release).Result);

    [Fact]
    public void A_BPF_file_system_that_can_be_mounted_is_no_fault_and_is_not_mounted()
    {
        var mounts = File.ReadAllLines("/proc/self/mounts").Length;
        var check = Look(new() { HostRoot = _root, BpfRoot = "/bpf" }, "bpffs");
        Assert.Equal((CheckResult.Ok, "not mounted at /bpf yet; it can be"), (check.Result, check.Found));
        Assert.Equal(mounts, File.ReadAllLines("/proc/self/mounts").Length);
    }

    [Fact]
    public void One_that_nobody_will_mount_is_a_fault_with_the_mend()
    {
        var check = Look(new() { HostRoot = _root, BpfRoot = "/bpf", MountsBpf = false }, "bpffs");
        Assert.Equal(CheckResult.Fault, check.Result);
        Assert.Equal("mount -t bpf bpf /bpf on the node, or bpf.autoMount.enabled=true", check.Mend);
    }

    [Fact]
    public void A_file_where_it_should_be_mounted_is_a_fault()
    {
        File.WriteAllText(Path.Combine(_root, "bpf"), "");
        var check = Look(new() { HostRoot = _root, BpfRoot = "/bpf" }, "bpffs");
        Assert.Equal((CheckResult.Fault, "not mounted at /bpf, and it cannot be: that is a file"), (check.Result, check.Found));
    }

    [Fact]
    public void A_file_system_that_has_no_place_is_a_fault() =>
        Assert.StartsWith("there is no directory /sys/fs/bpf", Look(new() { HostRoot = _root }, "bpffs").Found, StringComparison.Ordinal);

    [Fact]
    public void What_the_kernel_says_of_the_programs_is_told()
    {
        string? seen = null;
        var check = new NodeProbe(new() { HostRoot = _root }, directory =>
        {
            seen = directory;
            // It is a BPF file system, and nothing else can be made there.
            Assert.Throws<UnauthorizedAccessException>(() => File.WriteAllText(Path.Combine(directory, "x"), ""));
            throw new InvalidOperationException("invalid argument\nlog");
        }).Run().Checks.Single(check => check.Name == "programs");
        Assert.Equal((CheckResult.Fault, "the kernel does not take them: invalid argument"), (check.Result, check.Found));
        Assert.False(Directory.Exists(seen));
    }

    [Fact]
    public void Without_masquerading_a_node_is_fit_and_is_told()
    {
        var report = new NodeProbe(new() { HostRoot = _root }, null, () => "cannot masquerade: the kernel lacks a part of nf_tables").Run();
        var check = report.Checks.Single(check => check.Name == "masquerading");
        Assert.Equal((CheckResult.Warning, "cannot masquerade: the kernel lacks a part of nf_tables"), (check.Result, check.Found));
        Assert.Contains("enableIPv4Masquerade=false", check.Mend, StringComparison.Ordinal);
        var well = new NodeProbe(new() { HostRoot = _root }, null, () => null).Run().Checks.Single(check => check.Name == "masquerading");
        Assert.Equal((CheckResult.Ok, null), (well.Result, well.Mend));
    }

    [Fact]
    public void Cgroups_are_looked_for_where_they_may_be()
    {
        var path = File.ReadAllLines("/proc/self/mounts").Select(line => line.Split(' ')).First(words => words[2] == "cgroup2")[1];
        Assert.Equal(CheckResult.Ok, Look(new() { CgroupRoot = path }, "cgroup v2").Result);
        var check = Look(new() { CgroupRoot = "/etc" }, "cgroup v2");
        Assert.Equal((CheckResult.Fault, $"set cgroup.hostRoot={path}"), (check.Result, check.Mend));
    }

    [Fact]
    public void A_port_in_use_is_a_fault()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Bind(new IPEndPoint(IPAddress.Any, 0));
        var port = (ushort)((IPEndPoint)socket.LocalEndPoint!).Port;
        Assert.Equal(CheckResult.Fault, Look(new() { HostRoot = _root, TunnelPort = port }, $"UDP {port}").Result);
        socket.Dispose();
        Assert.Equal(CheckResult.Ok, Look(new() { HostRoot = _root, TunnelPort = port }, $"UDP {port}").Result);
    }

    [Theory]
    [InlineData("10-flannel.conflist", true, CheckResult.Warning)]
    [InlineData("10-flannel.conflist", false, CheckResult.Ok)]
    [InlineData("00-multus.conf", false, CheckResult.Fault)]
    [InlineData("05-cilium.conflist", false, CheckResult.Ok)]
    [InlineData("10-flannel.conflist.cilium_bak", true, CheckResult.Ok)]
    public void Other_plugins_are_judged_by_whether_the_runtime_would_take_them(string file, bool exclusive, CheckResult expected)
    {
        Directory.CreateDirectory(Path.Combine(_root, "etc/cni/net.d"));
        File.WriteAllText(Path.Combine(_root, "etc/cni/net.d", file), "{}");
        Assert.Equal(expected, Look(new() { HostRoot = _root, CniExclusive = exclusive }, "CNI").Result);
    }

    [Fact]
    public void A_plugin_that_is_to_be_called_after_ours_must_be_there()
    {
        var questions = new NodeQuestions { HostRoot = _root, ChainedPlugin = "/opt/cni/bin/portmap" };
        var missing = Look(questions, "CNI");
        Assert.Equal((CheckResult.Fault, "there is no plugin /opt/cni/bin/portmap: no pod would get a network"), (missing.Result, missing.Found));
        Directory.CreateDirectory(Path.Combine(_root, "opt/cni/bin"));
        File.WriteAllText(Path.Combine(_root, "opt/cni/bin/portmap"), "");
        Assert.Equal(CheckResult.Ok, Look(questions, "CNI").Result);
        Assert.Contains("--cni-chained-plugin=/opt/cni/bin/portmap", ClusterPreflight.Command(Chart.OfThisProgram.Values.With(
            YamlText.ParseMap("cni: {chainingMode: portmap}", "values"))));
        Assert.Contains("--cni-chained-plugin=none", ClusterPreflight.Command(Chart.OfThisProgram.Values));
    }

    [Fact]
    public void Reports_survive_JSON()
    {
        var report = new NodeProbe(new() { HostRoot = _root }, null).Run();
        var again = NodeReport.Parse(report.ToJson());
        Assert.Equal(report.Checks, again.Checks);
        Assert.Equal(File.ReadAllText("/proc/sys/kernel/osrelease").Trim(), again.Kernel);
        Assert.Contains("is no report", Assert.Throws<InstallException>(() => NodeReport.Parse("{")).Message, StringComparison.Ordinal);
    }

    private static NodeCheck Look(NodeQuestions questions, string name) =>
        new NodeProbe(questions, null).Run().Checks.Single(check => check.Name == name);
}
