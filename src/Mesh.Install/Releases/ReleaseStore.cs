using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;

namespace Mesh.Install.Releases;

/// <summary>The records of one release in its namespace.</summary>
public sealed class ReleaseStore(KubeClient client, string ns, string name)
{
    /// <summary>As many as Helm keeps.</summary>
    private const int HistoryMax = 10;

    private static readonly KubeResource<JsonObject> Secrets = KubeResources.Secrets.Raw;

    /// <summary>Oldest first.</summary>
    /// <exception cref="InstallException">One of them cannot be read.</exception>
    public async Task<IReadOnlyList<ReleaseRecord>> ListAsync(CancellationToken cancellation)
    {
        var found = await client.ListAsync(Secrets, ns, cancellation, new KubeSelection { LabelSelector = $"owner=helm,name={name}" });
        return [.. found.Select(ReleaseRecord.FromSecret).OrderBy(record => record.Revision)];
    }

    /// <summary>The newest, whatever became of it; null when there is none.</summary>
    public async Task<ReleaseRecord?> NewestAsync(CancellationToken cancellation) => await ListAsync(cancellation) is [.., var newest] ? newest : null;

    /// <summary>The one whose objects are in the cluster; null when there is none.</summary>
    public async Task<ReleaseRecord?> DeployedAsync(CancellationToken cancellation) =>
        (await ListAsync(cancellation)).LastOrDefault(record => record.Status == ReleaseRecord.Deployed);

    /// <exception cref="InstallException">Somebody else began the same revision.</exception>
    public async Task CreateAsync(ReleaseRecord record, CancellationToken cancellation)
    {
        try
        {
            await client.CreateAsync(Secrets, ns, record.ToSecret(), cancellation);
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.AlreadyExists)
        {
            throw new InstallException($"revision {record.Revision} of release {name} was begun by somebody else at the same time: look at it first", e);
        }
    }

    public Task SaveAsync(ReleaseRecord record, CancellationToken cancellation) =>
        client.UpdateAsync(Secrets, ns, record.SecretName, record.ToSecret(), cancellation);

    public Task DeleteAsync(ReleaseRecord record, CancellationToken cancellation) => client.DeleteAsync(Secrets, ns, record.SecretName, cancellation);

    /// <summary>Marks what was deployed before as superseded, and forgets the oldest.</summary>
    public async Task SettleAsync(ReleaseRecord deployed, CancellationToken cancellation)
    {
        var all = await ListAsync(cancellation);
        foreach (var former in all.Where(record => record.Revision != deployed.Revision && record.Status == ReleaseRecord.Deployed))
            await SaveAsync(former with { Status = ReleaseRecord.Superseded }, cancellation);
        foreach (var old in all.SkipLast(HistoryMax))
            await DeleteAsync(old, cancellation);
    }
}
