using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Mesh.ClusterMesh.ApiServer.Etcd;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

public partial class EmbeddedEtcdTests
{
    private const int SigKill = 9;
    private const int SigTerm = 15;
    private const string CartKey = "cilium/state/services/v1/tokyo/shop/cart";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Kill(int pid, int signal);

    [Fact]
    public async Task A_killed_etcd_comes_back_with_all_it_had()
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await tokyo.StartWithOwnEtcdAsync();
        await using var admin = tokyo.OwnEtcd();
        var before = await admin.GetAsync(CartKey, Cancellation);
        var child = tokyo.Server.Etcd!.ChildProcessId;

        Assert.Equal(0, Kill(child, SigKill));
        await Deadline.Until(() => tokyo.Server.Etcd.Restarts == 1 && tokyo.Server.Etcd.Error is null, "etcd to be back", () => tokyo.Logged);
        Assert.NotEqual(child, tokyo.Server.Etcd.ChildProcessId);
        var after = await admin.GetAsync(CartKey, Cancellation);
        // The very same revision: peers see nothing.
        Assert.Equal(before!.Value.ModRevision, after!.Value.ModRevision);

        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.2"));
        await Deadline.Until(async () => (await admin.TextAsync(CartKey))!.Contains("10.1.0.2", StringComparison.Ordinal), "a change after it");
    }

    [Fact]
    public async Task An_etcd_whose_data_was_lost_is_another_one_and_is_filled_again()
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await tokyo.StartWithOwnEtcdAsync();
        await using var admin = tokyo.OwnEtcd();
        await admin.GetAsync(CartKey, Cancellation);
        var firstLife = admin.Status.ClusterId;

        Directory.Move(Path.Combine(tokyo.EtcdData, "member"), Path.Combine(tokyo.Home, "lost"));
        Assert.Equal(0, Kill(tokyo.Server.Etcd!.ChildProcessId, SigKill));
        await Deadline.Until(
            async () => tokyo.Server.Etcd.Error is null && tokyo.Server.Etcd.Restarts > 0 && await TryText(admin, CartKey) is not null,
            "the service to be back", () => tokyo.Logged);
        Assert.NotEqual(firstLife, admin.Status.ClusterId);
        await using var remote = tokyo.ReaderOf("remote");
        await AssertDenied(() => remote.WriteAsync([new(CartKey, null)], Cancellation));
    }

    [Fact]
    public async Task Nobody_on_the_machine_reads_or_writes_etcd_without_its_directory()
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartWithOwnEtcdAsync();
        await using var own = tokyo.OwnEtcd();
        Assert.NotNull(await own.TextAsync(CartKey));
        var access = tokyo.Server.Etcd!.ClientOptions;

        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(tokyo.EtcdData));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(access.KeyFile!));
        Assert.False(File.Exists(Path.ChangeExtension(access.TrustedCaFile, ".key")));
        var (cert, key) = tokyo.Certificate("root");
        foreach (var stranger in (EtcdOptions[])[access with { CertFile = null, KeyFile = null }, access with { CertFile = cert, KeyFile = key }])
        {
            await using var store = new EtcdKVStore(stranger with { RetryAttempts = 1 });
            await Assert.ThrowsAsync<KVStoreException>(() => store.TextAsync(CartKey));
        }
        // Every port that etcd listens on: the clients', the one for other members, and health, which tells nothing.
        var ports = await ListeningPortsAsync(tokyo.Server.Etcd.ChildProcessId);
        Assert.Equal(3, ports.Count);
        Assert.All(ports, port => Assert.StartsWith("127.0.0.1:", port, StringComparison.Ordinal));
        using var plain = new HttpClient();
        var open = new List<string>();
        foreach (var port in ports)
        {
            try
            {
                open.Add(await plain.GetStringAsync(new Uri($"http://{port}/members"), Cancellation));
            }
            catch (HttpRequestException)
            {
                continue;
            }
        }
        Assert.Empty(open);
    }

    [Fact]
    public async Task A_restart_over_its_own_data_disturbs_no_key()
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartWithOwnEtcdAsync();
        var before = await RevisionsAsync(tokyo);
        await tokyo.StopAsync();
        Assert.Equal(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(tokyo.EtcdData));

        await tokyo.StartWithOwnEtcdAsync();
        // Not written again, not even with the same value.
        Assert.Equal(before, await RevisionsAsync(tokyo));
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Slice("cart", "10.1.0.1"));
        await using var admin = tokyo.OwnEtcd();
        await Deadline.Until(async () => (await admin.TextAsync(CartKey))!.Contains("10.1.0.1", StringComparison.Ordinal), "a change after it");
    }

    private static async Task<string> RevisionsAsync(TestCluster tokyo)
    {
        await using var admin = tokyo.OwnEtcd();
        var (items, _) = await admin.ListAsync("cilium/", Cancellation);
        // Heartbeat and canaries are: no peer minds a repetition of these.
        return string.Join('\n', items.Where(item => !item.Key.Contains("/synced/", StringComparison.Ordinal)
            && item.Key != "cilium/.heartbeat").Select(item => $"{item.Key} {item.ModRevision}"));
    }

    [Fact]
    public async Task Two_API_servers_cannot_have_one_data_directory()
    {
        await using var tokyo = new TestCluster();
        await using var first = EtcdSupervisor.Start(tokyo.EtcdData);
        var fault = Assert.Throws<IOException>(() => EtcdSupervisor.Start(tokyo.EtcdData));
        Assert.Contains($"--etcd-data-dir {tokyo.EtcdData} is in use by another API server", fault.Message, StringComparison.Ordinal);
        await first.WaitUntilReadyAsync(Cancellation);
    }

    [Fact]
    public async Task An_orphaned_etcd_on_our_directory_is_ended_and_others_are_not()
    {
        await using var tokyo = new TestCluster();
        Directory.CreateDirectory(tokyo.EtcdData);
        await using var stranger = await EtcdServer.StartAsync();
        using var orphan = ChildThread.Start(new ProcessStartInfo("etcd",
        [
            "--data-dir", tokyo.EtcdData, "--listen-client-urls", $"http://127.0.0.1:{tokyo.Port}", "--advertise-client-urls", $"http://127.0.0.1:{tokyo.Port}",
            "--listen-peer-urls", $"http://127.0.0.1:{EtcdServer.FreePort()}", "--logger", "zap", "--log-level", "fatal",
        ])
        { RedirectStandardError = true });
        await Deadline.Until(() => Directory.Exists(Path.Combine(tokyo.EtcdData, "member")), "the orphan to have the directory");

        await tokyo.StartWithOwnEtcdAsync();
        Assert.True(orphan.WaitForExit(TimeSpan.FromSeconds(5)));
        Assert.Contains($"process {orphan.Id} of a former API server still holds", tokyo.Logged, StringComparison.Ordinal);
        await using var store = stranger.NewStore();
        Assert.Null(await store.TextAsync("any"));
    }

    /// <summary>As in another container: the path is the same, the directory is not.</summary>
    [Fact]
    public async Task An_etcd_that_sees_another_directory_at_the_same_path_is_left_alone()
    {
        await using var tokyo = new TestCluster();
        Directory.CreateDirectory(tokyo.EtcdData);
        var (clients, peers) = (EtcdServer.FreePort(), EtcdServer.FreePort());
        using var stranger = ChildThread.Start(new ProcessStartInfo("unshare",
        [
            "--mount", "sh", "-c", "mount -t tmpfs none \"$3\" && exec \"$@\"", "sh", "etcd", "--data-dir", tokyo.EtcdData,
            "--listen-client-urls", $"http://127.0.0.1:{clients}", "--advertise-client-urls", $"http://127.0.0.1:{clients}",
            "--listen-peer-urls", $"http://127.0.0.1:{peers}", "--logger", "zap", "--log-level", "fatal",
        ])
        { RedirectStandardError = true });
        try
        {
            await Deadline.Until(() => Directory.Exists($"/proc/{stranger.Id}/root{tokyo.EtcdData}/member"), "the stranger to have its directory");
            await tokyo.StartWithOwnEtcdAsync();
            Assert.False(stranger.HasExited);
            Assert.DoesNotContain("of a former API server", tokyo.Logged, StringComparison.Ordinal);
        }
        finally
        {
            stranger.Kill();
        }
    }

    [Theory]
    [InlineData(SigKill)]
    [InlineData(SigTerm)]
    public async Task No_etcd_outlives_its_API_server(int signal)
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        using var program = StartProgram(tokyo);
        await Deadline.Until(async () => await tokyo.TryReadyAsync(), "the program to be ready");
        var child = ChildOf(program.Id);
        Assert.Equal("etcd", ProcessName(child));

        Assert.Equal(0, Kill(program.Id, signal));
        Assert.True(program.WaitForExit(TimeSpan.FromSeconds(10)));
        await Deadline.Until(() => ProcessName(child) is "", "etcd to be gone");
        if (signal == SigTerm)
            Assert.Equal(0, program.ExitCode);

        // Whatever ended it, the next one finds everything in place.
        await tokyo.StartWithOwnEtcdAsync();
        await using var admin = tokyo.OwnEtcd();
        Assert.NotNull(await admin.TextAsync(CartKey));
    }

    private static Process StartProgram(TestCluster tokyo) =>
        ChildThread.Start(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"), tokyo.Arguments());

    private static async Task<List<string>> ListeningPortsAsync(int pid)
    {
        using var ss = Process.Start(new ProcessStartInfo("ss", ["-Hltnp"]) { RedirectStandardOutput = true })!;
        var lines = (await ss.StandardOutput.ReadToEndAsync(Cancellation)).Split('\n');
        return [.. lines.Where(line => line.Contains($"pid={pid},", StringComparison.Ordinal))
            .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[3])];
    }

    private static int ChildOf(int parent) => Directory.EnumerateDirectories("/proc")
        .Select(path => int.TryParse(Path.GetFileName(path), out var pid) ? pid : 0)
        .First(pid => pid > 0 && Stat(pid) is [_, var itsParent, ..] && itsParent == parent.ToString(CultureInfo.InvariantCulture));

    /// <summary>"" when there is no such process, or only its zombie.</summary>
    private static string ProcessName(int pid) => Stat(pid) is [not "Z", _, var name] ? name : "";

    /// <summary>State, parent and name.</summary>
    private static string[] Stat(int pid)
    {
        try
        {
            var stat = File.ReadAllText($"/proc/{pid}/stat");
            var end = stat.LastIndexOf(')');
            var rest = stat[(end + 2)..].Split(' ');
            return [rest[0], rest[1], stat[(stat.IndexOf('(', StringComparison.Ordinal) + 1)..end]];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    private static async Task<string?> TryText(EtcdKVStore store, string key)
    {
        try
        {
            return await store.TextAsync(key);
        }
        catch (KVStoreException)
        {
            return null;
        }
    }

    private static async Task AssertDenied(Func<Task> call) => Assert.True(await IsDeniedAsync(call), "was allowed");

    private static async Task<bool> IsDeniedAsync(Func<Task> call)
    {
        try
        {
            await call();
            return false;
        }
        catch (KVStoreException e)
        {
            Assert.True(e.PermissionDenied, e.Message);
            return true;
        }
    }
}
