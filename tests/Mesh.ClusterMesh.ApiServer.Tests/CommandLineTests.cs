using System.Diagnostics;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>Each test starts the very program: what counts is what a person sees.</summary>
public class CommandLineTests
{
    private const string Sound = "clustermesh --cluster-name tokyo --cluster-id 1 --source manifests:/nowhere --health-port 0 "
        + "--kvstore-opt etcd.address=http://127.0.0.1:1";

    private const string Whole = "clustermesh --cluster-name tokyo --cluster-id 1 --source manifests:/x ";

    private static async Task<(int Code, string Error)> RunAsync(string arguments, params (string Name, string Value)[] environment)
    {
        var path = Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver");
        var info = new ProcessStartInfo(path, arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
        };
        foreach (var (name, value) in environment)
            info.Environment[name] = value;
        using var program = ChildThread.Start(info);
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(15));
        try
        {
            var error = await program.StandardError.ReadToEndAsync(patience.Token);
            await program.WaitForExitAsync(patience.Token);
            return (program.ExitCode, error);
        }
        finally
        {
            if (!program.HasExited)
                program.Kill();
        }
    }

    [Theory]
    [InlineData("", "give clustermesh, kvstoremesh, kvstoremesh-dbg or version")]
    [InlineData("clustermesh --clusterid 1", "--clusterid: unknown; did you mean --cluster-id?")]
    [InlineData("clustermesh --frobnicate", "--frobnicate: unknown; clustermesh-apiserver clustermesh --help lists what is allowed")]
    [InlineData("clustermesh",
        "--cluster-name: cluster name '' must have 1 to 32 characters; --cluster-id '': must be 1 to 255; "
        + "--source '': must be manifests:DIRECTORY, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]")]
    [InlineData("clustermesh --cluster-id 256", "--cluster-id '256': must be 1 to 255")]
    [InlineData("clustermesh --cluster-id 512 --max-connected-clusters 511", "--cluster-id '512': must be 1 to 511")]
    [InlineData("clustermesh --cluster-id -1", "--cluster-id '-1': must be 1 to 255")]
    [InlineData("clustermesh --max-connected-clusters 300", "--max-connected-clusters '300': must be 255 or 511")]
    [InlineData("clustermesh --cluster-name default", "cluster name 'default' is reserved")]
    [InlineData("clustermesh --source kubernetes:", "--source 'kubernetes:': must be manifests:DIRECTORY, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]")]
    [InlineData("clustermesh --kvstore-opt etcd.adress=x", "--kvstore-opt etcd.adress: must be etcd.address=URL[,URL] or etcd.config=FILE")]
    [InlineData("clustermesh --kvstore-opt etcd.address=127.0.0.1:2379", "is not a URL")]
    [InlineData("clustermesh --kvstore-opt etcd.config=/nowhere/at.yaml", "--kvstore-opt etcd.config=/nowhere/at.yaml: ")]
    [InlineData("clustermesh --health-port 70000", "--health-port '70000': must be PORT (1 to 65535) or IP:PORT")]
    [InlineData("clustermesh --prometheus-serve-addr here", "--prometheus-serve-addr 'here': must be PORT")]
    [InlineData("clustermesh --clustermesh-default-global-namespace maybe", "'maybe': must be true or false")]
    [InlineData(Whole + "--door-listen-addr 127.0.0.1:2379",
        "--door-listen-addr: without --door-trusted-ca-file, --door-cert-file, --door-key-file there is no door")]
    [InlineData(Whole + "--door-cert-file /nowhere.crt",
        "--door-trusted-ca-file: missing; the three certificate files of the door go together; --door-cert-file /nowhere.crt: there is no such file")]
    [InlineData(Whole + "--door-cert-file /x --auth-mode open", "--auth-mode 'open': must be legacy, migration or cluster")]
    [InlineData(Whole + "--door-cert-file /x --auth-mode cluster", "--auth-mode cluster: needs --cluster-users-config-path")]
    [InlineData(Whole + "--door-cert-file /x --cluster-users-config-path /no.yaml", "--cluster-users-config-path /no.yaml: there is no such file")]
    [InlineData(Whole + "--door-cert-file /x --door-revoked-file /no.txt", "--door-revoked-file /no.txt: there is no such file")]
    [InlineData(Whole + "--door-cert-file /x --door-listen-addr door:2379", "--door-listen-addr 'door:2379': must be IP:PORT")]
    [InlineData(Whole + "--kvstoremesh-config peers", "--kvstoremesh-config: a relay needs a door for its readers")]
    [InlineData(Whole + "--kvstoremesh-config peers --kvstoremesh-api-addr nine", "--kvstoremesh-api-addr 'nine': must be localhost:PORT or IP:PORT")]
    [InlineData(Whole + "--join-listen-addr 127.0.0.1:2378", "--join-dir: missing; --join-listen-addr and --join-dir go together")]
    [InlineData(Whole + "--join-dir /x", "--join-listen-addr: missing; --join-listen-addr and --join-dir go together")]
    [InlineData(Whole + "--join-listen-addr tokyo:2378 --join-dir /x", "--join-listen-addr 'tokyo:2378': must be IP:PORT")]
    [InlineData(Whole + "--join-listen-addr 127.0.0.1:2378 --join-dir /x --pki-dir /nowhere", "--pki-dir /nowhere: there is no such directory")]
    [InlineData(Whole + "--etcd-listen-client-urls x", "--etcd-listen-client-urls: unknown")]
    public async Task An_impossible_value_is_one_line_that_says_what_is_allowed(string arguments, string fault)
    {
        var (code, error) = await RunAsync(arguments);
        Assert.Equal(1, code);
        Assert.Contains(fault, error, StringComparison.Ordinal);
        Assert.Single(error.TrimEnd().Split('\n'));
    }

    [Fact]
    public async Task An_environment_variable_stands_for_a_flag_and_the_flag_wins()
    {
        var (_, error) = await RunAsync("clustermesh --cluster-name tokyo", ("CLUSTER_ID", "777"), ("CLUSTER_NAME", "default"));
        Assert.Contains("--cluster-id '777'", error, StringComparison.Ordinal);
        Assert.DoesNotContain("default", error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_port_that_is_taken_is_named()
    {
        await using var taken = await EtcdServer.StartAsync();
        var port = taken.Endpoint.Split(':')[^1];
        var (code, error) = await RunAsync(Sound.Replace("--health-port 0", $"--health-port {port}", StringComparison.Ordinal));
        Assert.Equal(1, code);
        Assert.Contains($"--health-port 127.0.0.1:{port}", error, StringComparison.Ordinal);
        Assert.Single(error.TrimEnd().Split('\n'));
    }

    [Fact]
    public async Task A_door_certificate_that_is_none_is_named()
    {
        await using var tokyo = new TestCluster();
        var (cert, key) = tokyo.Certificate("server");
        File.WriteAllText(cert, "no certificate");
        var (code, error) = await RunAsync(string.Join(' ', tokyo.Arguments()));
        Assert.Equal(1, code);
        Assert.Contains($"clustermesh-apiserver: {cert}, {key}: ", error, StringComparison.Ordinal);
    }
}
