using Mesh.Install.Charts;
using Mesh.Install.Objects;
using Mesh.Install.Releases;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Applying;

/// <summary>A definition of a custom resource that was brought into the cluster.</summary>
/// <param name="IsNew">There was none of this name.</param>
/// <param name="Note">What a person should know; null for nothing.</param>
public sealed record DefinitionResult(string Name, bool IsNew, string? Note);

/// <summary>
/// Carries out a plan. Either everything runs in the end, or the cluster is as it was before: what this run created or changed is undone,
/// and nothing else.
/// </summary>
/// <param name="define">Brings the definitions of custom resources into the cluster, and waits for them.</param>
public sealed class Installer(
    KubeClient client, Narrator narrator, WaitOptions options, Func<KubeClient, CancellationToken, Task<IReadOnlyList<DefinitionResult>>> define)
{
    private static readonly TimeSpan RollBackTime = TimeSpan.FromMinutes(1);

    /// <summary>Leave what failed as it is, to be looked at; `mesh uninstall` removes it.</summary>
    public bool KeepsWhatFailed { get; init; }

    /// <exception cref="InstallException">It failed; the message is the cause, and ends with what was undone.</exception>
    public async Task RunAsync(InstallPlan plan, CancellationToken cancellation)
    {
        var releases = new ReleaseStore(client, plan.Target.Namespace, plan.Target.Release);
        var journal = new ObjectJournal(client, plan.Target.Release, plan.Target.Namespace, narrator.Did);
        var now = options.Time.GetUtcNow();
        var record = new ReleaseRecord
        {
            Name = plan.Target.Release,
            Namespace = plan.Target.Namespace,
            Revision = plan.Revision,
            Status = plan.Former is null ? ReleaseRecord.PendingInstall : ReleaseRecord.PendingUpgrade,
            Description = plan.Former is null ? "Initial install underway" : "Preparing upgrade",
            FirstDeployed = plan.Former?.FirstDeployed ?? now,
            LastDeployed = now,
            Config = plan.Config,
            Manifest = plan.Manifest,
            Chart = ReleaseRecord.ChartOf(Chart.OfThisProgram),
        };
        var defined = new List<string>();
        var recorded = false;
        try
        {
            await MakeNamespaceAsync(plan, journal, cancellation);
            await releases.CreateAsync(record, cancellation);
            recorded = true;
            narrator.Say("🔧 Definitions of our own kinds");
            foreach (var result in await define(client, cancellation))
            {
                if (result.IsNew)
                    defined.Add(result.Name);
                if (result.IsNew || result.Note is not null)
                    narrator.Did(result.Note ?? $"created CustomResourceDefinition {result.Name}");
            }
            narrator.Say($"🚀 {plan.Rendering.Objects.Count} objects in namespace {plan.Target.Namespace}");
            await ApplyAsync(plan, journal, cancellation);
            await new Rollout(client, narrator, options) { Namespace = plan.Target.Namespace }.WaitAsync(plan.Workloads, cancellation);
            record = record with
            {
                Status = ReleaseRecord.Deployed,
                Description = plan.Former is null ? "Install complete" : "Upgrade complete",
            };
            await releases.SaveAsync(record, cancellation);
            await releases.SettleAsync(record, cancellation);
        }
        catch (Exception e) when (e is InstallException or KubeApiException or OperationCanceledException)
        {
            var cause = e is OperationCanceledException ? "interrupted" : e.Message;
            if (KeepsWhatFailed)
                throw new InstallException($"{cause}\nleft as it is, as you asked; `mesh uninstall` removes it", e);
            throw new InstallException($"{cause}\n{await RollBackAsync(plan, record, recorded, releases, journal, defined)}", e);
        }
    }

    private static async Task MakeNamespaceAsync(InstallPlan plan, ObjectJournal journal, CancellationToken cancellation)
    {
        if (plan.Target.Namespace == "kube-system")
            return;
        await journal.EnsureNamespaceAsync(plan.Target.Namespace, cancellation);
    }

    private static async Task ApplyAsync(InstallPlan plan, ObjectJournal journal, CancellationToken cancellation)
    {
        var wanted = plan.Rendering.Objects.Select(rendered => rendered.Object).ToList();
        foreach (var one in wanted)
            await journal.ApplyAsync(one, cancellation);
        if (plan.Former is null)
            return;
        var names = wanted.Select(one => one.ToString()).ToHashSet(StringComparer.Ordinal);
        names.UnionWith(plan.Left.Select(one => one.ToString()));
        foreach (var former in Enumerable.Reverse(ManifestObjects.Of(plan.Former.Manifest)).Where(former => !names.Contains(former.ToString())))
            await journal.DeleteAsync(former, cancellation);
    }

    /// <summary>With time of its own: it also runs when somebody has pressed Ctrl-C.</summary>
    private async Task<string> RollBackAsync(InstallPlan plan, ReleaseRecord record, bool recorded, ReleaseStore releases, ObjectJournal journal,
        List<string> defined)
    {
        narrator.Say("↩️  Rolling back");
        using var deadline = new CancellationTokenSource(RollBackTime, options.Time);
        var left = new List<string>();
        try
        {
            left.AddRange(await journal.RollBackAsync(deadline.Token));
            foreach (var name in defined)
                await client.DeleteAsync(KubeResources.CustomResourceDefinitions, null, name, deadline.Token);
            if (recorded && plan.Former is null && left.Count == 0)
                await releases.DeleteAsync(record, deadline.Token);
            else if (recorded)
                await releases.SaveAsync(record with { Status = ReleaseRecord.Failed, Description = "rolled back" }, deadline.Token);
        }
        catch (Exception e) when (e is KubeApiException or OperationCanceledException)
        {
            left.Add(e is OperationCanceledException ? "the rest: the API server did not answer in time" : e.Message);
        }
        return left.Count == 0
            ? plan.Former is null ? "everything that was made is removed again" : $"everything is as revision {plan.Former.Revision} left it"
            : $"this could not be undone:\n  {string.Join("\n  ", left)}\n`mesh uninstall` tries again";
    }
}
