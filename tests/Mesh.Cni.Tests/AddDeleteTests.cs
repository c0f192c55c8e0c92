using System.Text.Json;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>A pod's network from ADD to DEL: real plugin, real agent, real kernel.</summary>
public sealed class AddDeleteTests(SharedNode shared) : IClassFixture<SharedNode>
{
    private const string Router = "10.40.1.1";

    private readonly CniNode _node = shared.Node;

    [Fact]
    public async Task Two_pods_reach_each_other_until_one_is_deleted_and_nothing_is_left_of_both()
    {
        using var first = CniNode.NewContainer();
        using var second = CniNode.NewContainer();
        var one = _node.Add(first, "c1", "one");
        var two = _node.Add(second, "c2", "two");
        Assert.Equal(2, two.Addresses.Count);
        CniNode.Reaches(first, two.Addresses);
        Assert.Equal((2, 4), await _node.CountAsync());

        _node.Delete("c2", second);
        Assert.Throws<InvalidOperationException>(() => first.Shell("ping", "-c", "1", "-W", "1", two.Addresses[0]));
        // The other one's way out is as it was.
        CniNode.Reaches(first, Router, "fd00:40:1::1");
        _node.Delete("c1", first);
        await _node.NothingLeftAsync();
        Assert.DoesNotContain("eth0", first.Shell("ip", "link"), StringComparison.Ordinal);
        Assert.NotEqual(one.Addresses, two.Addresses);
    }

    [Theory]
    [InlineData("0.3.1", true, false)]
    [InlineData("0.4.0", true, false)]
    [InlineData("1.0.0", false, false)]
    [InlineData("1.1.0", false, true)]
    public async Task A_result_has_the_shape_of_the_callers_version(string version, bool hasFamily, bool hasMtu)
    {
        using var space = CniNode.NewContainer();
        var result = _node.Add(space, "shape", "shape", version).Json;
        Assert.Equal(version, result.GetProperty("cniVersion").GetString());
        var inside = result.GetProperty("interfaces")[1];
        Assert.Equal(("eth0", CniNode.PathOf(space)), (inside.GetProperty("name").GetString(), inside.GetProperty("sandbox").GetString()));
        Assert.Equal(hasMtu, inside.TryGetProperty("mtu", out _));
        Assert.Equal([hasFamily, hasFamily], result.GetProperty("ips").EnumerateArray().Select(ip => ip.TryGetProperty("version", out _)));
        Assert.Equal(["32", "128"], result.GetProperty("ips").EnumerateArray().Select(ip => ip.GetProperty("address").GetString()!.Split('/')[1]));
        Assert.Contains("0.0.0.0/0", result.GetProperty("routes").EnumerateArray().Select(route => route.GetProperty("dst").GetString()));
        Assert.Equal(JsonValueKind.Object, result.GetProperty("dns").ValueKind);
        // 1500 of the underlay less 50 of the tunnel.
        Assert.Contains("mtu 1450", space.Shell("ip", "link", "show", "eth0"), StringComparison.Ordinal);
        _node.Delete("shape", space);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task A_second_ADD_is_refused_and_the_pod_keeps_its_network()
    {
        using var space = CniNode.NewContainer();
        var pod = _node.Add(space, "twice", "twice");
        var again = _node.Call("ADD", "twice", CniNode.PathOf(space), "twice");
        Assert.Equal(4, again.Code);
        Assert.Contains("CNI_IFNAME eth0 exists already", again.Message, StringComparison.Ordinal);
        CniNode.Reaches(space, Router);
        Assert.Contains(pod.Addresses[0], space.Shell("ip", "addr", "show", "eth0"), StringComparison.Ordinal);
        Assert.Equal((1, 2), await _node.CountAsync());

        // The same container is added once its network has been deleted.
        _node.Delete("twice", space);
        _node.Add(space, "twice", "twice");
        CniNode.Reaches(space, Router);
        _node.Delete("twice", space);
        await _node.NothingLeftAsync();
    }

    [Theory]
    [InlineData("/run/netns/of-nobody", 3, "does not exist")]
    [InlineData("/etc/hostname", 4, "cannot be entered as a network namespace")]
    [InlineData("", 4, "CNI_NETNS is empty")]
    [InlineData("/proc/self/ns/net", 4, "node's own network namespace")]
    public async Task A_broken_network_namespace_is_named_and_nothing_is_half_done(string path, int code, string reason)
    {
        var answer = _node.Call("ADD", "broken", path, "broken");
        Assert.Equal((1, code), (answer.ExitCode, answer.Code));
        Assert.Contains(reason, answer.Message, StringComparison.Ordinal);
        await _node.NothingLeftAsync();
    }

    [Theory]
    [InlineData("", "eth0", "pod", "CNI_CONTAINERID ''")]
    [InlineData("../c", "eth0", "pod", "CNI_CONTAINERID '../c'")]
    [InlineData("c", "a/b", "pod", "CNI_IFNAME 'a/b'")]
    [InlineData("c", "sixteen-letters-", "pod", "CNI_IFNAME 'sixteen-letters-'")]
    [InlineData("c", "eth0", "", "K8S_POD_NAME")]
    public async Task A_wrong_variable_is_named(string container, string device, string pod, string named)
    {
        using var space = CniNode.NewContainer();
        var answer = _node.Call("ADD", container, CniNode.PathOf(space), pod, device: device);
        Assert.Equal(4, answer.Code);
        Assert.Contains(named, answer.Message, StringComparison.Ordinal);
        await _node.NothingLeftAsync();
    }

    [Theory]
    [InlineData("9.9.9", "", 1, "cniVersion '9.9.9'")]
    [InlineData("1.0.0", "\"prevResult\":{},", 7, "prevResult")]
    [InlineData("1.0.0", "oops", 6, "standard input")]
    public void A_wrong_configuration_is_named(string version, string more, int code, string named)
    {
        using var space = CniNode.NewContainer();
        var answer = _node.Call("ADD", "conf", CniNode.PathOf(space), "conf", version, more);
        Assert.Equal(code, answer.Code);
        Assert.Contains(named, answer.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task DEL_for_nobody_and_DEL_twice_succeed_and_harm_nobody()
    {
        using var space = CniNode.NewContainer();
        _node.Add(space, "stays", "stays");
        _node.Delete("nobody");
        _node.Good(_node.Call("DEL", "nobody", "/run/netns/of-nobody"));
        CniNode.Reaches(space, Router);
        Assert.Equal((1, 2), await _node.CountAsync());
        _node.Delete("stays", space);
        _node.Delete("stays", space);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task CHECK_tells_what_is_not_as_ADD_left_it()
    {
        using var space = CniNode.NewContainer();
        var pod = _node.Add(space, "check", "check");
        CniAnswer Check() => _node.Call("CHECK", "check", CniNode.PathOf(space), more: $"\"prevResult\":{pod.Output.Trim()},");
        _node.Good(Check());
        space.Shell("ip", "route", "del", "default");
        Assert.Contains("default route via 10.40.1.1 is gone", Check().Message, StringComparison.Ordinal);
        space.Shell("ip", "addr", "del", $"{pod.Addresses[0]}/32", "dev", "eth0");
        Assert.Contains($"lost its address {pod.Addresses[0]}", Check().Message, StringComparison.Ordinal);
        await _node.Client.DeleteEndpointAsync("default", "check");
        space.Shell("ip", "link", "del", "eth0");
        Assert.Equal(102, Check().Code);
        _node.Delete("check", space);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task GC_removes_what_does_not_live_and_nothing_else()
    {
        using var living = CniNode.NewContainer();
        using var dead = CniNode.NewContainer();
        using var byHand = new NetworkNamespace();
        _node.Add(living, "living", "living");
        _node.Add(dead, "dead", "dead");
        // Neither another network's device nor a pod that no plugin made is ours to remove.
        _node.Shell("ip", "link", "add", "lxcother", "type", "veth", "peer", "name", "eth0", "netns", byHand.Name);
        _node.Shell("ip", "link", "set", "lxcother", "alias", "cni other abc:eth0");
        await _node.Client.PutEndpointAsync(new()
        {
            K8sNamespace = "default",
            K8sPodName = "by-hand",
            InterfaceName = "lxcother",
            Mac = "0a:00:00:00:00:01",
            HostMac = "0a:00:00:00:00:02",
            Addressing = new() { Ipv4 = "10.40.1.200" },
        });

        var refused = _node.Call("GC", "", "");
        Assert.Equal(7, refused.Code);
        Assert.Equal(3, (await _node.CountAsync()).Pods);
        _node.Good(_node.Call("GC", "", "", more: """ "cni.dev/valid-attachments":[{"containerID":"living","ifname":"eth0"}], """));
        Assert.Equal(["default/by-hand", "default/living"],
            (await _node.Client.GetEndpointsAsync()).Select(pod => pod.Status!.ExternalIdentifiers!.PodName).Order());
        Assert.Equal(2, _node.Devices().Count);
        CniNode.Reaches(living, Router);

        await _node.Client.DeleteEndpointAsync("default", "by-hand");
        _node.Shell("ip", "link", "del", "lxcother");
        _node.Delete("living", living);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task A_pod_made_anew_under_its_name_has_the_new_device_whenever_the_old_one_is_deleted()
    {
        using var old = CniNode.NewContainer();
        using var young = CniNode.NewContainer();
        _node.Add(old, "sandbox-1", "stateful-0");
        _node.Add(young, "sandbox-2", "stateful-0");
        _node.Delete("sandbox-1", old);
        CniNode.Reaches(young, Router);
        Assert.Equal((1, 2), await _node.CountAsync());
        _node.Delete("sandbox-2", young);
        await _node.NothingLeftAsync();
    }

    [Fact]
    public async Task A_pod_whose_namespace_ended_without_DEL_is_forgotten()
    {
        using (var space = CniNode.NewContainer())
            _node.Add(space, "silent", "silent");
        await _node.NothingLeftAsync();
    }

    [Fact]
    public void VERSION_needs_nothing_else()
    {
        var answer = _node.Good(_node.Call("VERSION", "", "", version: "0.4.0"));
        Assert.Equal("0.4.0", answer.Json.GetProperty("cniVersion").GetString());
        Assert.Equal(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            answer.Json.GetProperty("supportedVersions").EnumerateArray().Select(version => version.GetString()));
        Assert.Equal(4, _node.Call("WIPE", "", "").Code);
    }
}
