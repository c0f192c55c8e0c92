using Mesh.ClusterMesh.Remote;

namespace Mesh.ClusterMesh.Imports;

/// <summary>A record that was refused and still stands in the peer's store.</summary>
/// <param name="Key">The whole key; may hold anything that a peer can write.</param>
/// <param name="Revision">Store revision of the value last refused.</param>
/// <param name="Count">How often a value of the key was refused since <paramref name="FirstSeen"/>.</param>
public sealed record QuarantinedRecord(
    RemoteResource Resource, string Key, RefusalReason Reason, string Text, long Revision, DateTimeOffset FirstSeen, DateTimeOffset LastSeen,
    long Count);

/// <summary>
/// One peer's refused records, so that somebody can look at them. Bounded: what finds no room is counted alone. A record leaves when
/// its key is accepted, deleted, or missing from a complete list. Written by one loop, read by any thread.
/// </summary>
internal sealed class Quarantine(TimeProvider time)
{
    /// <summary>Records kept per peer.</summary>
    public const int Capacity = 1_000;

    private const int LongestKey = 512;

    private readonly Lock _lock = new();
    private readonly Dictionary<(RemoteResource Resource, string Key), (QuarantinedRecord Record, int List)> _records = [];
    private readonly long[] _refused = new long[Enum.GetValues<RefusalReason>().Length];
    private readonly int[] _lists = new int[RemoteResources.All.Count];

    /// <summary>Records in quarantine now.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
                return _records.Count;
        }
    }

    /// <summary>Refusals that found no room, since the start.</summary>
    public long Overflow { get; private set; }

    /// <summary>Refusals since the start.</summary>
    public long Total { get; private set; }

    public string? Last { get; private set; }

    public IReadOnlyList<QuarantinedRecord> Records
    {
        get
        {
            lock (_lock)
                return [.. _records.Values.Select(entry => entry.Record).OrderBy(record => record.Key, StringComparer.Ordinal)];
        }
    }

    /// <summary>Refusals by reason since the start, those that never happened left out.</summary>
    public IReadOnlyDictionary<RefusalReason, long> Refused
    {
        get
        {
            lock (_lock)
            {
                return Enum.GetValues<RefusalReason>().Where(reason => _refused[(int)reason] > 0)
                    .ToDictionary(reason => reason, reason => _refused[(int)reason]);
            }
        }
    }

    public void Add(RemoteResource resource, string key, in Refusal refusal, long revision)
    {
        var now = time.GetUtcNow();
        if (key.Length > LongestKey)
            key = key[..LongestKey];
        lock (_lock)
        {
            Total++;
            _refused[(int)refusal.Reason]++;
            Last = $"{Wire.Json.Quoted.Text(key)}: {refusal.Text}";
            if (_records.TryGetValue((resource, key), out var known))
            {
                _records[(resource, key)] = (known.Record with
                {
                    Reason = refusal.Reason,
                    Text = refusal.Text,
                    Revision = revision,
                    LastSeen = now,
                    Count = known.Record.Count + 1,
                }, _lists[(int)resource]);
            }
            else if (_records.Count < Capacity)
            {
                _records[(resource, key)] =
                    (new QuarantinedRecord(resource, key, refusal.Reason, refusal.Text, revision, now, now, 1), _lists[(int)resource]);
            }
            else
            {
                Overflow++;
            }
        }
    }

    /// <summary>The key is accepted or gone. Nothing when it was not here.</summary>
    public void Remove(RemoteResource resource, string key)
    {
        // Nearly always: no lock, no hashing of hundreds of thousands of sound keys.
        if (_records.Count == 0)
            return;
        lock (_lock)
            _records.Remove((resource, key));
    }

    public void BeginList(RemoteResource resource)
    {
        lock (_lock)
            _lists[(int)resource]++;
    }

    /// <summary>The list that began last is complete: what it did not show is gone.</summary>
    public void EndList(RemoteResource resource)
    {
        lock (_lock)
        {
            foreach (var ((of, key), (_, list)) in _records)
            {
                if (of == resource && list != _lists[(int)resource])
                    _records.Remove((of, key));
            }
        }
    }

    /// <summary>The peer was removed.</summary>
    public void Clear()
    {
        lock (_lock)
            _records.Clear();
    }
}
