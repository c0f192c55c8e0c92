using Mesh.Kubernetes.Api;

namespace Mesh.Operator.Multicluster;

/// <summary>Carries a <see cref="SlicePlan"/> out. What is new is written before what is superfluous goes, so that nothing is missing between.</summary>
internal sealed class SliceWriter(KubeClient client, OperatorLog log)
{
    public async Task WriteAsync(SlicePlan plan, string ns, string what, CancellationToken cancellation)
    {
        foreach (var slice in plan.Writes)
        {
            if (slice.Metadata.ResourceVersion is null)
                await client.CreateAsync(KubeResources.EndpointSlices, ns, slice, cancellation);
            else
                await client.UpdateAsync(KubeResources.EndpointSlices, ns, slice.Metadata.Name!, slice, cancellation);
        }
        foreach (var slice in plan.Deletes)
            await client.DeleteAsync(KubeResources.EndpointSlices, ns, slice.Metadata.Name!, cancellation, new KubeDelete { Uid = slice.Metadata.Uid });
        if (plan.Writes.Count + plan.Deletes.Count > 0)
            log.Line($"{what}: {plan.Writes.Sum(slice => slice.Endpoints?.Count ?? 0)} endpoints in {plan.Writes.Count} slices written, "
                + $"{plan.Deletes.Count} slices removed");
    }
}
