using System.Diagnostics;
using System.Text;
using Mesh.AgentApi;
using Mesh.Netlink;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>What an agent as a process does about the kernel's masquerading; what that does to packets is tested with the datapath.</summary>
public sealed class MasqueradeTests : IAsyncLifetime
{
    private const string Table = "inet mesh";

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-masquerade-").FullName;
    private readonly BpfFileSystem _pins = new();
    private readonly NetworkNamespace _node = new();
    private Process? _agent;

    public ValueTask InitializeAsync()
    {
        _node.Shell("sh", "-ec", "ip link set lo up; ip link add eth0 type bridge; ip addr add 172.30.0.1/16 dev eth0; ip link set eth0 up");
        Directory.CreateDirectory(Path.Combine(_directory, "objects"));
        PodRange("10.2.1.0/24");
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await KillAsync();
        _pins.Dispose();
        _node.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>One story, since programming a kernel takes its time.</summary>
    [Fact]
    public async Task A_refusal_is_told_the_table_follows_the_node_outlives_the_agent_and_goes_when_switched_off()
    {
        // The kernel lets nobody change a table that another program owns; other reasons of a refusal are not to be had here.
        using (var other = _node.Run(() => new NetlinkSocket(protocol: 12)))
        {
            const uint owned = 2;
            var table = Message(10 << 8, 0x405).Attribute(1, "mesh").AttributeBigEndianU32(2, owned);
            Assert.Equal(0, other.TryBatch([Bracket(0x10), table, Bracket(0x11)], out _));
            Start();
            await UntilAsync("a fault", async () => (await StatusAsync())?.Mesh?.Faults is { Count: > 0 });
            var refused = await StatusAsync();
            var fault = Assert.Single(refused!.Mesh!.Faults!);
            Assert.Equal("kernel-behind", fault.Class);
            Assert.Contains("pods are not masqueraded", fault.Cause, StringComparison.Ordinal);
            Assert.Contains("10.2.1.0/24", fault.Cause, StringComparison.Ordinal);
            Assert.Contains("CAP_NET_ADMIN", fault.Cause, StringComparison.Ordinal);
            Assert.Equal((false, StatusState.Ok), (refused.Masquerading!.Enabled, refused.Cilium!.State));
        }

        // The owner is gone, and its table with it.
        await UntilAsync("no fault", async () => (await StatusAsync()) is { Mesh.Faults: null, Masquerading.Enabled: true });
        Assert.Contains("ip saddr 10.2.1.0/24 goto pods4", Rules(), StringComparison.Ordinal);
        // Somebody's firewall begins anew.
        _node.Shell("nft", "flush", "ruleset");
        await UntilAsync("the table again", () => Rules().Contains("10.2.1.0/24", StringComparison.Ordinal));
        PodRange("10.2.9.0/24");
        await UntilAsync("the new range", () => Rules().Contains("10.2.9.0/24", StringComparison.Ordinal));
        Assert.DoesNotContain("10.2.1.0/24", Rules(), StringComparison.Ordinal);

        await KillAsync();
        Assert.Contains("10.2.9.0/24", Rules(), StringComparison.Ordinal);
        Start("--enable-ipv4-masquerade", "false", "--enable-ipv6-masquerade", "false");
        await UntilAsync("no table", () => Rules().Length == 0);
        Assert.False((await StatusAsync())!.Masquerading!.Enabled);

        static NetlinkMessage Bracket(ushort type) => new NetlinkMessage(type, 1).U8(0).U8(0).U8(0).U8(10);
        static NetlinkMessage Message(ushort type, ushort flags) => new NetlinkMessage(type, flags).U8(1).U8(0).U16(0);
    }

    /// <summary>Our table; "" when there is none.</summary>
    private string Rules()
    {
        var all = _node.Shell("nft", "list", "ruleset");
        var start = all.IndexOf($"table {Table} {{", StringComparison.Ordinal);
        return start < 0 ? "" : all[start..(all.IndexOf("\n}", start, StringComparison.Ordinal) + 2)];
    }

    private async Task<StatusResponse?> StatusAsync()
    {
        try
        {
            using var client = new AgentClient(Path.Combine(_directory, "agent.sock"), "osaka-1", TimeSpan.FromSeconds(10));
            return await client.GetStatusAsync();
        }
        catch (AgentException)
        {
            return null; // it has not begun to listen
        }
    }

    private Task UntilAsync(string what, Func<bool> wanted) => UntilAsync(what, () => Task.FromResult(wanted()));

    private async Task UntilAsync(string what, Func<Task<bool>> wanted)
    {
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        var clock = Stopwatch.StartNew();
        while (!await wanted())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60), $"{what}: not yet\n{Rules()}\n{File.ReadAllText(Path.Combine(_directory, "log"))}");
            await tick.WaitForNextTickAsync();
        }
    }

    private void PodRange(string range) => File.WriteAllText(Path.Combine(_directory, "objects", "node.yaml"), $$"""
        apiVersion: cilium.io/v2
        kind: CiliumNode
        metadata: {name: osaka-1}
        spec:
          addresses: [{type: InternalIP, ip: 172.30.0.1}, {type: CiliumInternalIP, ip: 10.2.1.1}]
          ipam: {podCIDRs: ["{{range}}"]}
        """, Encoding.UTF8);

    private void Start(params string[] more) => _agent = ChildThread.Start("/bin/sh",
    [
        "-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh", Path.Combine(_directory, "log"),
        "nsenter", $"--net=/run/netns/{_node.Name}", Path.Combine(AppContext.BaseDirectory, "mesh-agent"),
        "--cluster-name", "osaka", "--cluster-id", "2", "--node-name", "osaka-1", "--source", $"manifests:{_directory}/objects",
        "--bpf-root", Directory.CreateDirectory(Path.Combine(_pins.Path, "osaka-1")).FullName, "--socket-path", Path.Combine(_directory, "agent.sock"),
        "--state-dir", Path.Combine(_directory, "state"), .. more,
    ]);

    private async Task KillAsync()
    {
        if (_agent is null)
            return;
        _agent.Kill();
        await _agent.WaitForExitAsync();
        _agent.Dispose();
        _agent = null;
    }
}
