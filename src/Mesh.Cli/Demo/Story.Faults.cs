using System.Diagnostics;
using System.Globalization;
using Mesh.Datapath;
using Mesh.Lab;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>A cluster that turns against its peers, and one that loses all that it had stored.</summary>
internal sealed partial class Story
{
    private const string HostileService = "hostile";

    private async Task HostileWriteAsync()
    {
        tell.Step("Somebody with tokyo's own etcd administrator certificate writes what is not tokyo's to say, again and again, under load");
        var service = $"cilium/state/services/v1/{_tokyo.Name}/default/{HostileService}";
        var (theirs, own) = (_osaka.Nodes[0].Pods[0].IPv4, _tokyo.Nodes[0]);
        var (outOfRange, astray, harmless) = ("10.1.1.201", "10.1.1.202", "10.1.1.203");
        string Address(string ip, uint identity, string host) =>
            $"put cilium/state/ip/v1/default/{ip} '{{\"IP\":\"{ip}\",\"Mask\":null,\"HostIP\":\"{host}\",\"ID\":{identity},\"Key\":0,\"Metadata\":\"\"}}'";
        var tokyoIdentity = (_tokyo.Id << 16) + 1;
        string[] lines =
        [
            $"put {service} '{{\"cluster\":\"tokyo\",\"namespace\":\"default\",\"name\":\"{HostileService}\",\"frontends\":{{}},\"backends\":"
                + $"{{\"{theirs}\":{{\"http\":{{\"Protocol\":\"TCP\",\"Port\":8080}}}}}},\"labels\":{{}},\"selector\":{{}},"
                + "\"includeExternal\":true,\"shared\":true,\"clusterID\":1}'",
            Address(theirs, tokyoIdentity, own.Ip),
            Address(outOfRange, (_osaka.Id << 16) + 1, own.Ip),
            Address(astray, tokyoIdentity, _osaka.Nodes[0].Ip),
            // What is tokyo's to say gets through: the others are refused for what they say.
            Address(harmless, tokyoIdentity, own.Ip),
        ];
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count > 50, "the load runs");
        using var writer = StartWriter(lines);
        try
        {
            var (looks, harmlessSeen, hostileSeen) = (0, 0, new List<string>());
            var table = "";
            await UntilAsync(async () =>
            {
                foreach (var node in _osaka.Nodes)
                {
                    using var maps = PinnedMaps.Open(node.BpfRoot);
                    var entries = maps.IPCache();
                    looks++;
                    harmlessSeen += entries.Any(e => $"{e.Prefix}" == $"{harmless}/32") ? 1 : 0;
                    hostileSeen.AddRange(entries.Where(e => $"{e.Prefix}" == $"{outOfRange}/32" || $"{e.Prefix}" == $"{astray}/32"
                        || $"{e.Prefix}" == $"{theirs}/32" && (e.Identity >> 16 == _tokyo.Id || e.TunnelEndpoint is not null && node == _osaka.Nodes[0]))
                        .Select(e => $"{e}"));
                }
                if (harmlessSeen == 0 || looks < 40)
                    return false;
                table = await MeshAsync("clustermesh", "quarantine", "--context", Osaka);
                return new[] { theirs, outOfRange, astray, HostileService }.All(word => table.Contains(word, StringComparison.Ordinal));
            }, "the quarantine of osaka holds all four records");
            tell.Say($"$ mesh clustermesh quarantine --context {Osaka}");
            tell.Say(table);
            tell.Check(hostileSeen.Count == 0, $"in {looks} looks at the kernel maps of osaka's nodes, none held a hostile record; "
                + $"a harmless one, written with them, was there in {harmlessSeen}", hostileSeen.FirstOrDefault());
        }
        finally
        {
            await EndAsync(writer);
        }
        NoneLost(await run.StopAsync(cancel));
    }

    /// <summary>One transaction after the other, because tokyo's API server puts its etcd right each time.</summary>
    private Process StartWriter(IReadOnlyList<string> puts)
    {
        var reader = LabEtcd.Own(_tokyo) ?? throw new LabException("tokyo has no etcd at this moment");
        // etcdctl's text of a transaction: conditions, then what to do, then what else to do.
        var transaction = $"\n{string.Join('\n', puts)}\n\n\n";
        const string script = "t=$1; shift; while :; do printf '%s' \"$t\" | \"$@\" >/dev/null || exit; sleep 0.05; done";
        string[] command = ["sh", "-c", script, "sh", transaction, .. reader.Command("txn")];
        string[] arguments = ["lab", "exec", "--name", plan.Name, $"{_tokyo.Name}/cp", "--", .. command];
        return Process.Start(new ProcessStartInfo(plan.Processes[0].Program, arguments) { RedirectStandardError = true })!;
    }

    private static async Task EndAsync(Process process)
    {
        if (!process.HasExited)
            process.Kill();
        await process.WaitForExitAsync(CancellationToken.None);
    }

    private async Task EtcdIsWipedAsync()
    {
        tell.Step("tokyo's etcd is killed and its data deleted; later all its keys are deleted; under load");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count(r => r.Cluster == _tokyo.Name) > 20, "tokyo answers");
        foreach (var (what, act) in new (string, Func<Task>)[]
        {
            ("etcd killed with kill -9, its data gone", () =>
            {
                LabFaults.WipeEtcd(plan, _tokyo);
                return Task.CompletedTask;
            }),
            ("`etcdctl del --prefix ''`", async () =>
            {
                var (code, _, error) = await EtcdctlAsync(_tokyo.Name, "--", "del", "--prefix", "");
                tell.Check(code == 0, "all keys of tokyo's etcd were deleted", error);
            }),
        })
        {
            var before = await KeysAsync();
            var began = Now();
            var clock = Stopwatch.StartNew();
            await act();
            await UntilAsync(async () => await KeysAsync() >= before, $"tokyo's API server has written its {before} keys again");
            var written = clock.Elapsed;
            await UntilAsync(() => Now() - began > 2500, "a while passes");
            await UntilAsync(async () => await NodesReadyForTokyoAsync() == _osaka.Nodes.Count, "osaka is connected to tokyo");
            var answers = run.Snapshot().Where(r => r.Cluster == _tokyo.Name && r.At >= began).Select(r => r.At).Order().ToList();
            var pause = answers.Count == 0 ? double.PositiveInfinity : answers.Prepend(began).Append(Now()).Zip(answers.Append(Now()), (a, b) => b - a).Max();
            tell.Check(answers.Count > 100 && pause < 1000, string.Create(CultureInfo.InvariantCulture,
                $"{what}: {before} keys written again after {written.TotalSeconds:0.0} s; meanwhile {answers.Count} answers by tokyo, longest pause {pause:0} ms"),
                "tokyo's backends were not used all the time");
        }
        NoneLost(await run.StopAsync(cancel));

        // Sessions and heartbeats come and go; what matters are the records.
        async Task<int> KeysAsync()
        {
            var (code, keys, _) = await EtcdctlAsync(_tokyo.Name, "--", "get", "--prefix", "cilium/state/", "--keys-only");
            return code == 0 ? keys.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length : 0;
        }
    }
}
