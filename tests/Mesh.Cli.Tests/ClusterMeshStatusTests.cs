using Mesh.AgentApi;
using Mesh.Cli.ClusterMesh;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>`mesh clustermesh status`: what it says for each state of a mesh, in the layout people know.</summary>
public sealed class ClusterMeshStatusTests
{
    private static readonly DateTimeOffset Now = new(2026, 1, 31, 8, 15, 0, TimeSpan.Zero);

    private static readonly RemoteCluster Ready = new()
    {
        Name = "c2",
        Ready = true,
        Connected = true,
        Config = new RemoteClusterConfig { Required = true, Retrieved = true, ClusterId = 2 },
        Synced = new RemoteClusterSynced { Nodes = true, Endpoints = true, Identities = true, Services = true },
    };

    private static NodeAnswer Node(string name, params RemoteCluster[] clusters) =>
        new(name, new StatusResponse { ClusterMesh = new ClusterMeshStatus { Clusters = clusters } }, null);

    private static ClusterMeshReport Report(IReadOnlyList<NodeAnswer> answers, params string[] expected) => new()
    {
        AccessInformation = new AccessInformation
        {
            ServiceIPs = ["172.18.0.3"],
            ServicePort = 2379,
            ClusterId = "1",
            ClusterName = "c1",
            Ca = "Y2E=",
            Tunnel = "vxlan",
            MaxConnectedClusters = 255,
        },
        Connectivity = ClusterMeshEvaluation.Evaluate(answers, expected, "mesh status --context lab/c1", Now),
        Unknown = answers.Any(a => a.Failure is not null)
            ? new SortedDictionary<string, string>(answers.Where(a => a.Failure is not null).ToDictionary(a => $"node \"{a.Node}\"", a => a.Failure!)) : null,
    };

    private const string Head = """
        ✅ Cluster access information is available:
          - 172.18.0.3:2379
        ✅ clustermesh-apiserver is ready
        ℹ️  KVStoreMesh is disabled


        """;

    [Fact]
    public void All_connected() => Assert.Equal(Head + """
        ✅ All 2 nodes are connected to all clusters [min:1 / avg:1.0 / max:1]

        🔌 Cluster Connections:
          - c2: 2/2 configured, 2/2 connected


        """, ClusterMeshText.Format(Report([Node("c1-1", Ready), Node("c1-2", Ready)], "c2")));

    private static ClusterMeshReport Relayed(RemoteCluster agents, Connectivity? relay) => Report([Node("c1-1", agents)], "c2") with
    {
        Connectivity = ClusterMeshEvaluation.Evaluate([Node("c1-1", agents)], ["c2"], "mesh status --context lab/c1", Now, relayed: true),
        KvstoreMesh = new KvstoreMesh { Enabled = true, Status = relay },
    };

    private static Connectivity Relay(params RemoteCluster[] clusters) =>
        ClusterMeshEvaluation.Evaluate([Node("clustermesh-apiserver", clusters)], ["c2"], null, Now);

    [Fact]
    public void Connected_through_a_relay()
    {
        var report = Relayed(Ready, Relay(Ready));
        Assert.Equal(Head.Replace("disabled", "enabled", StringComparison.Ordinal) + """
            ✅ All 1 nodes are connected to all clusters [min:1 / avg:1.0 / max:1]
            ✅ All 1 KVStoreMesh replicas are connected to all clusters [min:1 / avg:1.0 / max:1]

            🔌 Cluster Connections:
              - c2: 1/1 configured, 1/1 connected - KVStoreMesh: 1/1 configured, 1/1 connected


            """, ClusterMeshText.Format(report));
        Assert.True(report.IsConnected);
    }

    /// <summary>The nodes still read what the relay keeps; that alone is not connected.</summary>
    [Fact]
    public void A_relay_that_has_lost_its_peer_is_told_though_the_nodes_have_all()
    {
        var report = Relayed(Ready, Relay(new RemoteCluster { Name = "c2", Status = "no answer" }));
        Assert.False(report.IsConnected);
        Assert.Equal("1 KVStoreMesh replicas are not ready", report.WhatIsMissing);
        var text = ClusterMeshText.Format(report);
        Assert.Contains("⚠️  1/1 KVStoreMesh replicas are not connected to all clusters [min:0 / avg:0.0 / max:0]\n", text, StringComparison.Ordinal);
        Assert.Contains("  - c2: 1/1 configured, 1/1 connected - KVStoreMesh: 1/1 configured, 0/1 connected\n", text, StringComparison.Ordinal);
        Assert.Contains("  ❌ clustermesh-apiserver is not connected to cluster c2: no answer\n", text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_node_whose_relay_has_nothing_yet_is_told_where_to_look()
    {
        var waiting = new RemoteCluster { Name = "c2", Connected = true, Config = new RemoteClusterConfig { Required = true } };
        var text = ClusterMeshText.Format(Relayed(waiting, null));
        Assert.Contains("💡 This is likely caused by KVStoreMesh not being connected to the given cluster\n", text, StringComparison.Ordinal);
        Assert.Contains("1/1 configured, 0/1 connected - KVStoreMesh: status not available\n", text, StringComparison.Ordinal);
    }

    [Fact]
    public void No_cluster_configured() => Assert.Equal(Head + """

        🔌 No cluster connected


        """, ClusterMeshText.Format(Report([Node("c1-1"), Node("c1-2")])));

    [Fact]
    public void One_node_not_connected() => Assert.Equal(Head + """
        ⚠️  1/2 nodes are not connected to all clusters [min:0 / avg:0.5 / max:1]

        🔌 Cluster Connections:
          - c2: 2/2 configured, 1/2 connected

        ❌ 1 Errors:
          ❌ c1-1 is not connected to cluster c2: Waiting for initial connection to be established
             💡 Run 'mesh status --context lab/c1/c1-1 --all-clusters' to investigate the cause

        """, ClusterMeshText.Format(Report(
            [Node("c1-1", new RemoteCluster { Name = "c2", Status = "Waiting for initial connection to be established" }), Node("c1-2", Ready)], "c2")));

    [Fact]
    public void A_node_that_never_heard_of_a_configured_cluster_is_not_connected_to_it()
    {
        var text = ClusterMeshText.Format(Report([Node("c1-1"), Node("c1-2", Ready)], "c2"));
        Assert.Contains("⚠️  1/2 nodes are not connected to all clusters", text, StringComparison.Ordinal);
        Assert.Contains("  - c2: 1/2 configured, 1/2 connected", text, StringComparison.Ordinal);
        Assert.Contains("c1-1 is not connected to cluster c2: unknown status", text, StringComparison.Ordinal);
    }

    [Fact]
    public void An_agent_that_does_not_answer_makes_the_status_unknown_and_the_others_are_still_told()
    {
        var report = Report([new NodeAnswer("c1-1", null, "agent of node c1-1 does not answer"), Node("c1-2", Ready)], "c2");
        Assert.False(report.IsConnected);
        var text = ClusterMeshText.Format(report);
        Assert.Contains("  ❌ unable to determine status of node \"c1-1\": agent of node c1-1 does not answer\n", text, StringComparison.Ordinal);
        Assert.Contains("  - c2: 1/2 configured, 1/2 connected", text, StringComparison.Ordinal);
    }

    public static TheoryData<RemoteCluster?, string?> Causes => new()
    {
        { null, "unknown status" },
        { Ready, null },
        { Ready with { Ready = false, Connected = false, Status = "quorum check failed" }, "quorum check failed" },
        { Ready with { Ready = false, Config = null }, "remote cluster configuration retrieval status unknown" },
        { Ready with { Ready = false, Config = new RemoteClusterConfig { Required = true } }, "remote cluster configuration required but not found" },
        { Ready with { Ready = false, Synced = null }, "synchronization status unknown" },
        {
            Ready with { Ready = false, Synced = new RemoteClusterSynced { Identities = true, ServiceExports = false } },
            "synchronization in progress for endpoints, nodes, services, service-exports"
        },
        { Ready with { Ready = false }, "not ready" },
    };

    [Theory]
    [MemberData(nameof(Causes))]
    public void The_cause_is_the_first_that_applies(RemoteCluster? row, string? cause) => Assert.Equal(cause, ClusterMeshEvaluation.Cause(row));

    [Fact]
    public void A_connected_cluster_with_trouble_behind_it_is_told_as_a_warning()
    {
        var answer = Node("c1-1", Ready with { Problems = ["c2.imports.json: it is not JSON; the last good one is in force"] });
        answer = answer with
        {
            Status = answer.Status! with
            {
                Mesh = new MeshStatus
                {
                    Peers = [new PeerStatus { Name = "c2", Healthy = true, Quarantined = 2 }],
                    Rejections = [new PeerRejections { Name = "c2", Rejected = 5, Last = "cilium/state/ip/v1/default/x: not an address" }],
                    Tables =
                    [
                        new TableStatus { Name = "ipcache", Rows = 9, Failing = 1, Failures = [new RowFailure { Key = "10.2.0.1/32", Error = "map full" }] },
                    ],
                },
            },
        };
        var text = ClusterMeshText.Format(Report([answer], "c2"));
        Assert.Contains("✅ All 1 nodes are connected", text, StringComparison.Ordinal);
        Assert.EndsWith("""
            ⚠️  3 Warnings:
              ⚠️  c1-1: 1 of 9 rows of ipcache are not in the kernel, first 10.2.0.1/32: map full
              ⚠️  c1-1, cluster c2: 2 of its records are refused, last: cilium/state/ip/v1/default/x: not an address (mesh clustermesh quarantine)
              ⚠️  c1-1, cluster c2: c2.imports.json: it is not JSON; the last good one is in force

            """, text, StringComparison.Ordinal);
    }

    [Fact]
    public void A_file_that_the_relay_or_the_API_server_cannot_use_is_told_and_makes_the_whole_degraded()
    {
        var sound = Relayed(Ready, Relay(Ready));
        Assert.Equal(0, sound.ExitCode);
        var relay = Relayed(Ready, Relay(Ready with { Problems = ["/pki/remote.key: it is not a key in PEM; the last good one is in use"] }));
        Assert.Contains("  ⚠️  clustermesh-apiserver, cluster c2: /pki/remote.key: it is not a key in PEM", ClusterMeshText.Format(relay),
            StringComparison.Ordinal);
        Assert.Equal(3, relay.ExitCode);
        var door = sound with { ApiServerProblems = ["door: /pki/server.crt: no certificate"] };
        Assert.EndsWith("⚠️  1 Warnings:\n  ⚠️  clustermesh-apiserver: door: /pki/server.crt: no certificate\n", ClusterMeshText.Format(door),
            StringComparison.Ordinal);
        Assert.Equal(3, door.ExitCode);
    }

    [Fact]
    public void What_was_mended_is_no_warning_any_more()
    {
        var answer = Node("c1-1", Ready with { NumFailures = 3, LastFailure = Now - TimeSpan.FromSeconds(90) });
        answer = answer with
        {
            Status = answer.Status! with
            {
                Mesh = new MeshStatus
                {
                    Peers = [new PeerStatus { Name = "c2", Healthy = true, Refused = 5, Reconnections = 3, LastReconnection = "cut" }],
                    Rejections = [new PeerRejections { Name = "c2", Rejected = 5, Last = "cilium/state/ip/v1/default/x: not an address" }],
                },
            },
        };
        var report = Report([answer], "c2");
        Assert.DoesNotContain("Warning", ClusterMeshText.Format(report), StringComparison.Ordinal);
        // The evidence keeps it.
        var verbose = ClusterMeshText.Format(report with { Evidence = new() { ["c1-1"] = answer.Status!.Mesh!.Peers! } }, verbose: true);
        Assert.Contains("reconnections: 3, the last for: cut", verbose, StringComparison.Ordinal);
        Assert.Contains("5 refused since the start", verbose, StringComparison.Ordinal);
    }

    [Fact]
    public void What_stays_in_use_of_a_cluster_that_is_cut_off_is_told_and_since_when()
    {
        var cutOff = Ready with
        {
            Ready = false,
            Connected = false,
            Status = "connection refused",
            NumNodes = 2,
            NumEndpoints = 8,
            NumSharedServices = 1,
            NumFailures = 60,
            LastFailure = Now - TimeSpan.FromSeconds(1),
            ConnectedUntil = Now - TimeSpan.FromMinutes(10),
        };
        Assert.Contains("still using what was last known of it: 2 nodes, 8 endpoints, 1 services, cut off for 10m0s",
            ClusterMeshText.Format(Report([Node("c1-1", cutOff)], "c2")), StringComparison.Ordinal);
    }

    [Fact]
    public void Json_has_the_known_shape() => Assert.Equal("""
        {
         "access_information": {
          "service_ips": [
           "172.18.0.3"
          ],
          "service_port": 2379,
          "cluster_id": "1",
          "cluster_name": "c1",
          "ca": "Y2E=",
          "tunnel": "vxlan",
          "max_connected_clusters": 255
         },
         "connectivity": {
          "connected": {
           "avg": 0.5,
           "max": 1
          },
          "clusters": {
           "c2": {
            "configured": 2,
            "connected": 1
           }
          },
          "total": 2,
          "not_ready": 1,
          "errors": {
           "c1-1": {
            "c2": {
             "Errors": [
              "Waiting"
             ],
             "Warnings": [],
             "Disabled": false
            }
           }
          }
         },
         "kvstoremesh": {
          "enabled": false
         }
        }
        """, Report([Node("c1-1", new RemoteCluster { Name = "c2", Status = "Waiting" }), Node("c1-2", Ready)], "c2").ToJson());
}
