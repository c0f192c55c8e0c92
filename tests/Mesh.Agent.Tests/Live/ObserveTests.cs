using System.Diagnostics;
using System.Net.Sockets;
using System.Text.Json.Nodes;
using Xunit;

namespace Mesh.Agent.Tests.Live;

/// <summary>`mesh observe` and `mesh monitor --drops` over a real node: what passes and what is dropped, told while it happens.</summary>
public sealed class ObserveTests(WatchedNode node) : IClassFixture<WatchedNode>
{
    [Fact]
    public async Task A_flow_is_told_with_its_pods_clusters_identities_and_the_service_that_was_asked_for()
    {
        using var watch = node.Begin("observe", "--follow", "-o", "json");
        var asked = JsonNode.Parse(await watch.UntilAsync(() => node.Connects(),
            line => Of(line, "EGRESS", WatchedNode.Front, WatchedNode.Back) && (string?)JsonNode.Parse(line)!["source"]!["pod"] is not null, "the question"))!;
        Assert.Equal(("FORWARDED", "TCP", "10.96.0.10:80", null), Outline(asked));
        Assert.Equal(("default/front", "osaka", WatchedNode.FrontIdentity), End(asked, "source"));
        Assert.Equal(("default/back", "osaka", WatchedNode.BackIdentity), End(asked, "destination"));
        Assert.Equal(8080, (int)asked["destination"]!["port"]!);
        Assert.Contains("k8s:app=front", asked["source"]!["labels"]!.AsArray().Select(label => (string)label!));

        // Its answer, which the client sees come from the service.
        await watch.UntilAsync(() => node.Connects(), line => JsonNode.Parse(line) is { } answer
            && End(answer, "destination") == ("default/front", "osaka", WatchedNode.FrontIdentity) && (string?)answer["service"] == "10.96.0.10:80",
            "the answer");

        // To another cluster, and from it.
        var far = JsonNode.Parse(await watch.UntilAsync(node.SendFar,
            line => Of(line, "EGRESS", WatchedNode.Front, WatchedNode.Kyoto), "a datagram to kyoto"))!;
        Assert.Equal(("FORWARDED", "UDP", "10.96.0.11:53", null), Outline(far));
        Assert.Equal(("default/far-1", "kyoto", WatchedNode.KyotoIdentity), End(far, "destination"));
        var come = JsonNode.Parse(await watch.UntilAsync(() => node.SendByTunnel(WatchedNode.KyotoNode),
            line => Of(line, "INGRESS", WatchedNode.Kyoto, WatchedNode.Front), "a datagram from kyoto"))!;
        Assert.Equal(("FORWARDED", "UDP", null, null), Outline(come));
        Assert.Equal(("default/far-1", "kyoto", WatchedNode.KyotoIdentity), End(come, "source"));
        Assert.Equal((0, ""), await watch.InterruptAsync());
    }

    [Fact]
    public async Task Drops_are_told_while_they_happen_and_nothing_else_is()
    {
        using var watch = node.Begin("monitor", "--drops", "--follow");
        // The control: a node of kyoto may send what a stranger may not.
        await watch.UntilAsync(
            () =>
            {
                node.SendByTunnel(WatchedNode.KyotoNode);
                node.SendByTunnel(WatchedNode.Stranger);
            },
            line => line.Contains("DROPPED (unknown sender)", StringComparison.Ordinal)
                && line.Contains($"{WatchedNode.Kyoto}:8192 (kyoto/default/far-1 {WatchedNode.KyotoIdentity}) -> {WatchedNode.Front}:8193",
                    StringComparison.Ordinal),
            "a stranger's packet is dropped");
        using (node.ForbidBack())
        {
            var denied = await watch.UntilAsync(() => node.Connects(), line => line.Contains($"-> {WatchedNode.Near}:80 ", StringComparison.Ordinal),
                "a connection is denied");
            Assert.Contains($"(osaka/default/front {WatchedNode.FrontIdentity})", denied, StringComparison.Ordinal);
            Assert.Contains("egress DROPPED (policy denied by denylist)", denied, StringComparison.Ordinal);
        }
        await node.UntilAsync(() => node.Connects(), "near answers again");
        Assert.Equal((0, ""), await watch.InterruptAsync());
        Assert.All(watch.Lines, line => Assert.Contains(" DROPPED (", line, StringComparison.Ordinal));
    }

    [Fact]
    public async Task Only_the_flows_that_were_asked_for_are_told()
    {
        using var watch = node.Begin("observe", "-f", "-o", "json", "--from", "front", "--to", WatchedNode.Far,
            "--port", "53", "--protocol", "udp", "--verdict", "forwarded");
        await watch.UntilAsync(
            () =>
            {
                node.Connects();
                node.SendFar();
                node.SendByTunnel(WatchedNode.KyotoNode);
                node.SendByTunnel(WatchedNode.Stranger);
            },
            _ => watch.Lines.Count >= 5, "five datagrams");
        Assert.All(watch.Lines, line => Assert.True(Of(line, "EGRESS", WatchedNode.Front, WatchedNode.Kyoto), line));
        Assert.Equal((0, ""), await watch.InterruptAsync());
        using var wrong = node.Begin("observe", "--protocol", "tpc");
        Assert.Equal((1, "mesh: --protocol tpc: must be tcp, udp, sctp, icmp or icmpv6\n"), await wrong.EndAsync());
    }

    [Fact]
    public async Task A_name_that_no_pod_has_is_said_at_once_with_those_that_are_near()
    {
        const string unknown = "mesh: --from fornt: no pod of that name is known on this node now; near are default/front";
        using (var bounded = node.Begin("observe", "--from", "fornt"))
            Assert.Equal((1, $"{unknown}\n"), await bounded.EndAsync());
        // Its pod may come: whoever follows goes on, and hears of it.
        using (var following = node.Begin("observe", "-f", "--from", "fornt"))
        {
            Assert.Equal($"{unknown}; watching on, it may come", await following.FirstErrorAsync());
            Assert.Equal((0, ""), await following.InterruptAsync());
        }
        // The controls: a pod that there is, and an address that nobody has.
        using (var known = node.Begin("observe", "--for", "1", "--from", "default/front", "--to", "back"))
            Assert.Equal((0, ""), await known.EndAsync());
        using var address = node.Begin("observe", "--for", "1", "--to", "192.0.2.9");
        Assert.Equal((0, ""), await address.EndAsync());
    }

    [Fact]
    public async Task Ctrl_C_ends_it_well_also_while_an_agent_is_asked_that_does_not_answer()
    {
        var path = Path.Combine(Path.GetDirectoryName(node.SocketPath)!, "deaf.sock");
        using var deaf = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        deaf.Bind(new UnixDomainSocketEndPoint(path));
        deaf.Listen();
        using var watch = new Watch(["observe", "-f", "--from", "front", "--bpf-root", node.BpfRoot, "--socket", path]);
        using var asked = await deaf.AcceptAsync(Watch.Deadline());
        Assert.Equal(0, (await watch.InterruptAsync()).Exit);
    }

    [Fact]
    public async Task A_second_watcher_is_refused_by_name_and_the_first_goes_on()
    {
        using var first = node.Begin("observe", "-f");
        await first.UntilAsync(() => node.Connects(), _ => true, "anything");
        using var second = node.Begin("monitor", "--drops");
        Assert.Equal((1, $"mesh: process {first.ProcessId} watches this node already: end it, or watch there\n"), await second.EndAsync());
        var before = first.Lines.Count;
        await first.UntilAsync(() => node.Connects(), _ => first.Lines.Count > before, "more");
    }

    [Fact]
    public async Task Nothing_is_told_when_nobody_watches_however_the_last_one_ended()
    {
        using (var watch = node.Begin("observe", "-f"))
        {
            await watch.UntilAsync(() => node.Connects(), _ => true, "anything");
            Assert.NotEqual(0ul, node.ToldUntil);
            await watch.InterruptAsync();
        }
        Assert.Equal(0ul, node.ToldUntil);
        using (var killed = node.Begin("observe", "-f"))
        {
            await killed.UntilAsync(() => node.Connects(), _ => true, "anything");
            killed.Kill();
            await killed.EndAsync();
        }
        // Its deadline runs out, and the first packet behind it finds that out.
        Assert.InRange(node.ToldUntil, 1ul, (ulong)Stopwatch.GetTimestamp() + 3_000_000_000);
        Assert.True(SpinWait.SpinUntil(() => node.Connects() && node.ToldUntil == 0, TimeSpan.FromSeconds(20)));
        // And whoever comes next finds the place free.
        using var next = node.Begin("observe", "--for", "1", "--last", "2");
        await next.UntilAsync(() => node.Connects(), _ => next.Lines.Count == 2, "two lines");
        Assert.Equal((0, ""), await next.EndAsync());
        Assert.Equal(2, next.Lines.Count);
    }

    private static bool Of(string line, string direction, string source, string destination)
    {
        var flow = JsonNode.Parse(line)!;
        return (string?)flow["direction"] == direction && (string?)flow["source"]!["address"] == source
            && (string?)flow["destination"]!["address"] == destination;
    }

    private static (string Verdict, string Protocol, string? Service, string? Reason) Outline(JsonNode flow) =>
        ((string)flow["verdict"]!, (string)flow["protocol"]!, (string?)flow["service"], (string?)flow["reason"]);

    private static (string? Pod, string? Cluster, uint Identity) End(JsonNode flow, string end) =>
        ((string?)flow[end]!["pod"], (string?)flow[end]!["cluster"], (uint)flow[end]!["identity"]!);
}
