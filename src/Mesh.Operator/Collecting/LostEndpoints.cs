using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;

namespace Mesh.Operator.Collecting;

/// <summary>
/// Removes CiliumEndpoints whose pod is gone and whose agent is not there to do it: a node that was switched off. An endpoint is removed when two
/// looks in a row found no such pod, and only if it is still the object that was looked at.
/// </summary>
internal sealed class LostEndpoints(KubeClient client, Reflector<CiliumEndpoint> endpoints, Reflector<Pod> pods, OperatorLog log)
{
    private HashSet<string> _suspects = [];

    public async Task CollectAsync(CancellationToken cancellation)
    {
        if (!endpoints.Status.Synced || !pods.Status.Synced || endpoints.Status.Error is not null || pods.Status.Error is not null)
            return;
        var suspects = new HashSet<string>();
        foreach (var endpoint in endpoints.Snapshot())
        {
            var (space, name) = (endpoint.Metadata.Namespace ?? "", endpoint.Metadata.Name ?? "");
            if (pods.Find(space, name) is { Status.Phase: not ("Succeeded" or "Failed") } || endpoint.Metadata.Uid is not { } uid)
                continue;
            if (!_suspects.Contains(uid))
            {
                suspects.Add(uid);
                continue;
            }
            try
            {
                if (await client.DeleteAsync(KubeResources.CiliumEndpoints, space, name, cancellation, new KubeDelete { Uid = uid }))
                    log.Line($"endpoint {space}/{name} is removed: there is no such pod");
            }
            catch (KubeApiException e) when (e.Fault is KubeFault.Conflict)
            {
                // A new pod of the same name has one of its own by now.
            }
        }
        _suspects = suspects;
    }
}
