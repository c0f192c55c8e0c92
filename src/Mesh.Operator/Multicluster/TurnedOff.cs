using Mesh.Kubernetes.Api;

namespace Mesh.Operator.Multicluster;

/// <summary>Takes away once what a feature left that is off now: names would go on resolving to pods that nobody watches any more.</summary>
internal sealed class TurnedOff(OperatorOptions options, KubeClient client, TimeProvider time, OperatorLog log)
{
    private static readonly TimeSpan Retry = TimeSpan.FromSeconds(5);

    /// <summary>Not over when everything is gone: it ends only when told.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        // Where imports are on, endpoints are synchronized for these at least, and that takes away what is not wanted.
        if (!options.Imports)
        {
            await RemoveAsync("imports", MadeForServices.DeleteImportsAsync, cancellation);
            if (!options.SyncsEndpoints)
                await RemoveAsync("slices of other clusters", MadeForServices.DeleteSlicesAsync, cancellation);
        }
        await Task.Delay(Timeout.InfiniteTimeSpan, cancellation);
    }

    private async Task RemoveAsync(string what, Func<KubeClient, CancellationToken, Task<int>> remove, CancellationToken cancellation)
    {
        while (true)
        {
            try
            {
                if (await remove(client, cancellation) is > 0 and var count)
                    log.Line($"{what}: {count} removed, the feature is off");
                log.Mended(what);
                return;
            }
            catch (KubeApiException e)
            {
                log.Problem(what, e.Message);
                await Task.Delay(e.RetryAfter ?? Retry, time, cancellation);
            }
        }
    }
}
