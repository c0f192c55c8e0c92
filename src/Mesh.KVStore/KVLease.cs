namespace Mesh.KVStore;

/// <summary>A lease kept alive by its owner. When it is lost it is granted anew under another ID and <see cref="Epoch"/> grows:
/// keys written under the old one are gone, and whoever owns them writes them again.</summary>
public abstract class KVLease : IAsyncDisposable
{
    /// <summary>etcd's lease ID at present; 0 before the first grant.</summary>
    public abstract long Id { get; }

    /// <summary>Grows by one with each grant; 1 for the first.</summary>
    public abstract long Epoch { get; }

    /// <summary>Revokes the lease: its keys vanish.</summary>
    public abstract ValueTask DisposeAsync();
}
