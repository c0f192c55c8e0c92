using System.Diagnostics;
using System.Text.Json;
using Mesh.Joining;
using Mesh.Pki;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh ca`: the life of a cluster's certificates as an operator leads it.</summary>
public sealed class CaTests : IDisposable
{
    private readonly string _scratch = Directory.CreateTempSubdirectory("mesh-ca-").FullName;

    private string Dir => Path.Combine(_scratch, "pki");

    public void Dispose() => Directory.Delete(_scratch, recursive: true);

    private static async Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments)
    {
        var output = new StringWriter();
        var error = new StringWriter();
        var code = await MeshCommand.RunAsync(["ca", .. arguments], output, error);
        return (code, output.ToString(), error.ToString());
    }

    private async Task<string> GoodAsync(params string[] arguments)
    {
        var (code, output, error) = await RunAsync([.. arguments, "--dir", Dir]);
        Assert.Equal("", error);
        Assert.Equal(0, code);
        return output;
    }

    private async Task<string> BadAsync(params string[] arguments)
    {
        var (code, output, error) = await RunAsync([.. arguments, "--dir", Dir]);
        Assert.Equal("", output);
        Assert.Equal(1, code);
        Assert.Equal(1, error.Count(c => c == '\n'));
        return error;
    }

    [Fact]
    public async Task An_authority_is_replaced_in_three_runs_and_each_says_what_comes_next()
    {
        Assert.Contains("begins to replace", await GoodAsync("init", "--cluster-name", "tokyo", "--server-name", "172.30.1.100"), StringComparison.Ordinal);
        var announced = await GoodAsync("rotate");
        Assert.Contains("is trusted and signs nothing yet", announced, StringComparison.Ordinal);
        Assert.Contains("ca.crt was copied by hand, copy it again", announced, StringComparison.Ordinal);
        var reissued = await GoodAsync("rotate");
        Assert.Contains("is still trusted", reissued, StringComparison.Ordinal);
        Assert.Contains("tokyo.etcd-client-ca.crt", reissued, StringComparison.Ordinal);
        Assert.Contains("none under way", await GoodAsync("rotate"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_last_step_names_the_peer_that_it_would_cut()
    {
        await GoodAsync("init", "--cluster-name", "tokyo");
        var request = Path.Combine(_scratch, "osaka.csr");
        await File.WriteAllTextAsync(request, CertificateRequests.Create("osaka").CsrPem, TestContext.Current.CancellationToken);
        Assert.StartsWith("-----BEGIN CERTIFICATE", await GoodAsync("issue", "--request", request, "--common-name", "remote-osaka"), StringComparison.Ordinal);
        await GoodAsync("rotate", "--to", "reissued");
        var refusal = await BadAsync("rotate");
        Assert.Contains("remote-osaka", refusal, StringComparison.Ordinal);
        Assert.Contains("join again", refusal, StringComparison.Ordinal);
        Assert.Contains("Not yet: remote-osaka", await GoodAsync("show"), StringComparison.Ordinal);
        // Brought a new one, it hinders nothing.
        await GoodAsync("issue", "--request", request, "--common-name", "remote-osaka");
        Assert.DoesNotContain("Not yet", await GoodAsync("show"), StringComparison.Ordinal);
        await GoodAsync("rotate");
    }

    [Fact]
    public async Task A_forced_step_is_taken_and_show_says_who_was_cut()
    {
        await GoodAsync("init", "--cluster-name", "tokyo");
        var request = Path.Combine(_scratch, "osaka.csr");
        await File.WriteAllTextAsync(request, CertificateRequests.Create("osaka").CsrPem, TestContext.Current.CancellationToken);
        await GoodAsync("issue", "--request", request, "--common-name", "remote-osaka");
        await GoodAsync("rotate", "--to", "reissued");
        Assert.Contains("error: the certificate of remote-osaka", await GoodAsync("rotate", "--force"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_stage_named_twice_is_reached_once()
    {
        await GoodAsync("init", "--cluster-name", "tokyo");
        await GoodAsync("rotate", "--to", "announced");
        var bundle = await File.ReadAllTextAsync(Path.Combine(Dir, "ca.crt"), TestContext.Current.CancellationToken);
        await GoodAsync("rotate", "--to", "announced");
        Assert.Equal(bundle, await File.ReadAllTextAsync(Path.Combine(Dir, "ca.crt"), TestContext.Current.CancellationToken));
        await GoodAsync("rotate", "--to", "settled");
        await GoodAsync("rotate", "--to", "settled");
        Assert.Single(CertificateFacts.AllOfPem(await File.ReadAllTextAsync(Path.Combine(Dir, "ca.crt"), TestContext.Current.CancellationToken)));
    }

    [Fact]
    public async Task Copies_of_the_clusters_own_readers_follow()
    {
        var agents = Directory.CreateDirectory(Path.Combine(_scratch, "agents")).FullName;
        await GoodAsync("init", "--cluster-name", "tokyo", "--copy-to", agents);
        await GoodAsync("rotate", "--copy-to", agents);
        foreach (var (copy, source) in new[] { ("-ca.crt", "ca.crt"), (".crt", "local.crt"), (".key", "local.key") })
        {
            Assert.Equal(
                await File.ReadAllTextAsync(Path.Combine(Dir, source), TestContext.Current.CancellationToken),
                await File.ReadAllTextAsync(Path.Combine(agents, "local-etcd-client" + copy), TestContext.Current.CancellationToken));
        }
    }

    [Fact]
    public async Task A_cluster_s_description_says_where_its_certificates_are_and_who_has_copies()
    {
        var agents = Directory.CreateDirectory(Path.Combine(_scratch, "agents")).FullName;
        var direct = Directory.CreateDirectory(Path.Combine(_scratch, "direct")).FullName;
        new ClusterDescription
        {
            Name = "tokyo",
            Id = 1,
            PodCIDRs = ["10.1.0.0/16"],
            NodeCIDRs = ["172.30.1.0/24"],
            DoorAddresses = ["https://172.30.1.100:2379"],
            Pki = "pki",
            AgentConfigs = ["agents", "direct"],
            JoinDirectory = "join",
        }.Save(_scratch);
        Assert.Equal(0, (await RunAsync("init", "--cluster-dir", _scratch)).Code);
        Assert.Equal("tokyo", PkiDirectory.Open(Dir).Settings.Cluster);
        // As a join left it: plain files.
        foreach (var (copy, source) in new[] { ("-ca.crt", "ca.crt"), (".crt", "local.crt"), (".key", "local.key") })
            File.Copy(Path.Combine(Dir, source), Path.Combine(agents, "local-etcd-client" + copy));
        Assert.Equal(0, (await RunAsync("rotate", "--cluster-dir", _scratch, "--to", "reissued")).Code);
        foreach (var (copy, source) in new[] { ("-ca.crt", "ca.crt"), (".crt", "local.crt"), (".key", "local.key") })
        {
            Assert.Equal(
                await File.ReadAllTextAsync(Path.Combine(Dir, source), TestContext.Current.CancellationToken),
                await File.ReadAllTextAsync(Path.Combine(agents, "local-etcd-client" + copy), TestContext.Current.CancellationToken));
        }
        Assert.Empty(Directory.EnumerateFileSystemEntries(direct));
        Assert.Contains("calls it tokyo", (await RunAsync("init", "--cluster-dir", _scratch, "--cluster-name", "osaka")).Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Show_as_JSON_is_public_and_has_the_days_left()
    {
        await GoodAsync("init", "--cluster-name", "tokyo", "--lifetime", "20d");
        var text = await GoodAsync("show", "-o", "json");
        Assert.DoesNotContain("PRIVATE", text, StringComparison.Ordinal);
        using var json = JsonDocument.Parse(text);
        Assert.Equal("settled", json.RootElement.GetProperty("stage").GetString());
        Assert.Equal(19, json.RootElement.GetProperty("certificates").GetProperty("server").GetProperty("daysLeft").GetInt32());
        Assert.Equal(4, json.RootElement.GetProperty("warnings").GetArrayLength());
        Assert.Contains("warning: server certificate expires in 19 days", await GoodAsync("show"), StringComparison.Ordinal);
        // Renewed for long enough it is no warning.
        await GoodAsync("issue", "server", "--lifetime", "90d");
        Assert.DoesNotContain("server certificate expires", await GoodAsync("show"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Show_fails_when_something_has_expired()
    {
        await GoodAsync("init", "--cluster-name", "tokyo");
        await GoodAsync("issue", "local", "--lifetime", "1ms");
        await Task.Delay(5, TestContext.Current.CancellationToken);
        var (code, output, _) = await RunAsync("show", "--dir", Dir);
        Assert.Equal(1, code);
        Assert.Contains("error: local certificate expired", output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Mistakes_are_told_in_one_line()
    {
        Assert.Contains("mesh ca init", await BadAsync("show"), StringComparison.Ordinal);
        Assert.Contains("--cluster-name", await BadAsync("init"), StringComparison.Ordinal);
        await GoodAsync("init", "--cluster-name", "tokyo");
        Assert.Contains("cluster tokyo", await BadAsync("init", "--cluster-name", "osaka"), StringComparison.Ordinal);
        Assert.Contains("remote-CLUSTER", await BadAsync("issue", "--request", "x", "--common-name", "admin-tokyo"), StringComparison.Ordinal);
        Assert.Contains("no rotation", await BadAsync("rotate", "--cancel"), StringComparison.Ordinal);
        Assert.Contains("give one of them", await BadAsync("show", "--cluster-dir", _scratch), StringComparison.Ordinal);
        Assert.Contains("no such directory", await BadAsync("rotate", "--copy-to", "/nonexistent"), StringComparison.Ordinal);
        Assert.Contains("365d", await BadAsync("issue", "--lifetime", "soon"), StringComparison.Ordinal);
        Assert.Equal(RotationStage.Settled, PkiDirectory.Open(Dir).Settings.Stage);
    }

    [Fact]
    public async Task Killed_at_any_point_a_rotation_is_before_or_behind_its_step_and_a_rerun_finishes_it()
    {
        await GoodAsync("init", "--cluster-name", "tokyo");
        var random = new Random(20261123);
        var clock = Stopwatch.StartNew();
        await RunProcessAsync("rotate", "--to", "announced", null);
        var whole = clock.Elapsed;
        for (var kill = 0; kill < 8; kill++)
        {
            // Most of a run is its start: aim at the end of it.
            await RunProcessAsync("rotate", "--to", kill % 2 == 0 ? "settled" : "announced", whole * (0.5 + 0.5 * random.NextDouble()));
            var view = PkiDirectory.Open(Dir).View();
            foreach (var leaf in view.Leaves)
            {
                Assert.True(CertificateRequests.IsFor(
                    File.ReadAllText(Path.Combine(Dir, leaf.Leaf.CertFileName)), File.ReadAllText(Path.Combine(Dir, leaf.Leaf.KeyFileName))));
                Assert.Contains(leaf.Certificate.IssuerKeyId, view.Trusted.Select(authority => authority.KeyId));
            }
        }
        await GoodAsync("rotate", "--to", "settled");
        Assert.Equal(RotationStage.Settled, PkiDirectory.Open(Dir).Settings.Stage);
        Assert.Single(Directory.EnumerateDirectories(Dir, "..data.0*"));
    }

    private async Task RunProcessAsync(string command, string flag, string value, TimeSpan? killAfter)
    {
        var program = Path.Combine(AppContext.BaseDirectory, "mesh");
        using var process = Process.Start(new ProcessStartInfo(program, ["ca", command, "--dir", Dir, flag, value])
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        if (killAfter is { } delay)
        {
            await Task.Delay(delay, TestContext.Current.CancellationToken);
            process.Kill();
        }
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
    }
}
