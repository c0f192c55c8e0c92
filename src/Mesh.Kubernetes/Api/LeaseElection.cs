using System.Globalization;

namespace Mesh.Kubernetes.Api;

public sealed record LeaseElectionOptions
{
    /// <summary>Whole seconds. A holder that has not renewed for so long, by the watcher's own clock, is taken to be dead.</summary>
    public TimeSpan Duration { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>A holder that could not renew for so long gives up by itself. Shorter than <see cref="Duration"/>.</summary>
    public TimeSpan RenewDeadline { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>How often the holder renews, and the others look.</summary>
    public TimeSpan Retry { get; init; } = TimeSpan.FromSeconds(2);

    public TimeProvider Time { get; init; } = TimeProvider.System;

    public Action<string> Log { get; init; } = _ => { };
}

/// <summary>
/// Of several programs one does the work: whoever holds the Lease object. The holder stops by itself before another may take over, as long
/// as clocks run at nearly one speed; their time of day does not matter, because a lease counts as dead only when we have seen it unchanged
/// for its whole duration.
/// </summary>
public sealed class LeaseElection
{
    private readonly KubeClient _client;
    private readonly string _ns;
    private readonly string _name;
    private readonly string _identity;
    private readonly LeaseElectionOptions _options;
    private (string? Holder, string? Renewed, string? Version) _seen;
    private long _seenAt;
    private volatile bool _leader;
    private volatile string _holder = "";
    private volatile string? _error;

    /// <param name="identity">Ours, unlike that of every other candidate: pod name and a random part.</param>
    public LeaseElection(KubeClient client, string ns, string name, string identity, LeaseElectionOptions? options = null)
    {
        _client = client;
        _ns = ns;
        _name = name;
        _identity = identity;
        _options = options ?? new LeaseElectionOptions();
    }

    public bool IsLeader => _leader;

    /// <summary>Who leads, as last seen; "" for nobody.</summary>
    public string Holder => _holder;

    /// <summary>Why the lease could not be read or written the last time; null when it could.</summary>
    public string? Error => _error;

    /// <summary>Waits for its turn, does the work while it leads, and again, until cancelled. The lease is given back at the end.</summary>
    /// <param name="lead">The work; its token ends with the leadership. When it ends by itself, so does this.</param>
    public async Task RunAsync(Func<CancellationToken, Task> lead, CancellationToken cancellation)
    {
        while (true)
        {
            await AcquireAsync(cancellation).ConfigureAwait(false);
            _options.Log($"lease {_ns}/{_name}: {_identity} leads");
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            var keeping = KeepAsync(stop.Token);
            var leading = lead(stop.Token);
            try
            {
                await Task.WhenAny(keeping, leading).ConfigureAwait(false);
            }
            finally
            {
                await stop.CancelAsync().ConfigureAwait(false);
                await Task.WhenAll(keeping, leading).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                _leader = false;
                await ReleaseAsync().ConfigureAwait(false);
            }
            if (leading.IsFaulted || leading.IsCompletedSuccessfully)
            {
                await leading.ConfigureAwait(false);
                return;
            }
            cancellation.ThrowIfCancellationRequested();
            _options.Log($"lease {_ns}/{_name}: {_identity} leads no longer");
        }
    }

    private async Task AcquireAsync(CancellationToken cancellation)
    {
        while (!await TryTakeAsync(cancellation).ConfigureAwait(false))
            await Task.Delay(_options.Retry, _options.Time, cancellation).ConfigureAwait(false);
        _leader = true;
    }

    /// <summary>Renews until it cannot.</summary>
    private async Task KeepAsync(CancellationToken cancellation)
    {
        var renewed = _options.Time.GetTimestamp();
        while (true)
        {
            await Task.Delay(_options.Retry, _options.Time, cancellation).ConfigureAwait(false);
            var left = _options.RenewDeadline - _options.Time.GetElapsedTime(renewed);
            if (left <= TimeSpan.Zero)
                return;
            using var deadline = new CancellationTokenSource(left, _options.Time);
            using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
            try
            {
                var asked = _options.Time.GetTimestamp();
                if (await TryTakeAsync(either.Token).ConfigureAwait(false))
                    renewed = asked;
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                _error = $"lease {_ns}/{_name}: no answer within {_options.RenewDeadline.TotalSeconds:0.#} s";
            }
            if (_holder != _identity || _options.Time.GetElapsedTime(renewed) >= _options.RenewDeadline)
                return;
        }
    }

    /// <summary>True when the lease is ours now.</summary>
    private async Task<bool> TryTakeAsync(CancellationToken cancellation)
    {
        try
        {
            var lease = await _client.FindAsync(KubeResources.Leases, _ns, _name, cancellation).ConfigureAwait(false);
            _error = null;
            if (lease is null)
            {
                await _client.CreateAsync(KubeResources.Leases, _ns, Held(new Lease(), changesHands: true), cancellation).ConfigureAwait(false);
                _holder = _identity;
                return true;
            }
            var holder = lease.Spec?.HolderIdentity ?? "";
            Observe(holder, lease);
            var ours = holder == _identity;
            if (!ours && holder.Length > 0 && !IsDead(lease))
            {
                _holder = holder;
                return false;
            }
            await _client.UpdateAsync(KubeResources.Leases, _ns, _name, Held(lease, !ours), cancellation).ConfigureAwait(false);
            _holder = _identity;
            return true;
        }
        catch (KubeApiException e) when (e.Fault is KubeFault.Conflict or KubeFault.AlreadyExists)
        {
            // Another was quicker: who it is shows at the next look.
            return false;
        }
        catch (KubeApiException e)
        {
            if (_error is null)
                _options.Log($"lease {_ns}/{_name}: {e.Message}");
            _error = e.Message;
            return false;
        }
    }

    private void Observe(string holder, Lease lease)
    {
        var now = (holder, lease.Spec?.RenewTime, lease.Metadata.ResourceVersion);
        if (_seen == now)
            return;
        _seen = now;
        _seenAt = _options.Time.GetTimestamp();
    }

    private bool IsDead(Lease lease)
    {
        var duration = lease.Spec?.LeaseDurationSeconds is > 0 and var seconds ? TimeSpan.FromSeconds(seconds) : _options.Duration;
        return _options.Time.GetElapsedTime(_seenAt) >= duration;
    }

    private Lease Held(Lease lease, bool changesHands)
    {
        var now = _options.Time.GetUtcNow().ToString("yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'", CultureInfo.InvariantCulture);
        return lease with
        {
            Metadata = lease.Metadata with { Name = _name, Namespace = _ns },
            Spec = (lease.Spec ?? new LeaseSpec()) with
            {
                HolderIdentity = _identity,
                LeaseDurationSeconds = (int)_options.Duration.TotalSeconds,
                AcquireTime = changesHands ? now : lease.Spec?.AcquireTime ?? now,
                RenewTime = now,
                LeaseTransitions = (lease.Spec?.LeaseTransitions ?? 0) + (changesHands && lease.Spec is not null ? 1 : 0),
            },
        };
    }

    /// <summary>The others need not wait for the lease to grow old. When it cannot be given back, they do.</summary>
    private async Task ReleaseAsync()
    {
        using var deadline = new CancellationTokenSource(_options.Retry, _options.Time);
        try
        {
            var lease = await _client.FindAsync(KubeResources.Leases, _ns, _name, deadline.Token).ConfigureAwait(false);
            if (lease?.Spec?.HolderIdentity == _identity)
                await _client.UpdateAsync(KubeResources.Leases, _ns, _name, lease with { Spec = lease.Spec with { HolderIdentity = "" } }, deadline.Token)
                    .ConfigureAwait(false);
        }
        catch (Exception e) when (e is KubeApiException or OperationCanceledException)
        {
            _error = $"lease {_ns}/{_name} could not be given back: {e.Message}";
        }
        _holder = "";
    }
}
