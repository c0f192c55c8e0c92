using System.Runtime.CompilerServices;
using System.Threading.Channels;

namespace Mesh.Kubernetes.Api;

public enum ReflectorEventType
{
    Upsert,
    Delete,

    /// <summary>The server has something by this name that its model cannot take: what was known of it holds on.</summary>
    Fault,

    /// <summary>Everything that exists has been said. Said once.</summary>
    Synced,
}

/// <param name="Object">With Upsert: as it is now. With Delete: as it was last. Otherwise null.</param>
/// <param name="Fault">With Fault: field and what it must be. With Upsert: null.</param>
public readonly record struct ReflectorEvent<T>(ReflectorEventType Type, ObjectName Name, T? Object, string? Fault)
    where T : class;

public sealed record ReflectorOptions
{
    /// <summary>Null for all namespaces.</summary>
    public string? Namespace { get; init; }

    public KubeSelection Selection { get; init; } = KubeSelection.All;

    /// <summary>After the first failure; doubled by each further one, with jitter.</summary>
    public TimeSpan BackoffMin { get; init; } = TimeSpan.FromMilliseconds(100);

    public TimeSpan BackoffMax { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>A watch lives this long to twice this long before it is renewed: a server that has fallen silent is noticed by then.</summary>
    public TimeSpan WatchLife { get; init; } = TimeSpan.FromMinutes(5);

    /// <summary>Events that wait for a slow reader; then the server waits.</summary>
    public int QueueLength { get; init; } = 2048;

    public TimeProvider Time { get; init; } = TimeProvider.System;

    public Random Random { get; init; } = Random.Shared;

    /// <summary>One line when the server is lost, one when it is back.</summary>
    public Action<string> Log { get; init; } = _ => { };
}

/// <param name="Error">Why nothing is heard now; null while all is well.</param>
/// <param name="FailingSince">Null while all is well.</param>
/// <param name="Lists">Lists begun since the start: more than one tells of resource versions that grew too old.</param>
public sealed record ReflectorStatus(bool Synced, string? Error, DateTimeOffset? FailingSince, int Objects, long Lists, long Watches, long Events)
{
    /// <summary>The server is there and does not give us this resource: it is forbidden, or not installed.</summary>
    public bool Refused { get; init; }
}

/// <summary>
/// One resource of an API server, followed for ever: list in pages, then watch with bookmarks, and again from where the watch ended. When
/// the server has forgotten that moment (410) it lists anew, and what is missing from the list is said to be deleted: so no delete is ever
/// lost, and nothing is deleted because the server was away, refused, or answered nonsense. Between server and reader is a bounded queue:
/// a slow reader slows the server down, and costs no memory.
/// </summary>
public sealed class Reflector<T>
    where T : class
{
    private readonly KubeClient _client;
    private readonly KubeResource<T> _resource;
    private readonly ReflectorOptions _options;
    private readonly Lock _lock = new();
    private readonly Dictionary<ObjectName, (string Version, T? Object)> _known = [];
    private volatile string? _position;
    private ReflectorStatus _status = new(false, null, null, 0, 0, 0, 0);
    private int _following;

    public Reflector(KubeClient client, KubeResource<T> resource, ReflectorOptions? options = null)
    {
        _client = client;
        _resource = resource;
        _options = options ?? new ReflectorOptions();
    }

    public KubeResource<T> Resource => _resource;

    /// <summary>Resource version from which a watch would go on; null while there is none.</summary>
    public string? Position => _position;

    public ReflectorStatus Status
    {
        get
        {
            lock (_lock)
                return _status with { Objects = _known.Count };
        }
    }

    /// <summary>As last heard; null for what is not there, or was never readable.</summary>
    public T? Find(string? ns, string name)
    {
        lock (_lock)
            return _known.GetValueOrDefault(new ObjectName(ns ?? "", name)).Object;
    }

    /// <summary>All that is there, as last heard; in no order.</summary>
    public IReadOnlyList<T> Snapshot()
    {
        lock (_lock)
            return [.. _known.Values.Select(known => known.Object).OfType<T>()];
    }

    /// <summary>Everything present as Upsert, one Synced, then changes, in batches that are never empty; ends by cancellation alone. To be
    /// called once.</summary>
    public async IAsyncEnumerable<IReadOnlyList<ReflectorEvent<T>>> WatchAsync([EnumeratorCancellation] CancellationToken cancellation)
    {
        if (Interlocked.Exchange(ref _following, 1) != 0)
            throw new InvalidOperationException("a reflector has one reader: make another for another");
        var queue = Channel.CreateBounded<ReflectorEvent<T>>(new BoundedChannelOptions(_options.QueueLength) { SingleReader = true, SingleWriter = true });
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        var following = Task.Run(() => FollowAsync(queue.Writer, stop.Token), CancellationToken.None);
        try
        {
            while (await queue.Reader.WaitToReadAsync(cancellation).ConfigureAwait(false))
            {
                var batch = new List<ReflectorEvent<T>>();
                while (batch.Count < _options.QueueLength && queue.Reader.TryRead(out var change))
                    batch.Add(change);
                yield return batch;
            }
        }
        finally
        {
            await stop.CancelAsync().ConfigureAwait(false);
            await following.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        // Only by a fault of ours does the following end before it is told to: it is on its way up from here.
        await following.ConfigureAwait(false);
    }

    private async Task FollowAsync(ChannelWriter<ReflectorEvent<T>> queue, CancellationToken cancellation)
    {
        var failures = 0;
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                TimeSpan? wait = null;
                try
                {
                    if (_position is null)
                        await ListAsync(queue, cancellation).ConfigureAwait(false);
                    var heard = await FollowOnceAsync(queue, cancellation).ConfigureAwait(false);
                    // A server that ends every watch at once is not asked in a tight circle.
                    failures = heard ? 0 : failures + 1;
                    if (!heard)
                        wait = Backoff(failures);
                    Recovered();
                }
                catch (KubeApiException e) when (e.Fault == KubeFault.Gone)
                {
                    _position = null;
                    failures++;
                    wait = failures > 1 ? Backoff(failures) : null;
                }
                catch (KubeApiException e)
                {
                    failures++;
                    Failed(e);
                    var backoff = Backoff(failures);
                    wait = e.RetryAfter > backoff ? e.RetryAfter : backoff;
                    if (e.Fault is KubeFault.BadAnswer or KubeFault.BadRequest)
                        _position = null;
                }
                if (wait is { } pause)
                    await Task.Delay(pause, _options.Time, cancellation).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The normal end.
        }
        catch (Exception e)
        {
            queue.Complete(e);
            throw;
        }
    }

    private async Task ListAsync(ChannelWriter<ReflectorEvent<T>> queue, CancellationToken cancellation)
    {
        Count(lists: 1);
        var present = new HashSet<ObjectName>();
        var position = "";
        await foreach (var page in _client.ListPagesAsync(_resource, _options.Namespace, _options.Selection, cancellation).ConfigureAwait(false))
        {
            foreach (var item in page.Items)
            {
                present.Add(item.Name);
                await TakeAsync(queue, item, cancellation).ConfigureAwait(false);
            }
            position = page.ResourceVersion;
        }
        Recovered();
        foreach (var name in Missing(present))
            await RemoveAsync(queue, name, cancellation).ConfigureAwait(false);
        _position = position;
        if (Status.Synced)
            return;
        Change(status => status with { Synced = true });
        await queue.WriteAsync(new ReflectorEvent<T>(ReflectorEventType.Synced, default, null, null), cancellation).ConfigureAwait(false);
    }

    /// <returns>True when something was heard, were it a bookmark, or it lived as long as it was to.</returns>
    private async Task<bool> FollowOnceAsync(ChannelWriter<ReflectorEvent<T>> queue, CancellationToken cancellation)
    {
        Count(watches: 1);
        var life = _options.WatchLife * (1 + _options.Random.NextDouble());
        var begun = _options.Time.GetTimestamp();
        var heard = false;
        await foreach (var change in _client.WatchAsync(_resource, _options.Namespace, _position!, life, _options.Selection, cancellation)
            .ConfigureAwait(false))
        {
            if (!heard)
                Recovered();
            heard = true;
            switch (change.Type)
            {
                case KubeEventType.Deleted:
                    await RemoveAsync(queue, change.Item.Name, cancellation).ConfigureAwait(false);
                    break;
                case KubeEventType.Added or KubeEventType.Modified:
                    await TakeAsync(queue, change.Item, cancellation).ConfigureAwait(false);
                    break;
                default:
                    break;
            }
            // Only now: what has not been passed on is to be heard again.
            if (change.Item.ResourceVersion.Length > 0)
                _position = change.Item.ResourceVersion;
        }
        return heard || _options.Time.GetElapsedTime(begun) >= TimeSpan.FromSeconds(Math.Floor(life.TotalSeconds) / 2);
    }

    private async ValueTask TakeAsync(ChannelWriter<ReflectorEvent<T>> queue, KubeItem<T> item, CancellationToken cancellation)
    {
        ReflectorEvent<T> change;
        lock (_lock)
        {
            var known = _known.TryGetValue(item.Name, out var before);
            if (known && before.Version == item.ResourceVersion && item.ResourceVersion.Length > 0)
                return;
            _status = _status with { Events = _status.Events + 1 };
            _known[item.Name] = (item.ResourceVersion, item.Object ?? before.Object);
            change = new ReflectorEvent<T>(item.Fault is null ? ReflectorEventType.Upsert : ReflectorEventType.Fault, item.Name, item.Object, item.Fault);
        }
        await queue.WriteAsync(change, cancellation).ConfigureAwait(false);
    }

    private async ValueTask RemoveAsync(ChannelWriter<ReflectorEvent<T>> queue, ObjectName name, CancellationToken cancellation)
    {
        T? last;
        lock (_lock)
        {
            if (!_known.Remove(name, out var known))
                return;
            _status = _status with { Events = _status.Events + 1 };
            last = known.Object;
        }
        await queue.WriteAsync(new ReflectorEvent<T>(ReflectorEventType.Delete, name, last, null), cancellation).ConfigureAwait(false);
    }

    private List<ObjectName> Missing(HashSet<ObjectName> present)
    {
        lock (_lock)
            return [.. _known.Keys.Where(name => !present.Contains(name))];
    }

    private TimeSpan Backoff(int failures)
    {
        var ceiling = Math.Min(_options.BackoffMax.TotalMilliseconds, _options.BackoffMin.TotalMilliseconds * Math.Pow(2, Math.Min(failures - 1, 20)));
        return TimeSpan.FromMilliseconds(ceiling * (0.5 + _options.Random.NextDouble() / 2));
    }

    private void Failed(KubeApiException e)
    {
        // A list of nothing is an empty one: not found is the resource itself, whether the answer says so in words or in none.
        var message = e.Fault == KubeFault.NotFound
            ? $"the server has no resource {_resource} of version {_resource.Version}: install its definition"
            : e.Message;
        if (Status.Error is null)
            _options.Log($"{_resource}: {message}; what is known stays");
        Change(status => status with
        {
            Error = message,
            FailingSince = status.FailingSince ?? _options.Time.GetUtcNow(),
            Refused = e.Fault is KubeFault.NotFound or KubeFault.Forbidden,
        });
    }

    private void Recovered()
    {
        if (Status is not { Error: not null, FailingSince: { } since })
            return;
        _options.Log($"{_resource}: the server answers again after {(_options.Time.GetUtcNow() - since).TotalSeconds:0.0} s");
        Change(status => status with { Error = null, FailingSince = null, Refused = false });
    }

    private void Count(int lists = 0, int watches = 0) => Change(status => status with { Lists = status.Lists + lists, Watches = status.Watches + watches });

    private void Change(Func<ReflectorStatus, ReflectorStatus> change)
    {
        lock (_lock)
            _status = change(_status);
    }
}
