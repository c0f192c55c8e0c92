using System.Runtime.CompilerServices;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes;

/// <summary>
/// The present objects and their changes for any number of readers: one writer appends steps to a linked list, each reader walks it
/// at its own pace, and a step lives only as long as a reader has it before it. A reader that comes late begins with the present.
/// </summary>
internal sealed class ObjectFeed
{
    private readonly Lock _gate = new();
    private readonly Dictionary<ObjectKey, KubernetesObject> _present = [];
    private Step _last = new([]);
    private bool _synced;
    private IReadOnlySet<ObjectKind> _incomplete = new HashSet<ObjectKind>();

    private ObjectEvent Synced => new(ObjectEventType.Synced, null) { Incomplete = _incomplete.Count == 0 ? null : _incomplete };

    /// <summary>As last published; null when it is not there.</summary>
    public KubernetesObject? Find(ObjectKey key)
    {
        lock (_gate)
            return _present.GetValueOrDefault(key);
    }

    /// <summary>Publishes changes, perhaps none.</summary>
    /// <param name="complete">Everything has been looked at: the first time this is so, Synced follows.</param>
    /// <param name="incomplete">Kinds of which something could not be read; when they are others than before, Synced follows again.</param>
    public void Publish(List<ObjectEvent> events, bool complete, IReadOnlySet<ObjectKind> incomplete)
    {
        Step previous, next;
        lock (_gate)
        {
            foreach (var change in events)
            {
                if (change.Type == ObjectEventType.Upsert)
                    _present[change.Object!.Key] = change.Object;
                else
                    _present.Remove(change.Object!.Key);
            }
            if (complete && (!_synced || !_incomplete.SetEquals(incomplete)))
            {
                _incomplete = incomplete;
                events.Add(Synced);
                _synced = true;
            }
            if (events.Count == 0)
                return;
            previous = _last;
            next = _last = new Step(events);
        }
        previous.Next.TrySetResult(next);
    }

    /// <summary>Nothing will follow: every reader is given the reason in place of the next change.</summary>
    public void Fail(Exception reason)
    {
        lock (_gate)
            _last.Next.TrySetException(reason);
    }

    public async IAsyncEnumerable<IReadOnlyList<ObjectEvent>> WatchAsync(
        IReadOnlySet<ObjectKind> kinds, [EnumeratorCancellation] CancellationToken cancellation)
    {
        Step step;
        var first = new List<ObjectEvent>();
        lock (_gate)
        {
            step = _last;
            first.AddRange(_present.Values.Where(o => kinds.Contains(o.Kind)).Select(o => new ObjectEvent(ObjectEventType.Upsert, o)));
            if (_synced)
                first.Add(Synced);
        }
        if (first.Count > 0)
            yield return first;
        while (true)
        {
            step = await step.Next.Task.WaitAsync(cancellation);
            var wanted = step.Events.FindAll(change => change.Object is null || kinds.Contains(change.Object.Kind));
            if (wanted.Count > 0)
                yield return wanted;
        }
    }

    private sealed class Step(List<ObjectEvent> events)
    {
        public List<ObjectEvent> Events { get; } = events;

        public TaskCompletionSource<Step> Next { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
