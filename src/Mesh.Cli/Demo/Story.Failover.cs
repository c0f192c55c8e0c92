using System.Globalization;
using Mesh.Lab;
using Mesh.Lab.Pods;

namespace Mesh.Cli.Demo;

/// <summary>A cluster lost to traffic alone, and one lost as a rehearsal.</summary>
internal sealed partial class Story
{
    private async Task TunnelIsCutAsync()
    {
        tell.Step("The tunnels between osaka and tokyo are cut; every control plane is well");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count(r => r.Cluster == _tokyo.Name) > 20, "tokyo answers");
        double cut;
        try
        {
            await LabFaults.CutTunnelAsync(plan, _tokyo, _osaka, cut: true, cancel);
            cut = Now();
            await UntilAsync(() => Now() - cut > 3500, "a while passes");
            tell.Check(await IsTokyoReadAsync(), "osaka's relay still reads tokyo: the control plane has noticed nothing", "it does not");
        }
        finally
        {
            await LabFaults.CutTunnelAsync(plan, _tokyo, _osaka, cut: false, CancellationToken.None);
        }
        var mended = Now();
        await UntilAsync(() => Last(run, _tokyo.Name) > mended, "tokyo answers again");
        var back = run.Snapshot().Where(r => r.Cluster == _tokyo.Name && r.At > mended).Min(r => r.At) - mended;
        var results = await run.StopAsync(cancel);
        var lost = results.Where(r => r.At < mended && (r.Error is not null || (r.At > cut && r.Cluster == _tokyo.Name))).ToList();
        var last = lost.Count == 0 ? 0 : Math.Max(0, lost.Max(r => r.At) - cut);
        tell.Check(last < 1000, string.Create(CultureInfo.InvariantCulture,
            $"last connection steered to tokyo began {last:0} ms after the cut; {lost.Count} of {results.Count} lost; back {back / 1000:0.0} s "
            + $"after the mend, with a growing share"), "more than 1000 ms");
    }

    private async Task DrillAsync()
    {
        tell.Step("The loss of tokyo is rehearsed: foretold, watched, and ended by the kernel's maps themselves");
        await using var run = LoadRun.Start(plan, Client, [.. HttpTargets, .. Steadily]);
        await UntilAsync(() => run.Snapshot().Count > 50, "the load runs");
        tell.Say($"$ mesh drill lose {_tokyo.Name} --context {plan.Name}/{_osaka.Name} --for 4s --max-error 1%");
        tell.Say(await MeshAsync("drill", "lose", _tokyo.Name, "--context", $"{plan.Name}/{_osaka.Name}", "--for", "4s", "--max-error", "1%"));
        var over = Now();
        await UntilAsync(() => Last(run, _tokyo.Name) > over, "tokyo answers again");
        NoneLost(await run.StopAsync(cancel));
    }
}
