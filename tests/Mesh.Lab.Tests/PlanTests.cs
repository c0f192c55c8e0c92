using Mesh.Lab.Plan;
using Mesh.Model;
using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>Names and addresses: what a lab consists of is settled before the first thing is made. Needs no privileges.</summary>
public sealed class PlanTests
{
    private static readonly Programs Programs = new("/bin/mesh", "/bin/mesh-agent", "/bin/clustermesh-apiserver");

    private static LabPlan Plan(int clusters = 3, int nodes = 2, int pods = 2) =>
        LabPlanner.Plan(new LabSpec("lab", clusters, nodes, pods), Programs, "/sys/fs/cgroup");

    [Fact]
    public void Names_and_addresses_are_as_documented()
    {
        var plan = Plan();
        Assert.Equal(["tokyo", "osaka", "nagoya"], plan.Clusters.Select(c => c.Name));
        var pod = plan.Clusters[1].Nodes[0].Pods[1];
        Assert.Equal(("rebel-base-1-2", "lab-osaka-1-2", "10.2.1.12", "fd00:10:2:1::12"), (pod.Name, pod.Namespace, pod.IPv4, pod.IPv6));
        Assert.Equal(("10.98.0.10", "fd00:96:2::10", "https://172.30.2.100:2379"),
            (plan.Clusters[1].ServiceIPv4, plan.Clusters[1].ServiceIPv6, plan.Clusters[1].Etcd.Endpoint));
    }

    [Fact]
    public void Nothing_in_the_largest_lab_has_the_name_or_address_of_another()
    {
        var plan = Plan(LabSpec.ClustersMax, LabSpec.NodesMax, LabSpec.PodsMax);
        Distinct(plan.Clusters.Select(c => c.Namespace).Concat(plan.Nodes.Select(n => n.Namespace))
            .Concat(plan.Pods.Select(p => p.Namespace)).Append(plan.WanNamespace));
        Distinct(plan.Clusters.Select(c => c.Ip).Concat(plan.Nodes.Select(n => n.Ip)).Concat(plan.Pods.Select(p => p.IPv4))
            .Concat(plan.Nodes.Select(n => n.InternalIPv4)).Concat(plan.Clusters.Select(c => c.ServiceIPv4)));
        Distinct(plan.Pods.Select(p => p.IPv6).Concat(plan.Nodes.Select(n => n.InternalIPv6)).Concat(plan.Clusters.Select(c => c.ServiceIPv6)));
        Distinct(plan.Pods.SelectMany(p => new[] { p.Mac, p.HostMac }));
        Distinct(plan.Processes.Select(p => p.Name));

        static void Distinct(IEnumerable<string> names) => Assert.Empty(names.GroupBy(n => n).Where(g => g.Count() > 1).Select(g => g.Key));
    }

    [Fact]
    public void Every_pod_address_lies_in_its_nodes_range_and_every_port_name_fits_an_interface()
    {
        var plan = Plan(LabSpec.ClustersMax, LabSpec.NodesMax, LabSpec.PodsMax);
        Assert.All(plan.Nodes, node => Assert.All(node.Pods, pod =>
        {
            Assert.True(IpPrefix.Parse(node.PodCidrIPv4).Contains(IpAddr.Parse(pod.IPv4)));
            Assert.True(IpPrefix.Parse(node.PodCidrIPv6).Contains(IpAddr.Parse(pod.IPv6)));
        }));
        Assert.All(plan.Nodes.Select(n => n.Name).Concat(plan.Clusters.Select(c => $"{c.Name}-cp")), name => Assert.InRange(name.Length, 1, 15));
    }

    [Fact]
    public void A_plan_survives_its_file()
    {
        var plan = Plan();
        Assert.Equal(plan.ToJson(), LabPlan.FromJson(plan.ToJson()).ToJson());
    }

    [Fact]
    public void Each_process_has_a_keeper_and_the_keepers_have_each_other()
    {
        var plan = Plan();
        Assert.Equal(LabPlanner.TwinName, plan.Processes.Single(p => p.Name == LabPlanner.KeeperName).Keeper);
        Assert.All(plan.Processes.Where(p => p.Name != LabPlanner.KeeperName), p => Assert.Equal(LabPlanner.KeeperName, p.Keeper));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(8)]
    public void Every_two_clusters_join_once_and_nobody_joins_twice_at_a_time(int clusters)
    {
        var rounds = LabJoin.Rounds(Plan(clusters).Clusters).ToList();
        Assert.All(rounds, round =>
        {
            var busy = round.SelectMany(pair => new[] { pair.Issuer.Id, pair.Taker.Id }).ToList();
            Assert.Equal(busy.Count, busy.Distinct().Count());
        });
        var pairs = rounds.SelectMany(round => round).ToList();
        Assert.Equal(clusters * (clusters - 1) / 2, pairs.Select(pair => (pair.Issuer.Id, pair.Taker.Id)).Distinct().Count());
        Assert.All(pairs, pair => Assert.True(pair.Issuer.Id < pair.Taker.Id));
    }

    [Theory]
    [InlineData("")]
    [InlineData("..")]
    [InlineData("a/b")]
    [InlineData("lab-2")]
    [InlineData("Lab")]
    [InlineData("2lab")]
    [InlineData("thirteenchars")]
    [InlineData("a b")]
    [InlineData("lab\n")]
    public void A_name_that_is_not_simple_is_refused(string name) =>
        Assert.Contains("must have 1 to 12 characters a-z and 0-9", Assert.Throws<LabException>(() => LabSpec.RootOf(name)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData(0, 1, 1, "--clusters 0: must be 1 to 8")]
    [InlineData(1, 17, 1, "--nodes 17: must be 1 to 16")]
    [InlineData(1, 1, -1, "--pods -1: must be 1 to 32")]
    public void An_impossible_number_is_refused(int clusters, int nodes, int pods, string message) =>
        Assert.Equal(message, Assert.Throws<LabException>(() => new LabSpec("lab", clusters, nodes, pods).Validate()).Message);

    [Theory]
    [InlineData("osaka/osaka-1", "osaka/osaka-1")]
    [InlineData("osaka/2", "osaka/osaka-2")]
    [InlineData("osaka/1/2", "osaka/osaka-1/rebel-base-1-2")]
    [InlineData("nagoya/cp", "nagoya/cp")]
    [InlineData("tokyo/tokyo-2/rebel-base-2-1", "tokyo/tokyo-2/rebel-base-2-1")]
    public void A_place_is_found_by_name_or_number(string path, string name) => Assert.Equal(name, LabPlace.Find(Plan(), path).Name);

    [Theory]
    [InlineData("kyoto/1", "there is no cluster 'kyoto', only tokyo, osaka, nagoya")]
    [InlineData("osaka/3", "there is no node '3' in osaka, only osaka-1, osaka-2")]
    [InlineData("osaka/1/9", "there is no pod '9' on osaka-1, only rebel-base-1-1, rebel-base-1-2")]
    [InlineData("osaka", "'osaka' must be CLUSTER/NODE, CLUSTER/NODE/POD or CLUSTER/cp, such as tokyo/tokyo-1/rebel-base-1-1")]
    public void A_place_that_is_not_there_is_answered_with_those_that_are(string path, string message) =>
        Assert.Equal(message, Assert.Throws<LabException>(() => LabPlace.Find(Plan(), path)).Message);
}
