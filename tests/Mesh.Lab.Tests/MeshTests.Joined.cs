using System.Globalization;
using System.Net;
using System.Security.Cryptography.X509Certificates;
using Mesh.Joining.Tokens;
using Mesh.Lab.Native;
using Mesh.Lab.Plan;
using Xunit;

namespace Mesh.Lab.Tests;

/// <summary>How the clusters of a lab came to know each other, read from its files, its processes and the kernel.</summary>
public sealed partial class MeshTests
{
    private static X509Certificate2 Certificate(string file) => X509CertificateLoader.LoadCertificateFromFile(file);

    private static string CommonName(X509Certificate2 certificate) => certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: false);

    private static string Issuer(X509Certificate2 certificate) => certificate.GetNameInfo(X509NameType.SimpleName, forIssuer: true);

    /// <summary>Doors that a process's network namespace has connections to.</summary>
    private static IEnumerable<string> DoorsReadFrom(ProcessReference process)
    {
        const string established = "01";
        foreach (var line in new[] { "tcp", "tcp6" }.SelectMany(table => File.ReadLines($"/proc/{process.Pid}/net/{table}").Skip(1)))
        {
            var fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            var (address, port) = (fields[2].Split(':')[0], int.Parse(fields[2].Split(':')[1], NumberStyles.HexNumber, CultureInfo.InvariantCulture));
            // Each four bytes are a number in the machine's order; an IPv4 peer of a dual-mode socket is in the last.
            if (fields[3] == established && port == LabPlanner.DoorPort)
                yield return new IPAddress(uint.Parse(address[^8..], NumberStyles.HexNumber, CultureInfo.InvariantCulture)).ToString();
        }
    }

    private static IReadOnlyList<string> DoorsReadBy(LabPlan plan, string process) =>
        [.. DoorsReadFrom(ProcessReference.FromPidFile(plan.PidFile(process))!).Distinct().Order(StringComparer.Ordinal)];

    [Fact]
    public void Every_two_clusters_are_connected_by_one_token_and_share_no_authority()
    {
        var authorities = lab.Plan.Clusters.ToDictionary(c => c.Name, c => CommonName(Certificate(c.Etcd.CaFile)));
        Assert.Equal(lab.Plan.Clusters.Count, authorities.Values.Distinct().Count());
        var joins = lab.Plan.Clusters.SelectMany(issuer => new TokenLedger(issuer.JoinDirectory, TimeProvider.System).Tokens
            .Select(token => (Issuer: issuer.Name, Token: token))).ToList();
        Assert.All(joins, join => Assert.Equal(TokenState.Used, join.Token.State));
        Assert.Equal(["nagoya-osaka", "nagoya-tokyo", "osaka-tokyo"],
            joins.Select(join => string.Join('-', new[] { join.Issuer, join.Token.TakerFacts!.Name }.Order(StringComparer.Ordinal)))
                .Order(StringComparer.Ordinal));
        foreach (var cluster in lab.Plan.Clusters)
            foreach (var peer in lab.Plan.Clusters.Where(p => p != cluster))
            {
                var certificate = Certificate($"{cluster.RelayConfig}/{peer.Name}.etcd-client.crt");
                Assert.Equal(($"remote-{cluster.Name}", authorities[peer.Name]), (CommonName(certificate), Issuer(certificate)));
                Assert.Contains($"- name: remote-{peer.Name}", File.ReadAllText(cluster.UsersFile), StringComparison.Ordinal);
                // The key stayed at home.
                Assert.DoesNotContain(File.ReadAllText($"{cluster.RelayConfig}/{peer.Name}.etcd-client.key"),
                    Directory.EnumerateFiles(peer.Directory, "*.key", SearchOption.AllDirectories).Select(File.ReadAllText));
            }
    }

    [Fact]
    public async Task Agents_read_their_own_door_and_the_relay_reads_the_peers()
    {
        foreach (var cluster in lab.Plan.Clusters)
        {
            var peers = lab.Plan.Clusters.Where(p => p != cluster).Select(p => p.Ip).Order(StringComparer.Ordinal).ToList();
            foreach (var peer in lab.Plan.Clusters.Where(p => p != cluster))
            {
                Assert.Contains($"- {cluster.Etcd.Endpoint}\n", File.ReadAllText($"{cluster.ClusterMeshConfig}/{peer.Name}"), StringComparison.Ordinal);
                Assert.Contains($"- {peer.Etcd.Endpoint}\n", File.ReadAllText($"{cluster.RelayConfig}/{peer.Name}"), StringComparison.Ordinal);
            }
            Assert.Equal($"local-{cluster.Name}", CommonName(Certificate($"{cluster.ClusterMeshConfig}/local-etcd-client.crt")));
            Assert.All(cluster.Nodes, node => Assert.Equal([cluster.Ip], DoorsReadBy(lab.Plan, $"{node.Name}-agent")));
            // A door that tries itself out is not what is asked here.
            Assert.Equal(peers, DoorsReadBy(lab.Plan, $"{cluster.Name}-apiserver").Except([cluster.Ip]));
        }
        // And what comes that way is in the kernel.
        var maps = await lab.MeshAsync("bpf", "lb", "list", "--context", $"{LiveLab.Name}/osaka/1");
        Assert.All(lab.Plan.Pods, pod => Assert.Contains($"{pod.IPv4}:8080/TCP", maps.Output, StringComparison.Ordinal));
    }

    /// <summary>The control of the tests above: without tokens nobody knows anybody, and without a relay agents read the peers' doors.</summary>
    [Fact]
    public async Task A_lab_without_a_relay_is_connected_by_hand_and_left_again()
    {
        var second = await LabUp.RunAsync(new LabSpec("labtwo", 2, 1, 1) { Connected = false, Direct = true }, _ => { }, LiveLab.Cancel);
        try
        {
            var (tokyo, osaka) = (second.Clusters[0], second.Clusters[1]);
            var foreign = $"{tokyo.Nodes[0].Pods[0].IPv4}:8080/TCP";
            Assert.DoesNotContain(foreign, (await lab.MeshAsync("bpf", "lb", "list", "--context", "labtwo/osaka")).Output, StringComparison.Ordinal);
            Assert.Empty(DoorsReadBy(second, "osaka-1-agent"));

            var token = await lab.MeshAsync("clustermesh", "token", "create", "--context", "labtwo/tokyo");
            Assert.Equal((0, ""), (token.Code, token.Error));
            var plan = await lab.MeshAsync("clustermesh", "plan", "--context", "labtwo/osaka", token.Output.Trim());
            Assert.Equal((0, ""), (plan.Code, plan.Error));
            Assert.Contains("\n0 faults, 0 warnings, ", plan.Output, StringComparison.Ordinal);
            Assert.Empty(Directory.EnumerateFiles(osaka.ClusterMeshConfig));
            var connected = await lab.MeshAsync("clustermesh", "connect", "--context", "labtwo/osaka", token.Output.Trim());
            Assert.Equal((0, ""), (connected.Code, connected.Error));
            Assert.Contains(foreign, (await lab.MeshAsync("bpf", "lb", "list", "--context", "labtwo/osaka")).Output, StringComparison.Ordinal);
            Assert.Equal([tokyo.Ip], DoorsReadBy(second, "osaka-1-agent"));

            var left = await lab.MeshAsync("clustermesh", "disconnect", "tokyo", "--context", "labtwo/osaka");
            Assert.Equal((0, ""), (left.Code, left.Error));
            await LiveLab.UntilAsync(async () => !(await lab.MeshAsync("bpf", "lb", "list", "--context", "labtwo/osaka"))
                .Output.Contains(foreign, StringComparison.Ordinal), "tokyo's backends are gone", TimeSpan.FromSeconds(5));
        }
        finally
        {
            await LabDown.RunAsync(second, CancellationToken.None);
        }
    }

    [Fact]
    public async Task A_peers_certificate_reads_the_state_at_a_door_and_does_nothing_else()
    {
        string[] asOsaka = ["lab", "etcdctl", "--name", LiveLab.Name, "--as", "osaka", "tokyo", "--"];
        var keys = await lab.MeshAsync([.. asOsaka, "get", "--prefix", "cilium/state/", "--keys-only"]);
        Assert.Equal(0, keys.Code);
        Assert.Contains("cilium/state/services/v1/tokyo/default/rebel-base\n", keys.Output, StringComparison.Ordinal);
        string[][] forbidden =
            [["put", "cilium/state/x", "y"], ["del", "--prefix", "cilium/state/"], ["get", "--prefix", ""], ["get", "--prefix", "cilium/cache/"]];
        foreach (var arguments in forbidden)
        {
            var refused = await lab.MeshAsync([.. asOsaka, .. arguments]);
            Assert.NotEqual(0, refused.Code);
            Assert.Contains("permission denied", refused.Error, StringComparison.Ordinal);
        }
        // The control: who owns the cluster may do both, at the etcd behind the door.
        var written = await lab.MeshAsync("lab", "etcdctl", "--name", LiveLab.Name, "tokyo", "--", "put", "other/x", "y");
        var all = await lab.MeshAsync("lab", "etcdctl", "--name", LiveLab.Name, "tokyo", "--", "get", "--prefix", "", "--keys-only");
        await lab.MeshAsync("lab", "etcdctl", "--name", LiveLab.Name, "tokyo", "--", "del", "other/x");
        Assert.Equal((0, 0), (written.Code, all.Code));
        Assert.Contains("other/x\n", all.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_wiped_etcd_and_deleted_keys_lose_no_request_and_no_backend()
    {
        await using var load = lab.Load();
        await LiveLab.UntilAsync(() => Clusters(load.Snapshot()).Contains("tokyo"), "tokyo answers");
        var before = await KeysAsync();
        LabFaults.WipeEtcd(lab.Plan, lab.Tokyo);
        await WrittenAgainAsync();
        var deleted = await lab.MeshAsync("lab", "etcdctl", "--name", LiveLab.Name, "tokyo", "--", "del", "--prefix", "");
        Assert.Equal((0, ""), (deleted.Code, deleted.Error));
        await WrittenAgainAsync();
        await lab.MeshAsync();
        var results = await load.StopAsync(LiveLab.Cancel);
        Assert.Equal("", FirstFailure(results));
        var answers = results.Where(r => r.Cluster == "tokyo").Select(r => r.At).Order().ToList();
        Assert.InRange(answers.Zip(answers.Skip(1), (a, b) => b - a).Max(), 0, 2000);

        async Task WrittenAgainAsync()
        {
            await LiveLab.UntilAsync(async () => await KeysAsync() == before, "tokyo's records are written again");
            await LiveLab.RequestsAsync(load, 200);
        }

        async Task<string> KeysAsync() => (await lab.MeshAsync(
            "lab", "etcdctl", "--name", LiveLab.Name, "tokyo", "--", "get", "--prefix", "cilium/state/", "--keys-only")).Output;
    }
}
