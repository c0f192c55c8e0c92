using Mesh.Datapath.Masquerade;
using Mesh.Model;
using Xunit;

namespace Mesh.Agent.Tests;

public class FlagTests
{
    private static readonly string[] Good =
        ["--cluster-name", "osaka", "--cluster-id", "2", "--node-name", "osaka-1", "--source", "manifests:/tmp/m"];

    private static (AgentOptions? Options, int ExitCode, string Error) Parse(params string[] more)
    {
        using var errors = new StringWriter();
        var (options, exitCode) = CommandLine.Parse([.. Good, .. more], errors);
        return (options, exitCode, errors.ToString());
    }

    [Fact]
    public void The_least_flags_make_an_agent_without_peers_and_without_a_cgroup()
    {
        var (options, exitCode, error) = Parse();
        Assert.Equal((0, ""), (exitCode, error));
        Assert.Equal("osaka/2", options!.Cluster.ToString());
        Assert.Equal("/tmp/m", options.Source.Manifests);
        Assert.Null(options.ClusterMeshConfig);
        Assert.Null(options.CgroupRoot);
        Assert.Null(options.PrometheusAddress);
        Assert.Equal(8472, options.TunnelPort);
        Assert.Equal(1_048_576u, options.IPCacheMapMax);
    }

    [Fact]
    public void The_size_of_the_ipcache_is_an_option() =>
        Assert.Equal(4_194_304u, Parse("--bpf-ipcache-map-max", "4194304").Options!.IPCacheMapMax);

    [Theory]
    [InlineData("30000,32767", 30000, 32767)]
    [InlineData("20000,22767", 20000, 22767)]
    [InlineData("8443,8443", 8443, 8443)]
    [InlineData("1,65535", 1, 65535)]
    public void NodePorts_are_looked_for_where_the_cluster_hands_them_out(string flag, int first, int last) =>
        Assert.Equal(((ushort)first, (ushort)last), Parse("--node-port-range", flag).Options!.NodePorts);

    [Fact]
    public void Without_a_range_NodePorts_are_those_of_Kubernetes() => Assert.Equal(((ushort)30000, (ushort)32767), Parse().Options!.NodePorts);

    [Fact]
    public void Pods_are_masqueraded_unless_it_is_switched_off()
    {
        Assert.Equal(new MasqueradeOptions { IPv4 = true, IPv6 = true }, Parse().Options!.Masquerade);
        Assert.Equal(
            new MasqueradeOptions { IPv4 = true, NativeRoutingIPv4 = IpPrefix.Parse("10.0.0.0/8") },
            Parse("--enable-ipv6-masquerade", "false", "--ipv4-native-routing-cidr", "10.0.0.0/8").Options!.Masquerade);
    }

    [Theory]
    [InlineData("--cluster-name=Osaka", "may hold only a-z, 0-9 and '-'")]
    [InlineData("--cluster-name=default", "reserved")]
    [InlineData("--cluster-id=0", "--cluster-id '0': must be 1 to 255")]
    [InlineData("--cluster-id=256", "--cluster-id '256': must be 1 to 255")]
    [InlineData("--cluster-id=-1", "--cluster-id '-1': must be 1 to 255")]
    [InlineData("--cluster-id=two", "--cluster-id 'two': must be 1 to 255")]
    [InlineData("--max-connected-clusters=256", "--max-connected-clusters '256': must be 255 or 511")]
    [InlineData("--node-name=", "--node-name '': must be the name of this node's CiliumNode object")]
    [InlineData("--source=/tmp/m", "--source '/tmp/m': must be manifests:DIRECTORY, kubernetes, or kubernetes:KUBECONFIG[#CONTEXT]")]
    [InlineData("--tunnel-port=0", "--tunnel-port '0': must be 1 to 65535")]
    [InlineData("--bpf-ipcache-map-max=1023", "--bpf-ipcache-map-max '1023': must be 1024 to 16777216")]
    [InlineData("--bpf-ipcache-map-max=16777217", "--bpf-ipcache-map-max '16777217': must be 1024 to 16777216")]
    [InlineData("--bpf-ipcache-map-max=many", "--bpf-ipcache-map-max 'many': must be 1024 to 16777216")]
    [InlineData("--tunnel-port=65536", "--tunnel-port '65536': must be 1 to 65535")]
    [InlineData("--cgroup-root=/tmp", "--cgroup-root '/tmp': must be a cgroup2 directory")]
    [InlineData("--prometheus-serve-addr=host:1", "--prometheus-serve-addr 'host:1': must be [IP]:PORT")]
    [InlineData("--bpf-root=", "--bpf-root '': must be a directory on a bpffs")]
    [InlineData("--enable-ipv4-masquerade=yes", "--enable-ipv4-masquerade 'yes': must be true or false")]
    [InlineData("--ipv4-native-routing-cidr=fd00::/8", "--ipv4-native-routing-cidr 'fd00::/8': must be a range such as 10.0.0.0/8, or empty")]
    [InlineData("--ipv6-native-routing-cidr=all", "--ipv6-native-routing-cidr 'all': must be a range such as fd00::/8, or empty")]
    [InlineData("--node-port-range=", "--node-port-range '': must be the first and the last port, such as 30000,32767")]
    [InlineData("--node-port-range=30000", "--node-port-range '30000': must be the first and the last port")]
    [InlineData("--node-port-range=30000-32767", "--node-port-range '30000-32767': must be the first and the last port, such as 30000,32767")]
    [InlineData("--node-port-range=32767,30000", "--node-port-range '32767,30000': must be the first and the last port")]
    [InlineData("--node-port-range=0,32767", "--node-port-range '0,32767': must be the first and the last port")]
    [InlineData("--node-port-range=30000,65536", "--node-port-range '30000,65536': must be the first and the last port")]
    [InlineData("--node-port-range=30000,-1", "--node-port-range '30000,-1': must be the first and the last port")]
    [InlineData("--node-port-range=30000,31000,32000", "--node-port-range '30000,31000,32000': must be the first and the last port")]
    [InlineData("--bogus", "--bogus: unknown; allowed are --cluster-name")]
    public void An_impossible_value_stops_it_with_one_line(string flag, string message)
    {
        var name = flag.Split('=')[0];
        using var errors = new StringWriter();
        string[] args = [.. Good.Chunk(2).Where(pair => pair[0] != name).SelectMany(pair => pair), flag];
        var (options, exitCode) = CommandLine.Parse(args, errors);
        Assert.Null(options);
        Assert.Equal(1, exitCode);
        Assert.Contains(message, errors.ToString());
        Assert.Single(errors.ToString().TrimEnd('\n').Split('\n'));
    }

    [Fact]
    public void With_511_clusters_higher_IDs_are_possible() => Assert.Equal(300u,
        CommandLine.Parse(["--cluster-name", "osaka", "--cluster-id", "300", "--max-connected-clusters", "511", "--node-name", "n", "--source", "manifests:/m"],
            TextWriter.Null).Options!.Cluster.Id);

    [Theory]
    [InlineData(":9962", "[::]:9962")]
    [InlineData("127.0.0.1:9962", "127.0.0.1:9962")]
    public void Metrics_are_served_where_they_are_asked_for(string flag, string address) =>
        Assert.Equal(address, Parse("--prometheus-serve-addr", flag).Options!.PrometheusAddress!.ToString());
}
