using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>The door as the very program opens it: real certificates, Debian's etcdctl, files that change while it runs.</summary>
public class DoorTests
{
    private const string CartKey = "cilium/state/services/v1/tokyo/shop/cart";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>The program with a cart, until the test ends.</summary>
    private static async Task<Process> StartAsync(TestCluster tokyo, params string[] more)
    {
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        var program = ChildThread.Start(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"), tokyo.Arguments(more));
        await Deadline.Until(async () => program.HasExited || await tokyo.TryReadyAsync(), "the program to be ready");
        Assert.False(program.HasExited, "the program ended");
        return program;
    }

    [Fact]
    public async Task A_remote_certificate_reads_the_state_and_nothing_else_and_nobody_writes()
    {
        await using var tokyo = new TestCluster();
        await using var program = new RunningProgram(await StartAsync(tokyo));
        await using (var own = tokyo.OwnEtcd())
        {
            await own.WriteAsync([new("cilium/cluster-config/osaka", "{}"u8.ToArray()), new("cilium/cache/nodes/v1/osaka/n1", "{}"u8.ToArray()),
                new("secret", "x"u8.ToArray())], Cancellation);
        }

        foreach (var (allowed, lines) in (IEnumerable<(string[], int)>)[
            (["get", "--prefix", "cilium/state/", "--keys-only"], 1),
            (["get", CartKey, "--print-value-only"], 1),
            (["get", "--prefix", "cilium/.heartbeat", "--keys-only"], 1),
            (["get", "cilium/cluster-config/tokyo", "--print-value-only"], 1),
            (["get", "--prefix", "cilium/synced/tokyo/", "--keys-only"], 4)])
        {
            var (code, output, error) = await tokyo.EtcdctlAsync("remote", allowed);
            Assert.True(code == 0 && Lines(output) == lines, $"{string.Join(' ', allowed)}: {output}{error}");
        }
        string[][] refused =
        [
            ["get", "--prefix", "cilium/"], ["get", "--prefix", ""], ["get", "--from-key", "cilium/state/"],
            ["get", "--prefix", "cilium/cache/"],
            ["get", "--prefix", "cilium/cluster-config/"], ["get", "cilium/cluster-config/osaka"], ["get", "secret"],
            ["put", CartKey, "x"], ["put", "mine", "x"], ["del", CartKey], ["del", "--prefix", "cilium/state/"], ["compact", "1"],
            ["lease", "list"], ["user", "list"], ["role", "add", "x"], ["auth", "enable"], ["defrag"], ["move-leader", "1"],
            ["member", "add", "x", "--peer-urls=http://127.0.0.1:1"],
        ];
        foreach (var command in refused)
        {
            foreach (var user in command[0] == "get" ? (string[])["remote"] : ["remote", "admin-tokyo"])
            {
                var (code, output, error) = await tokyo.EtcdctlAsync(user, command);
                Assert.True(code != 0 && error.Contains("permission denied", StringComparison.OrdinalIgnoreCase),
                    $"{user}: {string.Join(' ', command)}: {output}{error}");
            }
        }
        // The controls: what was refused to one is there, and is read by who may.
        Assert.Equal(0, (await tokyo.EtcdctlAsync("admin-tokyo", "get", "secret")).Code);
        Assert.Equal(1, Lines((await tokyo.EtcdctlAsync("local-tokyo", "get", "--prefix", "cilium/cache/", "--keys-only")).Output));
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("local-tokyo", "get", CartKey)).Code);
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("stranger", "get", CartKey)).Code);
        await using var after = tokyo.OwnEtcd();
        Assert.Equal("x", await after.TextAsync("secret"));
        Assert.Null(await after.TextAsync("mine"));
        Assert.Contains("cart", await after.TextAsync(CartKey), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_user_taken_from_the_file_loses_its_streams_and_one_added_gets_in()
    {
        await using var tokyo = new TestCluster();
        var users = Path.Combine(tokyo.Home, "users.yaml");
        await File.WriteAllTextAsync(users, "users:\n- {name: remote-osaka, role: remote}\n- {name: remote-kyoto, role: remote}\n", Cancellation);
        await using var program = new RunningProgram(await StartAsync(tokyo, "--auth-mode", "cluster", "--cluster-users-config-path", users));
        await using var osaka = new Watching(tokyo.ReaderOf("remote-osaka"));
        await using var kyoto = new Watching(tokyo.ReaderOf("remote-kyoto"));
        await Deadline.Until(() => osaka.Has("cart") && kyoto.Has("cart"), "both to read");
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("remote-nagoya", "get", CartKey)).Code);

        var clock = Stopwatch.StartNew();
        await File.WriteAllTextAsync(users, "users:\n- {name: remote-kyoto, role: remote}\n- {name: remote-nagoya, role: remote}\n", Cancellation);
        await Deadline.Until(() => osaka.Ended is { PermissionDenied: true }, "osaka's stream to be cut");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(5), $"after {clock.Elapsed}");
        Assert.Equal(0, (await tokyo.EtcdctlAsync("remote-nagoya", "get", CartKey)).Code);
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("remote-osaka", "get", CartKey)).Code);

        // A file that is none keeps the last good one, and says so.
        await File.WriteAllTextAsync(users, "users: [remote-osaka", Cancellation);
        await Deadline.Until(async () => (await tokyo.PageAsync("/problems")).Text.Contains(users, StringComparison.Ordinal), "the file to be a problem");
        Assert.Contains("the last good one stays in force", (await tokyo.PageAsync("/problems")).Text, StringComparison.Ordinal);
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Service("till"));
        await Deadline.Until(() => kyoto.Has("till"), "kyoto to read on");
        Assert.Null(kyoto.Ended);
        Assert.False(osaka.Has("till"));
    }

    [Fact]
    public async Task A_revoked_certificate_is_cut_off_and_another_of_the_same_name_is_not()
    {
        await using var tokyo = new TestCluster();
        var revoked = Path.Combine(tokyo.Home, "revoked");
        await File.WriteAllTextAsync(revoked, "# none yet\n", Cancellation);
        await using var program = new RunningProgram(await StartAsync(tokyo, "--door-revoked-file", revoked));
        await using var stolen = new Watching(tokyo.ReaderOf("remote"));
        await using var sound = new Watching(tokyo.ReaderOf("remote", "sound"));
        await Deadline.Until(() => stolen.Has("cart") && sound.Has("cart"), "both to read");

        using (var certificate = X509CertificateLoader.LoadCertificateFromFile(tokyo.Certificate("remote").Cert))
            await File.WriteAllTextAsync(revoked, certificate.GetCertHashString(HashAlgorithmName.SHA256), Cancellation);
        var clock = Stopwatch.StartNew();
        await Deadline.Until(() => stolen.IsCut, "the revoked one's stream to be cut");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(5), $"after {clock.Elapsed}");
        Assert.NotEqual(0, (await tokyo.EtcdctlAsync("remote", "get", CartKey)).Code);
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Service("till"));
        await Deadline.Until(() => sound.Has("till"), "the other to read on");
        Assert.False(stolen.Has("till"));
        Assert.False(sound.IsCut);
    }

    [Theory]
    [InlineData("legacy", false, true)]
    [InlineData("migration", true, true)]
    [InlineData("cluster", true, true)]
    public async Task The_mode_says_whether_users_of_the_file_exist(string mode, bool named, bool shared)
    {
        await using var tokyo = new TestCluster();
        var users = Path.Combine(tokyo.Home, "users.yaml");
        await File.WriteAllTextAsync(users, "users:\n- {name: remote-osaka, role: remote}\n", Cancellation);
        await using var program = new RunningProgram(await StartAsync(tokyo, "--auth-mode", mode, "--cluster-users-config-path", users));
        Assert.Equal(named, (await tokyo.EtcdctlAsync("remote-osaka", "get", CartKey)).Code == 0);
        Assert.Equal(shared, (await tokyo.EtcdctlAsync("remote", "get", CartKey)).Code == 0);
    }

    [Fact]
    public async Task A_door_whose_port_is_taken_is_told_of_and_opens_when_the_port_is_free()
    {
        await using var tokyo = new TestCluster();
        using var squatter = new TcpListener(IPAddress.Loopback, tokyo.Port);
        squatter.Start();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await using var program = RunningProgram.Start(tokyo.Arguments());
        await Deadline.Until(
            async () => (await tokyo.TryPageAsync("/problems"))?.Contains("door: shut: cannot listen on", StringComparison.Ordinal) == true,
            "the reason to be told");
        Assert.Equal("NotReady", await tokyo.TryPageAsync("/readyz"));
        Assert.Contains("mesh_door_open{source_cluster=\"tokyo\"} 0", await tokyo.TryPageAsync("/metrics"), StringComparison.Ordinal);
        // Publishing goes on meanwhile.
        await using (var own = tokyo.OwnEtcd())
            await Deadline.Until(async () => await own.TextAsync(CartKey) is not null, "the service to be published");

        squatter.Stop();
        await Deadline.Until(tokyo.TryReadyAsync, "the door to open");
        Assert.Equal(0, (await tokyo.EtcdctlAsync("remote", "get", CartKey)).Code);
        Assert.Equal("", await tokyo.TryPageAsync("/problems"));
        var metrics = await tokyo.TryPageAsync("/metrics");
        Assert.Contains("mesh_door_open{source_cluster=\"tokyo\"} 1", metrics, StringComparison.Ordinal);
        Assert.Matches(@"mesh_door_certificate_days_left\{source_cluster=""tokyo""\} (29\.9|30)", metrics);
    }

    [Fact]
    public async Task A_certificate_that_ends_soon_is_a_problem_until_another_is_there()
    {
        await using var tokyo = new TestCluster();
        var old = tokyo.Certificate("server", life: TimeSpan.FromDays(5));
        await tokyo.StartWithOwnEtcdAsync();
        Assert.Contains($"door: the certificate {old.Cert} ends in 5.0 days", (await tokyo.PageAsync("/problems")).Text, StringComparison.Ordinal);
        var another = tokyo.Certificate("server", "server-2");
        File.Move(another.Key, old.Key, overwrite: true);
        File.Move(another.Cert, old.Cert, overwrite: true);
        await Deadline.Until(async () => (await tokyo.PageAsync("/problems")).Text.Length == 0, "the problem to be over", () => tokyo.Logged);
        Assert.Contains("mesh_door_certificate_days_left{source_cluster=\"tokyo\"} 30", (await tokyo.PageAsync("/metrics")).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Readers_keep_reading_while_etcd_is_away_and_resume_when_it_is_back()
    {
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartWithOwnEtcdAsync();
        await using var reader = new Watching(tokyo.ReaderOf("remote"));
        await Deadline.Until(() => reader.Has("cart"), "the reader to read");
        using (var etcd = Process.GetProcessById(tokyo.Server.Etcd!.ChildProcessId))
            etcd.Kill();
        Assert.NotNull(await reader.Store.TextAsync(CartKey));
        await Deadline.Until(() => tokyo.Server.Etcd.Restarts == 1 && tokyo.Server.Etcd.Error is null, "etcd to be back", () => tokyo.Logged);
        tokyo.Write("cart.yaml", Yaml.Service("cart") + Yaml.Service("till"));
        await Deadline.Until(() => reader.Has("till"), "a change after it", () => tokyo.Logged);
        Assert.Equal(0, reader.Store.Status.Relists);
    }

    [Fact]
    public async Task An_etcd_that_wants_a_password_is_followed_and_again_after_it_forgot_our_token()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await etcd.EtcdctlAsync("user", "add", "root:secret");
        await etcd.EtcdctlAsync("user", "grant-role", "root", "root");
        await etcd.EtcdctlAsync("auth", "enable");
        await using var tokyo = new TestCluster();
        tokyo.Write("cart.yaml", Yaml.Service("cart"));
        await tokyo.StartOverAsync(etcd.Options with { Username = "root", Password = "secret" }, withDoor: true);
        await using var reader = new Watching(tokyo.ReaderOf("remote"));
        await Deadline.Until(() => reader.Has("cart"), "the reader to read", () => tokyo.Logged);

        await etcd.KillAsync();
        await etcd.RestartAsync();
        tokyo.Write("till.yaml", Yaml.Service("till"));
        await Deadline.Until(() => reader.Has("till"), "a change after it", () => tokyo.Logged);
    }

    private static int Lines(string output) => output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
}
