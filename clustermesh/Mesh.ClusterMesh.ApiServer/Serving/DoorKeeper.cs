using System.Globalization;
using System.Net;
using Mesh.ClusterMesh.Door;
using Mesh.KVStore;

namespace Mesh.ClusterMesh.ApiServer.Serving;

/// <summary>
/// Keeps the door open. One whose self-test fails or whose port is taken stays shut and is tried again, and until it is open the
/// server is not ready and says why: what is published goes on meanwhile, and a port that becomes free needs nobody to restart us.
/// Files and options that cannot work at the start are errors at once.
/// </summary>
internal sealed class DoorKeeper : IAsyncDisposable
{
    private static readonly TimeSpan RetryMin = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan RetryMax = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan CertificateWarning = TimeSpan.FromDays(14);

    private readonly DoorOptions _options;
    private readonly EtcdChannel? _etcd;
    private readonly MirrorView? _cache;
    private readonly TimeProvider _time;
    private readonly Action<string> _log;
    private readonly CancellationTokenSource _stop = new();
    private readonly TaskCompletionSource _opened = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Task _keeping;
    private ClusterDoor _door;
    private volatile string? _shut = "not open yet";

    /// <exception cref="IOException">A file or an option of the door cannot be used; the message says which.</exception>
    /// <param name="etcd">Null for a door with a cache alone.</param>
    /// <param name="cache">What a relay mirrors, which stays its own; null for a door without it.</param>
    public DoorKeeper(DoorOptions options, EtcdOptions? etcd, MirrorView? cache, TimeProvider time, Action<string> log)
    {
        (_options, _time, _log) = (options, time, log);
        _cache = cache;
        _etcd = etcd is null ? null : EtcdChannel.Open(etcd, time);
        try
        {
            if (options.StateDir is { } directory)
                Directory.CreateDirectory(directory);
            _door = NewDoor();
        }
        catch (Exception e) when (e is ArgumentException or InvalidDataException)
        {
            _etcd?.Dispose();
            throw new IOException(e.Message, e);
        }
        _keeping = Task.Run(KeepAsync);
    }

    public DoorStatus Status => Volatile.Read(ref _door).Status;

    /// <summary>Where readers connect; null while it is shut.</summary>
    public IPEndPoint? Address => _shut is null ? Status.Address : null;

    /// <summary>What an operator should know, one line each: why it is shut, what it cannot use.</summary>
    public IEnumerable<string> Problems
    {
        get
        {
            var status = Status;
            if (_shut is { } why)
                yield return $"door: shut: {why}{(status.Etcd.Connected || _etcd is null ? "" : $" (etcd: {status.Etcd.Error})")}";
            else if (!status.Etcd.Connected && _etcd is not null)
                yield return $"door: serves from memory since {status.Etcd.Since:u}: {status.Etcd.Error}";
            if (status.CertificateNotAfter - _time.GetUtcNow() is var left && left < CertificateWarning)
                yield return string.Create(CultureInfo.InvariantCulture,
                    $"door: the certificate {_options.CertFile} ends in {left.TotalDays:0.0} days, {status.CertificateNotAfter.UtcDateTime:u}: issue another");
            foreach (var problem in status.Problems)
                yield return $"door: {problem}";
        }
    }

    public Task WaitUntilOpenAsync(CancellationToken cancellation) => _opened.Task.WaitAsync(cancellation);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _keeping;
        await _door.DisposeAsync();
        _etcd?.Dispose();
        _stop.Dispose();
    }

    private ClusterDoor NewDoor() => new(_options, _etcd, _cache, _time, _log);

    private async Task KeepAsync()
    {
        for (var pause = RetryMin; ; pause = pause * 2 < RetryMax ? pause * 2 : RetryMax)
        {
            try
            {
                await _door.OpenAsync(_stop.Token);
                _shut = null;
                _opened.TrySetResult();
                pause = RetryMin;
                await _door.Completion.WaitAsync(_stop.Token);
            }
            catch (OperationCanceledException) when (_stop.IsCancellationRequested)
            {
                _opened.TrySetCanceled();
                return;
            }
            catch (Exception e)
            {
                // Whatever it was, it is told, and a door that is shut lets nobody in.
                _shut = e.Message;
                _log($"door: shut: {e.Message}; trying again in {pause.TotalSeconds:0} s");
            }
            await _door.DisposeAsync();
            await RenewAsync(pause);
            if (_stop.IsCancellationRequested)
                return;
        }
    }

    /// <summary>Another door, once its files can be used.</summary>
    private async Task RenewAsync(TimeSpan pause)
    {
        while (!_stop.IsCancellationRequested)
        {
            await Task.Delay(pause, _time, _stop.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            try
            {
                Volatile.Write(ref _door, NewDoor());
                return;
            }
            catch (InvalidDataException e)
            {
                _shut = e.Message;
            }
        }
    }
}
