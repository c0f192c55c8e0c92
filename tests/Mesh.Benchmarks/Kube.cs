using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.AgentApi;
using Mesh.Benchmarks.Surroundings;
using Mesh.KubeApi;
using Mesh.Kubernetes.Api;
using Mesh.Model;
using Mesh.TestKit;

namespace Mesh.Benchmarks;

/// <summary>
/// A Kubernetes API server (our stand-in of one, in this process) with 10,000 global Services of 10 endpoints and 5,000 pods. First
/// everything from cold: from the start of the agent's process until its tables are complete and the kernel has every row, next to
/// kubectl, which lists the same objects and does nothing with them; memory of agent and clustermesh-apiserver; and their processor time
/// while 100 endpoints a second change. Then, with a small cluster of its own: a pod's address written into the API server until it is
/// in the kernel map of another cluster's node, through clustermesh-apiserver and etcd.
/// </summary>
internal static class Kube
{
    public static readonly string[] Sizes = ["services", "pods", "changes", "writes"];

    private const int Endpoints = 10;
    private const int Identities = 1000;
    private const int ChangesPerSecond = 100;
    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(5);
    private static readonly CultureInfo Culture = CultureInfo.InvariantCulture;

    public static async Task RunAsync(Report report, Settings settings, CancellationToken cancellation)
    {
        await ColdAsync(report, settings.Of("services", 10_000), settings.Of("pods", 5_000), settings.Of("changes", 1_000), cancellation);
        await ChangeAsync(report, settings.Of("writes", 300), cancellation);
    }

    private static async Task ColdAsync(Report report, int services, int pods, int changes, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var etcd = await EtcdServer.StartAsync(tls: true);
        await using var server = await KubeApiServer.StartAsync(stop: cancellation);
        var kubeconfig = Path.Combine(node.Directory, "kubeconfig");
        server.WriteKubeconfig(kubeconfig, "tokyo");
        Definitions(server);
        Fill(server, services, pods);

        var clock = Stopwatch.StartNew();
        foreach (var path in (string[])["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/apis/cilium.io/v2/ciliumendpoints"])
            Command.Run("/bin/sh", "-ec", $"kubectl --kubeconfig '{kubeconfig}' get --raw '{path}' >/dev/null");
        var kubectl = clock.Elapsed;

        clock.Restart();
        await using var agent = AgentProcess.StartOnKubernetes(node, kubeconfig);
        using var client = new AgentClient(Path.Combine(node.Directory, "agent.sock"), "tokyo/tokyo-1", TimeSpan.FromSeconds(30));
        var last = Pod(pods - 1);
        await agent.UntilAsync(() => agent.IdentityOf(last) != 0, "the last pod in the kernel", cancellation, Patience, 20);
        for (var complete = false; !complete; await Task.Delay(20, cancellation))
        {
            var tables = (await client.GetStatusAsync(cancellation)).Mesh?.Tables ?? [];
            complete = tables.Any(table => table.Rows >= services) && tables.All(table => table is { Pending: 0, Failing: 0 });
            if (clock.Elapsed > Patience)
                throw new TimeoutException($"not every row is in the kernel: {agent.LogTail()}");
        }
        var filled = clock.Elapsed;
        report.Add($"kube: {services:N0} Services × {Endpoints} endpoints and {pods:N0} pods, cold start → all in the kernel",
            string.Create(Culture, $"{filled.TotalSeconds:0.00} s"),
            string.Create(Culture, $"kubectl get --raw of the same lists: {kubectl.TotalSeconds:0.00} s"), filled / kubectl);
        report.Add("  agent memory then (VmRSS), and its peak",
            string.Create(Culture, $"{agent.Memory("VmRSS") / 1e6:0} MB, {agent.Memory("VmHWM") / 1e6:0} MB"));

        clock.Restart();
        using var apiServer = ApiServer(node, etcd, "tokyo", 1, kubeconfig);
        try
        {
            await using var store = etcd.NewStore();
            await UntilSharedAsync(store, services, cancellation);
            var (memory, peak) = (ProcessFacts.Memory(apiServer.Id, "VmRSS") / 1e6, ProcessFacts.Memory(apiServer.Id, "VmHWM") / 1e6);
            report.Add("  clustermesh-apiserver: cold start → all shared in etcd; memory (VmRSS), its peak",
                string.Create(Culture, $"{clock.Elapsed.TotalSeconds:0.00} s; {memory:0} MB, {peak:0} MB"));
            await SteadyAsync(report, server, agent, apiServer, changes, services, cancellation);
        }
        finally
        {
            await Command.StopAsync(apiServer);
        }
    }

    private static async Task SteadyAsync(Report report, KubeApiServer server, AgentProcess agent, Process apiServer, int changes, int services,
        CancellationToken cancellation)
    {
        var (agentBefore, serverBefore) = (agent.Cpu, ProcessFacts.Cpu(apiServer.Id));
        var clock = Stopwatch.StartNew();
        for (var change = 0; change < changes; change++)
        {
            server.Apply(Slice(change * 7 % services, moved: 1 + change));
            var due = TimeSpan.FromSeconds((change + 1.0) / ChangesPerSecond) - clock.Elapsed;
            if (due > TimeSpan.Zero)
                await Task.Delay(due, cancellation);
        }
        string Share(TimeSpan before, TimeSpan now) => string.Create(Culture, $"{(now - before) / clock.Elapsed * 100:0.0} %");
        report.Add(string.Create(Culture, $"  processor time at {changes / clock.Elapsed.TotalSeconds:0} endpoint changes/s: agent; clustermesh-apiserver"),
            $"{Share(agentBefore, agent.Cpu)}; {Share(serverBefore, ProcessFacts.Cpu(apiServer.Id))} of a core");
    }

    private static async Task ChangeAsync(Report report, int writes, CancellationToken cancellation)
    {
        using var node = new Node();
        await using var etcd = await EtcdServer.StartAsync(tls: true);
        await using var server = await KubeApiServer.StartAsync(stop: cancellation);
        var kubeconfig = Path.Combine(node.Directory, "kubeconfig");
        server.WriteKubeconfig(kubeconfig, PeerCluster.Name);
        Definitions(server);
        server.Apply(KubeNode("osaka-1", PeerCluster.NodeAddress, "10.2.0.0/16"));
        using var apiServer = ApiServer(node, etcd, PeerCluster.Name, PeerCluster.Id, kubeconfig);
        try
        {
            await using var agent = AgentProcess.Start(node, [new(PeerCluster.Name, ClientFile.Of(etcd.Options))], IdentityNumbering.Max255);
            using var client = new KubeClient(KubeConfiguration.FromFile(kubeconfig), new KubeClientOptions());
            server.Apply(CiliumEndpoint(0, Remote(0), PeerCluster.Identity(1), PeerCluster.NodeAddress));
            await agent.UntilAsync(() => agent.IdentityOf(Remote(0)) != 0, "the first pod in the other cluster's kernel", cancellation);
            using var eye = new KernelEye(agent);
            var times = new List<double>();
            for (var write = 1; write <= writes; write++)
            {
                await Task.Delay(Random.Shared.Next(3, 10), cancellation);
                var seen = eye.Watch(Remote(write));
                var start = Stopwatch.GetTimestamp();
                await client.CreateAsync(KubeResources.CiliumEndpoints.Raw, "default",
                    CiliumEndpoint(write, Remote(write), PeerCluster.Identity(1), PeerCluster.NodeAddress), cancellation);
                times.Add(Stopwatch.GetElapsedTime(start, await seen).TotalMicroseconds);
            }
            report.Add($"kube: pod written to the API server → another cluster's kernel map ({times.Count} pods)", new Sample(times).Milliseconds());
        }
        finally
        {
            await Command.StopAsync(apiServer);
        }
    }

    private static Process ApiServer(Node node, EtcdServer etcd, string cluster, uint id, string kubeconfig)
    {
        var directory = Directory.CreateDirectory(Path.Combine(node.Directory, "apiserver")).FullName;
        var client = Path.Combine(directory, "etcd.yaml");
        File.WriteAllText(client, ClientFile.Of(etcd.Options));
        return Command.Start("clustermesh-apiserver", Path.Combine(directory, "log"), "clustermesh", "--cluster-name", cluster,
            "--cluster-id", id.ToString(Culture), "--source", $"kubernetes:{kubeconfig}#{cluster}", "--kvstore-opt", $"etcd.config={client}",
            "--health-port", "0", "--state-dir", directory);
    }

    private static async Task UntilSharedAsync(KVStore.EtcdKVStore store, int services, CancellationToken cancellation)
    {
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(50, cancellation))
        {
            var there = await store.GetAsync($"cilium/state/services/v1/tokyo/default/{Name(services - 1)}", cancellation);
            if (there is not null)
                return;
            if (clock.Elapsed > Patience)
                throw new TimeoutException("the last Service is not shared in etcd");
        }
    }

    private static void Definitions(KubeApiServer server)
    {
        foreach (var definition in CrdInstaller.Definitions)
            server.Apply(definition);
    }

    private static void Fill(KubeApiServer server, int services, int pods)
    {
        server.Apply(new JsonObject
        {
            ["apiVersion"] = "v1",
            ["kind"] = "Node",
            ["metadata"] = new JsonObject { ["name"] = "tokyo-1" },
            ["status"] = new JsonObject { ["addresses"] = new JsonArray(new JsonObject { ["type"] = "InternalIP", ["address"] = Node.Underlay }) },
        });
        server.Apply(KubeNode("tokyo-1", Node.Underlay, "10.1.0.0/24"));
        for (var service = 0; service < services; service++)
        {
            server.Apply(new JsonObject
            {
                ["apiVersion"] = "v1",
                ["kind"] = "Service",
                ["metadata"] = new JsonObject
                {
                    ["name"] = Name(service),
                    ["namespace"] = "default",
                    ["annotations"] = new JsonObject { ["service.cilium.io/global"] = "true" },
                },
                ["spec"] = new JsonObject { ["ports"] = new JsonArray(new JsonObject { ["name"] = "http", ["port"] = 80, ["targetPort"] = 8080 }) },
            });
            server.Apply(Slice(service, 0));
        }
        for (var identity = 0; identity < Identities; identity++)
        {
            server.Apply(new JsonObject
            {
                ["apiVersion"] = "cilium.io/v2",
                ["kind"] = "CiliumIdentity",
                ["metadata"] = new JsonObject { ["name"] = IdentityOf(identity).ToString(Culture) },
                ["security-labels"] = new JsonObject
                {
                    ["k8s:app"] = $"app-{identity}",
                    ["k8s:io.kubernetes.pod.namespace"] = "default",
                    ["k8s:io.cilium.k8s.policy.cluster"] = "tokyo",
                },
            });
        }
        for (var pod = 0; pod < pods; pod++)
            server.Apply(CiliumEndpoint(pod, Pod(pod), IdentityOf(pod % Identities), "172.30.0.9"));
    }

    private static JsonObject KubeNode(string name, string address, string podRange) => new()
    {
        ["apiVersion"] = "cilium.io/v2",
        ["kind"] = "CiliumNode",
        ["metadata"] = new JsonObject { ["name"] = name },
        ["spec"] = new JsonObject
        {
            ["addresses"] = new JsonArray(new JsonObject { ["type"] = "InternalIP", ["ip"] = address }),
            ["ipam"] = new JsonObject { ["podCIDRs"] = new JsonArray((JsonNode)podRange) },
        },
    };

    private static JsonObject CiliumEndpoint(int number, IpAddr address, uint identity, string node) => new()
    {
        ["apiVersion"] = "cilium.io/v2",
        ["kind"] = "CiliumEndpoint",
        ["metadata"] = new JsonObject { ["name"] = $"pod-{number}", ["namespace"] = "default" },
        ["status"] = new JsonObject
        {
            ["identity"] = new JsonObject { ["id"] = identity },
            ["networking"] = new JsonObject
            {
                ["addressing"] = new JsonArray(new JsonObject { ["ipv4"] = address.ToString() }),
                ["node"] = node,
            },
        },
    };

    /// <param name="moved">Another number gives the first endpoint another address.</param>
    private static JsonObject Slice(int service, int moved)
    {
        var endpoints = new JsonArray();
        for (var endpoint = 0; endpoint < Endpoints; endpoint++)
        {
            var number = endpoint == 0 && moved > 0 ? 1_000_000 + moved : service * Endpoints + endpoint;
            endpoints.Add((JsonNode)new JsonObject
            {
                ["addresses"] = new JsonArray((JsonNode)IpAddr.V4((10u << 24 | 32u << 16) + (uint)number).ToString()),
                ["conditions"] = new JsonObject { ["ready"] = true, ["serving"] = true, ["terminating"] = false },
            });
        }
        return new JsonObject
        {
            ["apiVersion"] = "discovery.k8s.io/v1",
            ["kind"] = "EndpointSlice",
            ["metadata"] = new JsonObject
            {
                ["name"] = $"{Name(service)}-1",
                ["namespace"] = "default",
                ["labels"] = new JsonObject { ["kubernetes.io/service-name"] = Name(service) },
            },
            ["addressType"] = "IPv4",
            ["endpoints"] = endpoints,
            ["ports"] = new JsonArray(new JsonObject { ["name"] = "http", ["port"] = 8080, ["protocol"] = "TCP" }),
        };
    }

    private static string Name(int service) => string.Create(Culture, $"service-{service:00000}");

    private static uint IdentityOf(int number) => IdentityNumbering.Max255.MinOf(1) + 1 + (uint)number;

    private static IpAddr Pod(int number) => IpAddr.V4((10u << 24 | 1u << 16 | 16u << 8) + (uint)number);

    private static IpAddr Remote(int number) => IpAddr.V4((10u << 24 | 2u << 16) + 1 + (uint)number);
}
