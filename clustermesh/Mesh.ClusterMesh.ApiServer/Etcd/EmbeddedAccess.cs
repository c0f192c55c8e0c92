using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Etcd;

/// <summary>Puts users and roles in force each time our etcd comes up: one whose data was lost comes back without any.</summary>
internal sealed class EmbeddedAccess : IAsyncDisposable
{
    private static readonly TimeSpan RetryPause = TimeSpan.FromSeconds(1);

    private readonly EtcdSupervisor _etcd;
    private readonly EtcdServerOptions _options;
    private readonly ClusterSelf _self;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _inForce = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _keeping;

    public EmbeddedAccess(EtcdSupervisor etcd, EtcdServerOptions options, ClusterSelf self, TimeProvider time, Action<string> log)
    {
        _etcd = etcd;
        _options = options;
        _self = self;
        _time = time;
        _log = log;
        _keeping = Task.Run(KeepAsync);
    }

    public Task WaitUntilInForceAsync(CancellationToken cancellation) => _inForce.Task.WaitAsync(cancellation);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _keeping;
        _stop.Dispose();
    }

    private async Task KeepAsync()
    {
        try
        {
            var seen = 0;
            while (true)
            {
                seen = await _etcd.WaitForStartAsync(seen, _stop.Token);
                await _etcd.WaitUntilReadyAsync(_stop.Token);
                if (await TryEnsureAsync())
                {
                    _log($"etcd: process {_etcd.ChildProcessId} serves at {string.Join(' ', _options.ListenClientUrls)}");
                    _inForce.TrySetResult();
                }
                else
                {
                    await Task.Delay(RetryPause, _time, _stop.Token);
                    seen--;
                }
            }
        }
        catch (OperationCanceledException) when (_stop.IsCancellationRequested)
        {
            _inForce.TrySetCanceled();
        }
    }

    private async Task<bool> TryEnsureAsync()
    {
        if (!_options.IsSecure)
            return true;
        try
        {
            using var access = new EtcdAccess(_options.ClientOptions(), _time);
            await access.EnsureAsync(MeshAccess.Roles(_self), MeshAccess.Users(_self), _stop.Token);
            return true;
        }
        catch (KVStoreException e)
        {
            _log($"etcd: users and roles are not in force: {e.Message}");
            return false;
        }
    }
}
