namespace Mesh.ClusterMesh.Remote;

public enum IdReservation
{
    /// <summary>The cluster holds the ID now.</summary>
    Granted,

    /// <summary>Another cluster holds it and means to keep it.</summary>
    Clash,

    /// <summary>Its holder has announced another ID and gives this one up as soon as it can. The asker must let go of its own
    /// old ID meanwhile, or two clusters that swap their IDs would wait for each other for ever.</summary>
    HolderIsLeaving,
}

/// <summary>Which connected cluster holds which ID. Identities are numbered by it, so no two may share one. For any thread.</summary>
public sealed class ClusterIdReservations
{
    private readonly Lock _lock = new();
    private readonly Dictionary<uint, string> _holders = [];
    private readonly Dictionary<string, uint> _announced = new(StringComparer.Ordinal);

    /// <summary>Asks for the ID that the cluster has just announced. An ID it held before stays held until released.</summary>
    /// <param name="holder">Who has the ID, when it is not granted.</param>
    public IdReservation TryReserve(uint id, string cluster, out string? holder)
    {
        lock (_lock)
        {
            _announced[cluster] = id;
            if (!_holders.TryGetValue(id, out holder) || holder == cluster)
            {
                _holders[id] = cluster;
                holder = null;
                return IdReservation.Granted;
            }
            return _announced.TryGetValue(holder, out var wanted) && wanted != id ? IdReservation.HolderIsLeaving : IdReservation.Clash;
        }
    }

    /// <summary>Nothing happens when the cluster does not hold the ID.</summary>
    public void Release(uint id, string cluster)
    {
        lock (_lock)
        {
            if (_holders.TryGetValue(id, out var holder) && holder == cluster)
                _holders.Remove(id);
        }
    }

    /// <summary>The cluster left the mesh.</summary>
    public void Forget(string cluster)
    {
        lock (_lock)
        {
            _announced.Remove(cluster);
            foreach (var id in _holders.Where(pair => pair.Value == cluster).Select(pair => pair.Key).ToList())
                _holders.Remove(id);
        }
    }
}
