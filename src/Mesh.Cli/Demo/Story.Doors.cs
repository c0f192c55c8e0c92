using System.Globalization;
using Mesh.Lab;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>What another cluster gets of this one: what its token's certificate opens, and nothing without one.</summary>
internal sealed partial class Story
{
    private async Task DoorAsync()
    {
        tell.Step("A door is an etcd server that knows its reader: etcd's own client, with the certificate of osaka's token, at tokyo's door");
        var reader = LabEtcd.As(_osaka, _tokyo) ?? throw new LabException("osaka has no certificate for tokyo's door");
        tell.Say($"$ {string.Join(' ', reader.Command("get", "--prefix", "cilium/state/"))}");
        var (code, keys, error) = await EtcdctlAsync("--as", _osaka.Name, _tokyo.Name, "--", "get", "--prefix", "cilium/state/", "--keys-only");
        var count = keys.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
        tell.Check(code == 0 && count > 0, $"{count} keys", error);
        foreach (var (what, arguments) in new (string, string[])[]
        {
            ("a write", ["put", "cilium/state/services/v1/tokyo/default/rebel-base", "{}"]),
            ("a deletion", ["del", "--prefix", "cilium/state/"]),
            ("another range, cilium/cache/", ["get", "--prefix", "cilium/cache/"]),
            ("everything", ["get", "--prefix", ""]),
        })
        {
            (code, var said, error) = await EtcdctlAsync(["--as", _osaka.Name, _tokyo.Name, "--", .. arguments]);
            tell.Check(code != 0 && error.Contains("permission denied", StringComparison.Ordinal),
                $"{what} is refused: {LastLine(error)}", $"exit code {code}: {said}{error}");
        }
    }

    private async Task TokenAsync()
    {
        tell.Step("osaka leaves tokyo and joins it again by a token, under load");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count(r => r.Cluster == _tokyo.Name) > 20, "tokyo answers");
        var left = Now();
        await MeshAsync("clustermesh", "disconnect", _tokyo.Name, "--context", Osaka);
        await UntilAsync(() => Now() - left > 500 && Last(run, _tokyo.Name) < Now() - 500, "no request goes to tokyo any more");
        tell.Check(Last(run, _tokyo.Name) - left < 5000, string.Create(CultureInfo.InvariantCulture,
            $"last request to tokyo {Math.Max(0, Last(run, _tokyo.Name) - left):0} ms after `mesh clustermesh disconnect tokyo --context {Osaka}`"),
            "more than 5 s");

        var token = (await MeshAsync("clustermesh", "token", "create", "--context", Tokyo)).Trim();
        tell.Say($"$ mesh clustermesh token create --context {Tokyo}");
        tell.Say($"{token[..24]}…{token[^8..]}, {token.Length} characters");
        tell.Say($"$ mesh clustermesh plan --context {Osaka} TOKEN");
        tell.Say(await MeshAsync("clustermesh", "plan", "--context", Osaka, token));
        var joining = Now();
        tell.Say($"$ mesh clustermesh connect --context {Osaka} TOKEN");
        tell.Say(await MeshAsync("clustermesh", "connect", "--context", Osaka, token));
        await UntilAsync(() => Last(run, _tokyo.Name) > joining, "tokyo answers again");
        var back = run.Snapshot().Where(r => r.Cluster == _tokyo.Name && r.At > joining).Min(r => r.At) - joining;
        tell.Say(string.Create(CultureInfo.InvariantCulture, $"tokyo answers again {back:0} ms after `connect` began"));
        var (code, said, error) = await RunMeshAsync("clustermesh", "connect", "--context", $"{plan.Name}/{plan.Clusters[^1].Name}", token);
        var why = said.Split('\n').FirstOrDefault(line => line.Contains('❌'))?.Trim() ?? LastLine(error);
        tell.Check(code != 0, $"the same token once more, by {plan.Clusters[^1].Name}, is refused: {why}", "it was taken");
        NoneLost(await run.StopAsync(cancel));
    }

    private string Tokyo => $"{plan.Name}/{_tokyo.Name}";

    private string Osaka => $"{plan.Name}/{_osaka.Name}";
}
