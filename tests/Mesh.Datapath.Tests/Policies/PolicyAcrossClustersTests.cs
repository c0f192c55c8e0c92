using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Datapath.Maps;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Policies;

/// <summary>Two nodes of two clusters on a wire; policies of one name pods of the other, and packets really cross or do not.</summary>
public sealed class PolicyAcrossClustersTests : IDisposable
{
    private readonly LiveNode _tokyo = new(cluster: 1);
    private readonly LiveNode _osaka = new(cluster: 2, policy: true);

    public PolicyAcrossClustersTests()
    {
        _tokyo.Space.Shell("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", _osaka.Space.Name);
        foreach (var cluster in (uint[])[1, 2])
            _osaka.Desired.Identities.Write(table => table.Upsert(cluster << 16 | 1, new IdentityRow(cluster << 16 | 1, new EquatableArray<string>(
                [$"k8s:app=pod", $"k8s:io.cilium.k8s.policy.cluster=cluster{cluster}", "k8s:io.kubernetes.pod.namespace=default"]), $"cluster{cluster}")));
        foreach (var node in (LiveNode[])[_tokyo, _osaka])
            node.Start(_tokyo, _osaka);
    }

    public void Dispose()
    {
        _tokyo.Dispose();
        _osaka.Dispose();
    }

    [Fact]
    public void A_policy_names_pods_of_another_cluster_by_their_labels()
    {
        using var web = Listener(8080);
        using var other = Listener(8081);
        Assert.True(Connects(8080));
        Assert.True(Connects(8081));

        Apply(From("cluster1", """, "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}]"""));
        Assert.True(Connects(8080));
        Assert.True(Connects(8080, v6: true));
        Assert.False(Connects(8081));
        Assert.True(Counted(DropReason.PolicyDenied) > 0);

        // The same workload of another cluster is not the one that is named.
        Apply(From("cluster3", ""));
        Assert.False(Connects(8080));
        // Nor is it meant by a selector that names none.
        Apply("""{"endpointSelector": {}, "ingress": [{"fromEndpoints": [{"matchLabels": {"app": "pod"}}]}]}""");
        Assert.False(Connects(8080));

        Remove();
        Assert.True(Connects(8080));
        Assert.True(Connects(8081));
        Assert.Single(_osaka.PolicyMaps.Endpoints());
        Assert.Empty(_osaka.PolicyMaps.Verdicts());
    }

    [Fact]
    public void A_pod_that_may_not_send_still_answers_and_its_node_reaches_it()
    {
        using var web = Listener(8080);
        Apply("""{"endpointSelector": {}, "egress": [{}], "ingress": [{"fromEntities": ["all"]}]}""");

        Assert.True(Connects(8080));
        _tokyo.Pod.Shell("ping", "-c", "1", "-W", "2", "10.2.0.1");
        _osaka.Space.Shell("ping", "-c", "1", "-W", "2", "10.2.0.1");
        Assert.Throws<InvalidOperationException>(() => _osaka.Pod.Shell("ping", "-c", "1", "-W", "1", "10.1.0.1"));
    }

    [Fact]
    public async Task No_allowed_packet_is_lost_and_no_denied_one_passes_while_policies_change()
    {
        string[] same =
        [
            From("cluster1", """, "icmps": [{"fields": [{"type": 8}]}]"""),
            """
            {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"], "icmps": [{"fields": [{"type": 8}, {"type": 13}]}]},
             {"fromEntities": ["host"]}]}
            """,
            """
            {"endpointSelector": {}, "ingress": [{"fromEntities": ["all"]}],
             "ingressDeny": [{"fromEntities": ["all"], "icmps": [{"fields": [{"type": 128, "family": "IPv6"}]}]}]}
            """,
        ];
        Apply(same[0]);
        var allowed = Task.Run(() => _tokyo.Pod.Shell("ping", "-q", "-i", "0.01", "-c", "300", "-W", "1", "10.2.0.1"));
        var denied = Task.Run(() => Assert.Throws<InvalidOperationException>(
            () => _tokyo.Pod.Shell("ping", "-q", "-i", "0.01", "-c", "300", "-W", "1", "fd00:2::1")));
        for (var i = 0; !allowed.IsCompleted; i++)
        {
            Apply(same[i % same.Length]);
            if (i % 10 == 5)
                _osaka.Restart();
        }

        Assert.Contains("300 packets transmitted, 300 received", await allowed);
        Assert.NotNull(await denied);
    }

    [Fact]
    public void A_restart_keeps_what_is_pinned_until_it_knows_better()
    {
        using var web = Listener(8080);
        Apply(From("cluster3", ""));
        var words = _osaka.PolicyMaps.Endpoints();
        _osaka.Restart();

        Assert.Equal(words, _osaka.PolicyMaps.Endpoints());
        Assert.False(Connects(8080));
        _osaka.TurnPolicies();
        Assert.False(Connects(8080));
    }

    /// <param name="more">Fields of the rule.</param>
    private static string From(string cluster, string more) =>
        $$"""
        {"endpointSelector": {"matchLabels": {"app": "pod"} }, "ingress": [
         {"fromEndpoints": [{"matchLabels": {"app": "pod", "io.cilium.k8s.policy.cluster": "{{cluster}}"} }]{{more}} }]}
        """;

    private void Apply(string spec) => Change(ObjectEventType.Upsert, spec);

    private void Remove() => Change(ObjectEventType.Delete, "{}");

    private void Change(ObjectEventType type, string spec)
    {
        using var document = JsonDocument.Parse(spec);
        var policy = new CiliumNetworkPolicy
        {
            Metadata = new ObjectMeta { Name = "policy", Namespace = "default" },
            Spec = document.RootElement.Clone(),
        };
        _osaka.Policies!.ApplyLocal([new ObjectEvent(type, policy)]);
        _osaka.TurnPolicies();
    }

    private ulong Counted(DropReason reason) => _osaka.Counters().Where(counter => counter.Reason == reason).Aggregate(0ul, (sum, one) => sum + one.Packets);

    private TcpListener Listener(int port) => _osaka.Pod.Run(() =>
    {
        var listener = TcpListener.Create(port);
        listener.Start();
        return listener;
    });

    private bool Connects(int port, bool v6 = false) => _tokyo.Pod.Run(() =>
    {
        using var client = new Socket(v6 ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(2));
            client.ConnectAsync(IPAddress.Parse(v6 ? "fd00:2::1" : "10.2.0.1"), port, deadline.Token).AsTask().GetAwaiter().GetResult();
            return true;
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException)
        {
            return false;
        }
    });
}
