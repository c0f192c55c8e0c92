using System.Globalization;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.StateDB;

namespace Mesh.ControlPlane.Identities;

/// <summary>Writes identity numbers with their labels, for people: the datapath needs the numbers alone. Clusters number in
/// ranges of their own, so no two can dispute.</summary>
public sealed class IdentitiesWriter
{
    private readonly Table<uint, IdentityRow> _identities;
    private readonly ClusterIdentity _self;

    /// <summary>Of other clusters, as an earlier run knew them; not said anew yet.</summary>
    private readonly HashSet<uint> _restored = [];
    private readonly Lock _lock = new();

    public IdentitiesWriter(Table<uint, IdentityRow> identities, ClusterIdentity self)
    {
        _identities = identities;
        _self = self;
    }

    /// <summary>Applies a batch of local objects; those of other kinds are passed over.</summary>
    public void ApplyLocal(IReadOnlyList<ObjectEvent> events)
    {
        var changes = new List<KeyValuePair<uint, IdentityRow?>>();
        foreach (var change in events)
            if (change.Object is CiliumIdentity identity
                && uint.TryParse(identity.Metadata.Name, NumberStyles.None, CultureInfo.InvariantCulture, out var number))
                changes.Add(new(number, change.Type == ObjectEventType.Upsert ? Row(number, identity) : null));
        Write(changes);
    }

    /// <summary>Stands in for clusters that have not been heard: without their identities, policies would shut their pods out after a
    /// restart that cannot reach them.</summary>
    public void Restore(IReadOnlyCollection<IdentityRow> rows)
    {
        lock (_lock)
        {
            _restored.UnionWith(rows.Select(row => row.Id));
            Write([.. rows.Select(row => new KeyValuePair<uint, IdentityRow?>(row.Id, row))]);
        }
    }

    /// <summary>The cluster has told all its identities: what it has not told is gone.</summary>
    public void Heard(string cluster) => Forget(row => row.Cluster == cluster);

    /// <summary>These are all the peers there are: identities of others will never be confirmed.</summary>
    public void Configured(IReadOnlyCollection<string> clusters) => Forget(row => !clusters.Contains(row.Cluster));

    /// <summary>Applies one remote cluster's changed identities, labels as on the wire; null deletes.</summary>
    public void ApplyRemote(string cluster, IReadOnlyList<KeyValuePair<uint, string?>> changes)
    {
        lock (_lock)
            _restored.ExceptWith(changes.Select(change => change.Key));
        Write([.. changes.Select(change => new KeyValuePair<uint, IdentityRow?>(change.Key, change.Value is null
            ? null
            : new IdentityRow(change.Key, new EquatableArray<string>(change.Value.Split(';', StringSplitOptions.RemoveEmptyEntries)), cluster)))]);
    }

    public void Drain(string cluster) => _identities.Write(transaction =>
    {
        foreach (var (number, row) in transaction.RowsBefore())
            if (row.Cluster == cluster)
                transaction.Delete(number);
    });

    private void Forget(Func<IdentityRow, bool> chosen)
    {
        lock (_lock)
        {
            var gone = _restored.Where(id => _identities.TryGet(id, out var row) && chosen(row)).ToList();
            _restored.ExceptWith(gone);
            Write([.. gone.Select(id => new KeyValuePair<uint, IdentityRow?>(id, null))]);
        }
    }

    private IdentityRow Row(uint number, CiliumIdentity identity) =>
        new(number, new EquatableArray<string>((identity.SecurityLabels ?? new Dictionary<string, string>())
            .OrderBy(label => label.Key[(label.Key.IndexOf(':', StringComparison.Ordinal) + 1)..], StringComparer.Ordinal)
            .Select(label => $"{label.Key}={label.Value}")), _self.Name);

    private void Write(List<KeyValuePair<uint, IdentityRow?>> changes)
    {
        if (changes.Count == 0)
            return;
        _identities.Write(transaction =>
        {
            foreach (var (number, row) in changes)
                if (row is null)
                    transaction.Delete(number);
                else
                    transaction.Upsert(number, row);
        });
    }
}
