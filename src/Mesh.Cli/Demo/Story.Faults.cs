using System.Diagnostics;
using System.Globalization;
using Mesh.Lab;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>A cluster that loses all that it had stored, twice, and nobody who uses it notices.</summary>
internal sealed partial class Story
{
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
                if (code != 0)
                    throw new LabException($"the keys of tokyo's etcd could not be deleted: {error}");
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
            await UntilAsync(IsTokyoReadAsync, "osaka is connected to tokyo");
            var answers = run.Snapshot().Where(r => r.Cluster == _tokyo.Name && r.At >= began).Select(r => r.At).Order().ToList();
            var pause = answers.Prepend(began).Zip(answers.Append(Now()), (a, b) => b - a).Max();
            tell.Check(answers.Count > 100 && pause < 1000, string.Create(CultureInfo.InvariantCulture,
                $"{what}: {before} keys written again after {written.TotalSeconds:0.0} s; meanwhile {answers.Count} answers by tokyo, "
                + $"longest pause {pause:0} ms"), "tokyo's backends were not used all the time");
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
