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
                var wasPrivate = _etcd.PrivateUrl is not null;
                if (!await TryEnsureAsync())
                {
                    await Task.Delay(RetryPause, _time, _stop.Token);
                    seen--;
                }
                else if (!wasPrivate)
                {
                    _log($"etcd: process {_etcd.ChildProcessId} serves at {string.Join(' ', _options.ListenClientUrls)}");
                    _inForce.TrySetResult();
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
        var reach = _etcd.PrivateUrl is { } url ? new EtcdOptions { Endpoints = [url] } : _options.ClientOptions();
        try
        {
            using var access = new EtcdAccess(reach, _time);
            await access.EnsureAsync(MeshAccess.Roles(_self), MeshAccess.Users(_self), _stop.Token);
            return Open();
        }
        catch (KVStoreException e) when (_etcd.PrivateUrl is not null && e.Message.Contains("user name is empty", StringComparison.Ordinal))
        {
            // We were interrupted between the last step and taking note of it: users are in force.
            return Open();
        }
        catch (KVStoreException e)
        {
            _log($"etcd: users and roles are not in force: {e.Message}");
            return false;
        }
    }

    private bool Open()
    {
        try
        {
            if (_etcd.PrivateUrl is not null)
                _etcd.OpenToPeers();
            return true;
        }
        catch (IOException e)
        {
            _log($"etcd: {_options.DataDirectory} cannot be written, so it stays closed to peers: {e.Message}");
            return false;
        }
    }
}
