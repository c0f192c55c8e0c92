using Mesh.ClusterMesh.Wire;
using Mesh.KVStore;
using Mesh.Model;

namespace Mesh.ClusterMesh.Remote;

/// <summary>
/// What the sink holds of one cluster, and the step from watched bytes to typed changes. It outlives connections: a new list is
/// compared with what earlier ones left. A record rejected as an update leaves the previous one in force; rejected within a list
/// it counts as not listed.
/// </summary>
internal sealed class RemoteRecords(string cluster)
{
    private readonly KnownKeys<string> _nodes = new();
    private readonly KnownKeys<ServiceName> _services = new();
    private readonly KnownKeys<IpPrefix> _ipEntries = new();
    private readonly KnownKeys<uint> _identities = new();
    private readonly HashSet<RemoteResource> _synced = [];

    public long Rejected { get; private set; }

    public string? LastRejection { get; private set; }

    public bool IsSynced(RemoteResource resource) => _synced.Contains(resource);

    public int Count(RemoteResource resource) => resource switch
    {
        RemoteResource.Nodes => _nodes.Count,
        RemoteResource.Services => _services.Count,
        RemoteResource.IpEntries => _ipEntries.Count,
        _ => _identities.Count,
    };

    /// <summary>The sink was told to forget the cluster.</summary>
    public void Clear()
    {
        _nodes.Clear();
        _services.Clear();
        _ipEntries.Clear();
        _identities.Clear();
        _synced.Clear();
    }

    /// <param name="prefix">The watched prefix, which every key of the batch begins with.</param>
    public void Apply(RemoteResource resource, string prefix, WatchBatch batch, RecordValidator validator, RemoteChanges changes)
    {
        switch (batch.Kind)
        {
            case WatchBatchKind.ListStart:
                BeginList(resource);
                break;
            case WatchBatchKind.Put:
                foreach (var item in batch.Events)
                    Put(resource, item.Key[prefix.Length..], item, validator, changes);
                break;
            case WatchBatchKind.Delete:
                foreach (var item in batch.Events)
                    Delete(resource, item.Key[prefix.Length..], changes);
                break;
            case WatchBatchKind.ListEnd:
                DeleteUnlisted(resource, changes);
                _synced.Add(resource);
                changes.Synced.Add(resource);
                break;
        }
    }

    private void Put(RemoteResource resource, string key, KeyValue item, RecordValidator validator, RemoteChanges changes)
    {
        if (TryPut(resource, key, item.Value.Span, validator, changes) is not { } rejection)
            return;
        Rejected++;
        LastRejection = $"{Wire.Json.Quoted.Text(item.Key)}: {rejection}";
    }

    // Null when the record was accepted, otherwise why not.
    private string? TryPut(RemoteResource resource, string key, ReadOnlySpan<byte> value, RecordValidator validator, RemoteChanges changes)
    {
        string? rejection;
        switch (resource)
        {
            case RemoteResource.Nodes:
                if (!validator.TryNode(key, value, out var node, out rejection))
                    return rejection;
                _nodes.Add(key);
                changes.Nodes.Add(new(key, node));
                return null;
            case RemoteResource.Services:
                if (!validator.TryService(key, value, out var name, out var service, out rejection))
                    return rejection;
                if (service is null)
                {
                    DeleteService(name, changes);
                    return null;
                }
                _services.Add(name);
                changes.Services.Add(new(name, service));
                return null;
            case RemoteResource.IpEntries:
                if (!validator.TryIp(key, value, out var prefix, out var pair, out rejection))
                    return rejection;
                _ipEntries.Add(prefix);
                changes.IpEntries.Add(new(prefix, pair));
                return null;
            case RemoteResource.Identities:
                if (!validator.TryIdentity(key, value, out var identity, out var labels, out rejection))
                    return rejection;
                _identities.Add(identity);
                changes.Identities.Add(new(identity, labels));
                return null;
            default:
                throw new InvalidOperationException($"{cluster}: no such resource {resource}");
        }
    }

    private void Delete(RemoteResource resource, string key, RemoteChanges changes)
    {
        switch (resource)
        {
            case RemoteResource.Nodes when _nodes.Remove(key):
                changes.Nodes.Add(new(key, null));
                break;
            case RemoteResource.Services when RecordValidator.TryServiceKey(key, out var name):
                DeleteService(name, changes);
                break;
            case RemoteResource.IpEntries when RecordValidator.TryIpKey(key, out var prefix) && _ipEntries.Remove(prefix):
                changes.IpEntries.Add(new(prefix, null));
                break;
            case RemoteResource.Identities when RecordValidator.TryIdentityKey(key, out var identity) && _identities.Remove(identity):
                changes.Identities.Add(new(identity, null));
                break;
        }
    }

    private void DeleteService(ServiceName name, RemoteChanges changes)
    {
        if (_services.Remove(name))
            changes.Services.Add(new(name, null));
    }

    private void BeginList(RemoteResource resource)
    {
        switch (resource)
        {
            case RemoteResource.Nodes: _nodes.BeginList(); break;
            case RemoteResource.Services: _services.BeginList(); break;
            case RemoteResource.IpEntries: _ipEntries.BeginList(); break;
            case RemoteResource.Identities: _identities.BeginList(); break;
        }
    }

    private void DeleteUnlisted(RemoteResource resource, RemoteChanges changes)
    {
        switch (resource)
        {
            case RemoteResource.Nodes: changes.Nodes.AddRange(Deletions<string, NodeRecord>(_nodes)); break;
            case RemoteResource.Services: changes.Services.AddRange(Deletions<ServiceName, ClusterService>(_services)); break;
            case RemoteResource.IpEntries: changes.IpEntries.AddRange(Deletions<IpPrefix, IpIdentityPair>(_ipEntries)); break;
            case RemoteResource.Identities: changes.Identities.AddRange(Deletions<uint, string>(_identities)); break;
        }
    }

    private static IEnumerable<KeyValuePair<TKey, TRecord?>> Deletions<TKey, TRecord>(KnownKeys<TKey> known)
        where TKey : notnull
        where TRecord : class =>
        known.TakeUnlisted().Select(key => new KeyValuePair<TKey, TRecord?>(key, null));
}
