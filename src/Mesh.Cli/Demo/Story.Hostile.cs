using System.Diagnostics;
using System.Text.Json.Nodes;
using Mesh.Datapath;
using Mesh.Lab;
using Mesh.Lab.Making;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>A cluster that turns against its peers.</summary>
internal sealed partial class Story
{
    private async Task HostileWriteAsync()
    {
        tell.Step("With tokyo's own administrator certificate somebody writes into tokyo's etcd what is not tokyo's to say, under load");
        var victim = _osaka.Nodes[0];
        var (near, far) = (_tokyo.Nodes[0], _tokyo.Nodes[^1]);
        var (astray, stranger, harmless) = (near.Pods[0].IPv4, near.Pods[^1].IPv4, far.Pods[0].IPv4);
        var identity = Manifests.Identity(_tokyo);
        const string rebelBase = "services/v1/tokyo/default/rebel-base";
        string[] writes =
        [
            await ChangedAsync(rebelBase, service => service["backends"]![victim.Pods[0].IPv4] = service["backends"]![astray]!.DeepClone()),
            await ChangedAsync($"ip/v1/default/{astray}", entry => entry["HostIP"] = victim.Ip),
            await ChangedAsync($"ip/v1/default/{stranger}", entry => entry["ID"] = Manifests.Identity(_osaka)),
            // What is tokyo's to say gets through: the others are refused for what they say, not for who wrote them.
            await ChangedAsync($"ip/v1/default/{harmless}", entry => entry["ID"] = identity + 1),
        ];
        tell.Say($"a backend {victim.Pods[0].IPv4} (osaka's range), a tunnel for {astray} that ends at {victim.Ip} (osaka's node), "
            + $"an identity {Manifests.Identity(_osaka)} for {stranger} (osaka's),");
        tell.Say($"and a harmless one for {harmless}; 40 times a second, because tokyo's API server puts its etcd right");

        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count > 50, "the load runs");
        var (looks, harmlessSeen, table) = (0, 0, "");
        var hostileSeen = new List<string>();
        using (var writer = StartWriter(writes))
        {
            try
            {
                await UntilAsync(async () =>
                {
                    for (var i = 0; i < 10; i++)
                        Look();
                    if (harmlessSeen == 0)
                        return false;
                    var report = await MeshAsync("clustermesh", "quarantine", _tokyo.Name, "--context", Osaka);
                    if (!new[] { "rebel-base", astray, stranger }.All(word => report.Contains($"/{word} ", StringComparison.Ordinal)))
                        return false;
                    table = report;
                    return true;
                }, "the quarantine of osaka holds all three records");
            }
            finally
            {
                await EndAsync(writer);
            }
        }
        tell.Say($"$ mesh clustermesh quarantine {_tokyo.Name} --context {Osaka}");
        tell.Say(table);
        tell.Check(hostileSeen.Count == 0, $"in {looks} looks at the kernel maps of osaka's nodes none held a hostile record; "
            + $"the harmless one was there in {harmlessSeen}", hostileSeen.FirstOrDefault());
        await UntilAsync(async () => (await MeshAsync("clustermesh", "quarantine", _tokyo.Name, "--context", Osaka))
            .Contains("tokyo: 0 records", StringComparison.Ordinal), "tokyo's API server has put its etcd right, and nothing is in quarantine");
        NoneLost(await run.StopAsync(cancel));

        void Look()
        {
            foreach (var node in _osaka.Nodes)
            {
                using var maps = PinnedMaps.Open(node.BpfRoot);
                looks++;
                foreach (var entry in maps.IPCache())
                {
                    var prefix = $"{entry.Prefix}";
                    if (prefix == $"{harmless}/32" && entry.Identity == identity + 1)
                        harmlessSeen++;
                    if (prefix == $"{astray}/32" && $"{entry.TunnelEndpoint}" != near.Ip || prefix == $"{stranger}/32" && entry.Identity != identity)
                        hostileSeen.Add($"{entry}");
                }
                hostileSeen.AddRange(maps.Frontends().SelectMany(f => f.Segments).Where(s => s.ClusterId == _tokyo.Id)
                    .SelectMany(s => s.Backends).Where(b => $"{b.Address}".StartsWith($"{victim.Pods[0].IPv4}:", StringComparison.Ordinal))
                    .Select(b => $"{b}"));
            }
        }
    }

    /// <summary>A record of tokyo with one thing changed: KEY=VALUE.</summary>
    private async Task<string> ChangedAsync(string name, Action<JsonNode> change)
    {
        var key = $"cilium/state/{name}";
        var (code, text, error) = await EtcdctlAsync(_tokyo.Name, "--", "get", "--print-value-only", key);
        if (code != 0 || text.Length == 0)
            throw new LabException($"tokyo's etcd has no {key}: {error}");
        var value = JsonNode.Parse(text)!;
        change(value);
        return $"{key}={value.ToJsonString()}";
    }

    private Process StartWriter(IEnumerable<string> records)
    {
        var mesh = plan.Processes[0].Program;
        string[] command = [mesh, "lab", "insist", "--config", _tokyo.Etcd.OwnConfigFile, "--", .. records];
        string[] arguments = ["lab", "exec", "--name", plan.Name, $"{_tokyo.Name}/{LabPlace.ControlPlaneName}", "--", .. command];
        return Process.Start(new ProcessStartInfo(mesh, arguments))!;
    }

    private static async Task EndAsync(Process process)
    {
        if (!process.HasExited)
            process.Kill();
        await process.WaitForExitAsync(CancellationToken.None);
    }
}
