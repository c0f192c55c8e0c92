using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Text;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh status`, blank for blank as cilium-dbg 1.17 prints the same answer.</summary>
public sealed class StatusTextTests
{
    private const string Connected = """
        {"cilium":{"state":"Ok","msg":"mesh-agent 0.1"},
         "cluster-mesh":{"num-global-services":2,"clusters":[{"name":"k8s-c2","ready":true,"connected":true,
           "status":"etcd: 1/1 connected, leases=0, lock leases=0, has-quorum=true: endpoint status checks are disabled, ID: c6ba18866da7dfd8",
           "num-nodes":3,"num-endpoints":25,"num-identities":8,"num-shared-services":10,"num-failures":0,
           "config":{"required":true,"retrieved":true,"cluster-id":2,"sync-canaries":true,"service-exports-enabled":false},
           "synced":{"nodes":true,"endpoints":true,"identities":true,"services":true}}]}}
        """;

    private static string Print(string json, bool all, DateTimeOffset now = default) =>
        StatusText.Format(JsonSerializer.Deserialize(json, AgentApiJson.Wire.StatusResponse)!, all, now);

    [Fact]
    public void A_ready_cluster_is_shown_with_all_clusters() => Assert.Equal(
        """
        Cilium:        Ok   mesh-agent 0.1
        NodeMonitor:   Disabled
        ClusterMesh:   1/1 remote clusters ready, 2 global-services
           k8s-c2: ready, 3 nodes, 25 endpoints, 8 identities, 10 services, 0 MCS-API service exports, 0 reconnections (last: never)
           └  etcd: 1/1 connected, leases=0, lock leases=0, has-quorum=true: endpoint status checks are disabled, ID: c6ba18866da7dfd8
           └  remote configuration: expected=true, retrieved=true, cluster-id=2, kvstoremesh=false, sync-canaries=true, service-exports=disabled
           └  synchronization status: nodes=true, endpoints=true, identities=true, services=true
        Proxy Status:            No managed proxy redirect
        Global Identity Range:   Unknown
        Cluster health:             Probe disabled

        """, Print(Connected, all: true));

    [Fact]
    public void A_ready_cluster_is_hidden_otherwise() => Assert.DoesNotContain("k8s-c2", Print(Connected, all: false), StringComparison.Ordinal);

    [Fact]
    public void A_cluster_that_is_not_ready_is_always_shown()
    {
        var text = Print("""
            {"cluster-mesh":{"clusters":[{"name":"k8s-c3","status":"Waiting for initial connection to be established",
              "num-failures":3,"last-failure":"2026-01-31T08:15:00.000Z"}]}}
            """, all: false, new DateTimeOffset(2026, 1, 31, 8, 18, 2, TimeSpan.Zero));
        Assert.Contains(
            """
               k8s-c3: not-ready, 0 nodes, 0 endpoints, 0 identities, 0 services, 0 MCS-API service exports, 3 reconnections (last: 3m2s ago)
               └  Waiting for initial connection to be established
               └  remote configuration: expected=unknown, retrieved=unknown

            """, text, StringComparison.Ordinal);
        Assert.DoesNotContain("synchronization status", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Programs_of_another_layout_that_still_serve_are_told_and_nothing_is_said_otherwise()
    {
        var text = Print("""
            {"cilium":{"state":"Warning","msg":"mesh-agent 0.1: programs of layout v1-0 serve until the maps of v2-0 hold frontends, ipcache"},
             "mesh":{"switching":"programs of layout v1-0 serve until the maps of v2-0 hold frontends, ipcache","tables":[]}}
            """, all: false);
        Assert.Contains("Maps: programs of layout v1-0 serve until the maps of v2-0 hold frontends, ipcache\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("Maps:", Print("""{"mesh":{"tables":[]}}""", all: false), StringComparison.Ordinal);
        // What is not so is not on the wire.
        Assert.DoesNotContain("switching", JsonSerializer.Serialize(new MeshStatus(), AgentApiJson.Wire.MeshStatus), StringComparison.Ordinal);
    }

    [Fact]
    public void Of_a_problem_whose_time_nobody_knows_none_is_told()
    {
        var text = Print("""
            {"mesh":{"tables":[],"source-problems":[{"where":"services","message":"two have one address"}]}}
            """, all: false);
        Assert.Contains("   └  services: two have one address\n", text, StringComparison.Ordinal);
    }

    [Fact]
    public void Rows_that_the_kernel_refused_are_told_with_their_reason()
    {
        var text = Print("""
            {"mesh":{"tables":[{"name":"ipcache","rows":30,"pending":1,"failing":2,
              "failures":[{"key":"10.1.0.3/32","error":"map ipcache4 is full","attempts":5,"since":"2026-01-31T08:15:00.000Z"}]}],
              "rejections":[{"name":"tokyo","rejected":7,"last":"key x: not JSON"}],"drops":{"no tunnel endpoint":4,"policy":0}}}
            """, all: false, new DateTimeOffset(2026, 1, 31, 8, 15, 3, TimeSpan.Zero));
        Assert.Contains("Table ipcache:   30 rows   2 failing, 1 pending\n", text, StringComparison.Ordinal);
        Assert.Contains("   └  10.1.0.3/32: map ipcache4 is full (5 attempts, since 3s ago)\n", text, StringComparison.Ordinal);
        Assert.Contains("Records of tokyo rejected: 7, last: key x: not JSON\n", text, StringComparison.Ordinal);
        Assert.Contains("Packets dropped: no tunnel endpoint 4\n", text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Ok", true, "OK")]
    [InlineData("Disabled", true, "OK")]
    [InlineData("Warning", false, "error in cilium: because")]
    [InlineData("Failure", false, "error in cilium: because")]
    public void The_agents_state_decides_brief_and_exit_code(string state, bool healthy, string brief)
    {
        var status = new StatusResponse { Cilium = new Status { State = state, Msg = "because" } };
        Assert.Equal(healthy, StatusText.IsHealthy(status));
        Assert.Equal(brief, StatusText.Brief(status));
    }
}
