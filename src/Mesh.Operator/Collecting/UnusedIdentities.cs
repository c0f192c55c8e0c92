using System.Globalization;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;

namespace Mesh.Operator.Collecting;

/// <summary>
/// Removes CiliumIdentities that no CiliumEndpoint has had for a while. In two steps: first the object is marked with the time, so that a new leader
/// and a person see it; after the whole grace it is deleted, if nobody has touched it since (resourceVersion). An identity in use again loses the mark.
/// </summary>
internal sealed class UnusedIdentities(KubeClient client, Reflector<CiliumIdentity> identities, Reflector<CiliumEndpoint> endpoints, TimeSpan grace,
    TimeProvider time, OperatorLog log)
{
    public const string Mark = "mesh.cilium.io/unused-since";

    /// <summary>Looks at all identities once. Nothing is concluded before both lists are whole.</summary>
    public async Task CollectAsync(CancellationToken cancellation)
    {
        if (!identities.Status.Synced || !endpoints.Status.Synced || endpoints.Status.Error is not null || identities.Status.Error is not null)
            return;
        var used = endpoints.Snapshot().Select(endpoint => endpoint.Status?.Identity?.Id).OfType<uint>().ToHashSet();
        foreach (var identity in identities.Snapshot())
        {
            if (!uint.TryParse(identity.Metadata.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
                continue;
            var marked = identity.Metadata.Annotations?.GetValueOrDefault(Mark);
            if (used.Contains(number))
            {
                if (marked is not null)
                    await MarkAsync(identity, null, cancellation);
                continue;
            }
            var now = time.GetUtcNow();
            if (!DateTimeOffset.TryParse(marked, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var since))
                await MarkAsync(identity, now.ToString("O", CultureInfo.InvariantCulture), cancellation);
            else if (now - since >= grace)
                await DeleteAsync(identity, since, cancellation);
        }
    }

    private async Task MarkAsync(CiliumIdentity identity, string? since, CancellationToken cancellation)
    {
        var body = new JsonObject
        {
            ["metadata"] = new JsonObject
            {
                ["resourceVersion"] = identity.Metadata.ResourceVersion,
                ["annotations"] = new JsonObject { [Mark] = since },
            },
        };
        try
        {
            await client.PatchAsync(KubeResources.CiliumIdentities, null, identity.Metadata.Name!, KubePatch.Merge(body), cancellation);
        }
        catch (KubeApiException e) when (e.Fault is KubeFault.Conflict or KubeFault.NotFound)
        {
            // Another was first; the next look sees what it is now.
        }
    }

    private async Task DeleteAsync(CiliumIdentity identity, DateTimeOffset since, CancellationToken cancellation)
    {
        try
        {
            await client.DeleteAsync(KubeResources.CiliumIdentities, null, identity.Metadata.Name!, cancellation,
                new KubeDelete { Uid = identity.Metadata.Uid, ResourceVersion = identity.Metadata.ResourceVersion });
            log.Line($"identity {identity.Metadata.Name} is removed: no endpoint has had it since {since:u}");
        }
        catch (KubeApiException e) when (e.Fault is KubeFault.Conflict)
        {
            // Touched since: somebody wants it.
        }
    }
}
