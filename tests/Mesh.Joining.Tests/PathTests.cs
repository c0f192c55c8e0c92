using System.Diagnostics;
using System.Net;
using Mesh.Joining.Checks;
using Mesh.Joining.Tokens;
using Mesh.Lab.Native;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>Two hosts with a wire between them: what is blocked, and which way, plan tells from what arrives. Needs root.</summary>
public sealed class PathTests : IAsyncLifetime
{
    private static readonly string A = $"joining-a-{Environment.ProcessId}";
    private static readonly string B = $"joining-b-{Environment.ProcessId}";
    private TestCluster _tokyo = null!;
    private TestCluster _osaka = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        foreach (var name in new[] { A, B })
            NetworkNamespace.Create(name, () => { });
        Run("ip", "-n", A, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", B);
        foreach (var (name, address) in new[] { (A, "172.30.1.100"), (B, "172.30.2.100") })
        {
            Run("ip", "-n", name, "addr", "add", $"{address}/16", "dev", "eth0");
            Run("ip", "-n", name, "link", "set", "eth0", "up");
            Run("ip", "-n", name, "link", "set", "lo", "up");
        }
        _tokyo = TestCluster.Create("tokyo", 1, ns: A, at: IPAddress.Parse("172.30.1.100"));
        _osaka = TestCluster.Create("osaka", 2, ns: B, at: IPAddress.Parse("172.30.2.100"));
        _tokyo.Listen();
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
        NetworkNamespace.Delete(A);
        NetworkNamespace.Delete(B);
    }

    private Task<PlanReport> PlanAsync() => _osaka.Join(_tokyo.Token()).PlanAsync(Cancel);

    private static Severity Of(PlanReport report, string check) => report.Findings.Single(finding => finding.Check == check).Severity;

    private static void Shut(string ns, string rule) =>
        Run("ip", "netns", "exec", ns, "nft",
            $"add table inet t; add chain inet t in {{ type filter hook input priority 0; }}; add rule inet t in {rule} drop");

    [Fact]
    public async Task An_open_wire_carries_whole_packets_both_ways()
    {
        var report = await PlanAsync();
        Assert.DoesNotContain(report.Findings, finding => finding.Severity != Severity.Ok);
        Assert.StartsWith("packets of 1500 bytes pass whole", report.Findings.Single(finding => finding.Check == "mtu-to-peer").Text);
    }

    [Fact]
    public async Task Udp_shut_from_the_peer_is_told_apart_from_udp_to_it()
    {
        Shut(B, "udp dport 18472");
        var report = await PlanAsync();
        Assert.Equal(Severity.Fault, Of(report, "udp-from-peer"));
        Assert.Equal(Severity.Ok, Of(report, "udp-to-peer"));
        Assert.Equal(Severity.Ok, Of(report, "door-of-peer"));
    }

    [Fact]
    public async Task Udp_shut_to_the_peer_is_told_apart_from_udp_from_it()
    {
        Shut(A, "udp dport 18472");
        var report = await PlanAsync();
        Assert.Equal(Severity.Fault, Of(report, "udp-to-peer"));
        Assert.Equal(Severity.Ok, Of(report, "udp-from-peer"));
    }

    [Fact]
    public async Task Tcp_shut_one_way_is_told()
    {
        Shut(B, "tcp dport 2379");
        var report = await PlanAsync();
        var door = report.Findings.Single(finding => finding.Check == "own-door");
        Assert.Equal(Severity.Fault, door.Severity);
        Assert.Contains("no answer in 2 s", door.Text);
        Assert.Equal(Severity.Ok, Of(report, "door-of-peer"));
    }

    [Fact]
    public async Task A_path_that_swallows_large_packets()
    {
        Run("ip", "-n", A, "link", "set", "eth0", "mtu", "1450");
        var report = await PlanAsync();
        var mtu = report.Findings.Single(finding => finding.Check == "mtu-to-peer");
        Assert.Equal(Severity.Fault, mtu.Severity);
        Assert.Contains("packets of 1450 bytes pass from osaka", mtu.Text);
        Assert.Contains("those of 1500 do not", mtu.Text);
        Assert.Contains("set the MTU of the nodes' interfaces to 1450", mtu.Mend);
        Assert.Equal(Severity.Ok, Of(report, "mtu-from-peer"));
        await Assert.ThrowsAsync<PlanException>(() => _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Equal(JoinState.Connected,
            (await _osaka.Join(_tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1)))).ConnectAsync(new ConnectRequest(["mtu-to-peer"]), Cancel)).State);
    }

    [Fact]
    public async Task A_tunnel_that_has_the_port_is_not_disturbed_and_nothing_is_claimed()
    {
        Run("ip", "-n", A, "link", "add", "vx", "type", "vxlan", "external", "dstport", "18472");
        Run("ip", "-n", A, "link", "set", "vx", "up");
        var report = await PlanAsync();
        Assert.Equal(Severity.Warning, Of(report, "udp-to-peer"));
        Assert.Contains("not proven", report.Findings.Single(finding => finding.Check == "udp-to-peer").Text);
        Assert.Equal(Severity.Ok, Of(report, "udp-from-peer"));
    }

    private static void Run(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true, RedirectStandardOutput = true };
        using var process = Process.Start(start)!;
        var error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {error}");
    }
}
