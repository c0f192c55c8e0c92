using Mesh.Cli.Commands.Install;
using Mesh.Cli.Text;
using Mesh.Install.Charts;
using Mesh.Install.Preflight;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>What a person sees who mistypes: one line on stderr that says what is wrong and what is allowed, and exit code 1.</summary>
public sealed class CommandLineTests
{
    private static async Task<(int Code, string Output, string Error)> RunAsync(params string[] arguments)
    {
        var output = new StringWriter();
        var error = new StringWriter();
        var code = await MeshCommand.RunAsync(arguments, output, error);
        return (code, output.ToString(), error.ToString());
    }

    [Theory]
    [InlineData("lab up --foo",
        "mesh: mesh lab up does not know the flag --foo; allowed are --name, --clusters, --nodes, --pods, --unconnected, --direct, --help")]
    [InlineData("statsu",
        "mesh: mesh does not know 'statsu'; allowed are clustermesh, troubleshoot, status, health, metrics, connectivity, explain, observe, monitor, service, "
        + "node, ip, identity, endpoint, policy, bpf, ca, drill, host, pod, install, upgrade, uninstall, config, preflight, lab, demo, version")]
    [InlineData("lab", "mesh: mesh lab needs one of up, info, list, exec, etcdctl, down")]
    [InlineData("service list -o toml", "mesh: --output toml: must be text, json, yaml or jsonpath={…}: see mesh service list --help")]
    [InlineData("policy get -o jsonpath={.revision", "mesh: --output jsonpath={.revision: at character 11: '}' is missing: see mesh policy get --help")]
    [InlineData("status -o wide", "mesh: --output wide: must be text, summary, json, yaml or jsonpath={…}: see mesh status --help")]
    [InlineData("lab info --name ../etc", "mesh: lab name '../etc' must have 1 to 12 characters a-z and 0-9, the first a letter")]
    [InlineData("lab up --name a --clusters 9", "mesh: --clusters 9: must be 1 to 8")]
    [InlineData("clustermesh status --wait-duration soon", "mesh: --wait-duration soon: must be a duration such as 30s or 2m")]
    [InlineData("status --socket /nowhere/agent.sock", "mesh: agent does not answer on /nowhere/agent.sock: there is no such socket: is it running?")]
    [InlineData("status --socket /a --context b", "mesh: --socket and --context both say whom to ask: give one of them")]
    public async Task A_mistake_is_one_line(string line, string expected)
    {
        var (code, output, error) = await RunAsync(line.Split(' '));
        Assert.Equal(expected + "\n", error);
        Assert.Equal("", output);
        Assert.Equal(1, code);
    }

    /// <summary>The program in the image is asked by the one in a person's hand.</summary>
    [Theory]
    [InlineData("{}", null, "/etc/cni/net.d", false, true)]
    [InlineData("cni: {chainingMode: portmap, exclusive: false}", "/opt/cni/bin/portmap", "/etc/cni/net.d", false, false)]
    [InlineData("{cni: {install: false}, kubeProxyReplacement: true}", null, null, true, true)]
    public void What_the_preflight_asks_of_a_node_is_understood_there(string values, string? chained, string? cni, bool replaces, bool exclusive)
    {
        var words = ClusterPreflight.Command(Chart.OfThisProgram.Values.With(YamlText.ParseMap(values, "values")));
        Assert.Equal("/usr/bin/mesh", words[0]);
        var parsed = MeshCommand.Parse([.. words.Skip(1)], TextWriter.Null, TextWriter.Null);
        Assert.Empty(parsed.Errors.Select(error => error.Message));
        var asked = PreflightCommand.Questions(parsed);
        Assert.Equal((chained, cni, replaces, exclusive), (asked.ChainedPlugin, asked.CniConfPath, asked.ReplacesKubeProxy, asked.CniExclusive));
        Assert.Equal(("/sys/fs/bpf", "/sys/fs/cgroup", (ushort)8472, true), (asked.BpfRoot, asked.CgroupRoot, asked.TunnelPort, asked.MountsBpf));
    }

    [Fact]
    public async Task Version_prints_and_keeps_stderr_empty()
    {
        var (code, output, error) = await RunAsync("version");
        Assert.StartsWith("mesh ", output, StringComparison.Ordinal);
        Assert.Equal("", error);
        Assert.Equal(0, code);
    }

    [Theory]
    [InlineData("15m0s", 900)]
    [InlineData("1h2m3s", 3723)]
    [InlineData("500ms", 0.5)]
    [InlineData("1.5s", 1.5)]
    public void Durations_are_read_as_go_writes_them(string text, double seconds) => Assert.Equal(seconds, GoText.ParseDuration(text)!.Value.TotalSeconds);

    [Theory]
    [InlineData("")]
    [InlineData("5")]
    [InlineData("s")]
    [InlineData("5d")]
    [InlineData("1.2.3s")]
    [InlineData("99999999999999999h")]
    public void Anything_else_is_not_a_duration(string text) => Assert.Null(GoText.ParseDuration(text));
}
