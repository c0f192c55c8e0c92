using Grpc.Core;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// Makes reads linearizable: asks etcd for its revision and waits until the cache has it. However many wait, at most one question is
/// under way and one more is to come; a read joins the one that starts after it, never one that may have been answered before it began.
/// </summary>
internal sealed class ReadConfirmation(Func<CancellationToken, Task<long>> confirmedRevision, WatchCache cache, TimeSpan timeout)
{
    private readonly Lock _gate = new();
    private Task _running = Task.CompletedTask;
    private Task<long>? _next;

    public async Task ConfirmAsync(CancellationToken cancellation)
    {
        try
        {
            var revision = await Join().WaitAsync(cancellation);
            await cache.WaitForAsync(revision, cancellation).WaitAsync(timeout, cancellation);
        }
        catch (Exception e) when (e is RpcException or TimeoutException || (e is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw EtcdFault.TimedOut();
        }
    }

    private Task<long> Join()
    {
        lock (_gate)
            return _next ??= AskAfterAsync(_running);
    }

    private async Task<long> AskAfterAsync(Task previous)
    {
        await previous.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ForceYielding);
        Task<long> asked;
        using var deadline = new CancellationTokenSource(timeout);
        lock (_gate)
        {
            asked = confirmedRevision(deadline.Token);
            _running = asked;
            _next = null;
        }
        return await asked;
    }
}
