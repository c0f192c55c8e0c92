namespace Mesh.Kubernetes.Api;

/// <summary>
/// What the operator makes for services of the mesh, and how to take it away again: slices with endpoints of other clusters, and imports. Here,
/// because two must know: the operator where the feature is off, and whoever takes the whole mesh away. Objects of people are never touched.
/// </summary>
public static class MadeForServices
{
    /// <summary>On slices: who keeps them.</summary>
    public const string ManagedByLabel = "endpointslice.kubernetes.io/managed-by";

    /// <summary>Slices with another cluster's endpoints.</summary>
    public const string MeshMirror = "endpointslice-mesh-controller.cilium.io";

    /// <summary>On imports, and on the Services that these own: what was wanted last. Nobody else writes it.</summary>
    public const string AppliedAnnotation = "mesh.cilium.io/applied";

    /// <returns>How many there were.</returns>
    /// <exception cref="KubeApiException">The server is away, or does not let us.</exception>
    public static async Task<int> DeleteSlicesAsync(KubeClient client, CancellationToken cancellation)
    {
        var slices = await client.ListAsync(KubeResources.EndpointSlices, null, cancellation,
            new KubeSelection { LabelSelector = $"{ManagedByLabel}={MeshMirror}" }).ConfigureAwait(false);
        foreach (var slice in slices)
            await client.DeleteAsync(KubeResources.EndpointSlices, slice.Metadata.Namespace, slice.Metadata.Name!, cancellation).ConfigureAwait(false);
        return slices.Count;
    }

    /// <summary>Each with the derived Service and the slices that it owns.</summary>
    /// <returns>How many there were; 0 where nobody has defined the kind.</returns>
    /// <exception cref="KubeApiException">The server is away, or does not let us.</exception>
    public static async Task<int> DeleteImportsAsync(KubeClient client, CancellationToken cancellation)
    {
        try
        {
            var imports = (await client.ListAsync(KubeResources.ServiceImports, null, cancellation).ConfigureAwait(false))
                .Where(import => import.Metadata.Annotations?.ContainsKey(AppliedAnnotation) == true).ToList();
            foreach (var import in imports)
                await client.DeleteAsync(KubeResources.ServiceImports, import.Metadata.Namespace, import.Metadata.Name!, cancellation,
                    new KubeDelete { Uid = import.Metadata.Uid }).ConfigureAwait(false);
            return imports.Count;
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            return 0;
        }
    }
}
