using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Manifests;

/// <summary>
/// Which file's version of each object holds. When several files define one object, the first in path order (ordinal) wins and the
/// others are reported; when the winner lets go, the next takes over as an ordinary change.
/// </summary>
internal sealed class Definitions
{
    private static readonly Comparer<ManifestFile> ByPath =
        Comparer<ManifestFile>.Create((a, b) => string.CompareOrdinal(a.Path, b.Path));

    private readonly Dictionary<ObjectKey, (ManifestFile File, ManifestObject Object)> _winners = [];

    /// <summary>Only the objects that more than one file defines.</summary>
    private readonly Dictionary<ObjectKey, SortedSet<ManifestFile>> _rivals = [];

    public int Count => _winners.Count;

    /// <summary>Problems of objects defined more than once.</summary>
    public IEnumerable<(string Where, string Message)> Conflicts =>
        from rivals in _rivals
        let winner = rivals.Value.Min!
        from loser in rivals.Value
        where loser != winner
        select (loser.ShownAs, $"{rivals.Key} is defined by {winner.ShownAs} already, which wins: remove one of them");

    /// <summary>Takes the file's objects in place of those it had, and says what changed for the readers.</summary>
    /// <param name="before">What the file defined when this was last called for it.</param>
    public void Replace(ManifestFile file, IReadOnlyDictionary<ObjectKey, ManifestObject> before, List<ObjectEvent> events)
    {
        foreach (var key in before.Keys)
        {
            if (!file.Objects.ContainsKey(key))
                Release(file, key, events);
        }
        foreach (var (key, definition) in file.Objects)
            Claim(file, key, definition, events);
    }

    private void Claim(ManifestFile file, ObjectKey key, ManifestObject definition, List<ObjectEvent> events)
    {
        if (_winners.TryGetValue(key, out var winner) && winner.File != file)
        {
            if (!_rivals.TryGetValue(key, out var rivals))
                _rivals[key] = rivals = new SortedSet<ManifestFile>(ByPath) { winner.File };
            rivals.Add(file);
            if (rivals.Min != file)
                return;
        }
        if (winner.Object is null || winner.Object.Digest != definition.Digest)
            events.Add(new ObjectEvent(ObjectEventType.Upsert, definition.Object));
        _winners[key] = (file, definition);
    }

    private void Release(ManifestFile file, ObjectKey key, List<ObjectEvent> events)
    {
        if (_rivals.TryGetValue(key, out var rivals))
        {
            rivals.Remove(file);
            if (rivals.Count == 1)
                _rivals.Remove(key);
            if (_winners[key].File != file)
                return;
            var heir = rivals.Min!;
            var changed = heir.Objects[key].Digest != _winners[key].Object.Digest;
            _winners[key] = (heir, heir.Objects[key]);
            if (changed)
                events.Add(new ObjectEvent(ObjectEventType.Upsert, heir.Objects[key].Object));
            return;
        }
        if (_winners.Remove(key, out var gone))
            events.Add(new ObjectEvent(ObjectEventType.Delete, gone.Object.Object));
    }
}
