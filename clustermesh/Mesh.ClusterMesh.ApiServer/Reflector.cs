using Mesh.ClusterMesh.ApiServer.Converters;
using Mesh.ClusterMesh.Remote;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ClusterMesh.ApiServer;

/// <summary>
/// Objects in, desired etcd keys out: the middle of the line. It holds what a record is made of besides its own object (slices of a
/// service, the annotation of a namespace), works a batch at a time and converts each touched object once. No I/O: whoever owns the
/// publications writes them.
/// </summary>
internal sealed class Reflector(ClusterSelf self, bool namespacesAreGlobal, bool exportsServices = false)
{
    private static readonly ObjectKind[] KindsOfEveryCluster =
    [
        ObjectKind.Service, ObjectKind.EndpointSlice, ObjectKind.Namespace, ObjectKind.CiliumNode, ObjectKind.CiliumIdentity, ObjectKind.CiliumEndpoint,
    ];

    private readonly Dictionary<ObjectKey, KubernetesObject> _objects = [];
    private readonly Dictionary<ServiceName, Dictionary<ObjectKey, EndpointSlice>> _slices = [];
    private readonly Dictionary<string, Namespace> _namespaces = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, string> _problems = new(StringComparer.Ordinal);

    public Publication Nodes { get; } = new(RemoteResource.Nodes);

    public Publication Services { get; } = new(RemoteResource.Services);

    public Publication Identities { get; } = new(RemoteResource.Identities);

    public Publication IpEntries { get; } = new(RemoteResource.IpEntries);

    /// <summary>Stays empty where ServiceExports are not published.</summary>
    public Publication ServiceExports { get; } = new(RemoteResource.ServiceExports);

    public IReadOnlyList<Publication> All =>
        field ??= exportsServices ? [Nodes, Services, Identities, IpEntries, ServiceExports] : [Nodes, Services, Identities, IpEntries];

    /// <summary>The kinds to follow.</summary>
    public IReadOnlySet<ObjectKind> Kinds { get; } = KindsOfEveryCluster.Concat(exportsServices ? [ObjectKind.ServiceExport] : []).ToHashSet();

    /// <summary>Objects that stay at home though they should not: object → what to mend.</summary>
    public IReadOnlyDictionary<string, string> Problems => _problems;

    /// <summary>Kinds of which the source could not read everything.</summary>
    private IReadOnlySet<ObjectKind> _incomplete = new HashSet<ObjectKind>();

    /// <summary>All there is of the resource has been told: what else is in the store is a leftover.</summary>
    public bool IsComplete(RemoteResource resource) => IsWhole(resource) && !_incomplete.Contains(KindOf(resource));

    /// <summary>What the records of the resource are made of has been told. As long as it has not, they would be poorer than those that are
    /// in the store: none of them may be written.</summary>
    public bool IsWhole(RemoteResource resource) => !_incomplete.Overlaps(resource switch
    {
        RemoteResource.Nodes => [],
        RemoteResource.Services => [ObjectKind.EndpointSlice, ObjectKind.Namespace],
        RemoteResource.ServiceExports => [ObjectKind.Service, ObjectKind.Namespace],
        _ => new[] { ObjectKind.Namespace },
    });

    private static ObjectKind KindOf(RemoteResource resource) => resource switch
    {
        RemoteResource.Nodes => ObjectKind.CiliumNode,
        RemoteResource.Services => ObjectKind.Service,
        RemoteResource.Identities => ObjectKind.CiliumIdentity,
        RemoteResource.ServiceExports => ObjectKind.ServiceExport,
        _ => ObjectKind.CiliumEndpoint,
    };

    /// <summary>Takes a batch over. Changed keys wait in the publications.</summary>
    /// <returns>True when the batch says that everything present has been told.</returns>
    public bool Apply(IReadOnlyList<ObjectEvent> batch)
    {
        var touched = new HashSet<ObjectKey>();
        var synced = false;
        foreach (var change in batch)
        {
            if (change.Type == ObjectEventType.Synced)
            {
                synced = true;
                _incomplete = change.Incomplete ?? new HashSet<ObjectKind>();
            }
            else
                Note(change.Object!, present: change.Type == ObjectEventType.Upsert, touched);
        }
        foreach (var key in touched)
            Publish(key);
        return synced;
    }

    private void Note(KubernetesObject subject, bool present, HashSet<ObjectKey> touched)
    {
        var key = subject.Key;
        var before = _objects.GetValueOrDefault(key);
        if (present)
            _objects[key] = subject;
        else
            _objects.Remove(key);
        switch (subject)
        {
            case EndpointSlice slice:
                if (before is EndpointSlice previous)
                    Attach(key, previous, present: false, touched);
                if (present)
                    Attach(key, slice, present: true, touched);
                break;
            case Namespace ns:
                NoteNamespace(ns, present, touched);
                break;
            case Service:
                touched.Add(key);
                touched.Add(key with { Kind = ObjectKind.ServiceExport });
                break;
            default:
                touched.Add(key);
                break;
        }
    }

    private void Attach(ObjectKey key, EndpointSlice slice, bool present, HashSet<ObjectKey> touched)
    {
        if (ServiceConverter.ServiceOf(slice) is not { } service)
            return;
        if (!_slices.TryGetValue(service, out var slices))
            _slices[service] = slices = [];
        if (present)
            slices[key] = slice;
        else if (slices.Remove(key) && slices.Count == 0)
            _slices.Remove(service);
        touched.Add(new ObjectKey(ObjectKind.Service, service.Namespace, service.Name));
    }

    private void NoteNamespace(Namespace ns, bool present, HashSet<ObjectKey> touched)
    {
        var name = ns.Metadata.Name!;
        var before = IsGlobal(name);
        if (present)
            _namespaces[name] = ns;
        else
            _namespaces.Remove(name);
        if (before == IsGlobal(name))
            return;
        foreach (var (key, subject) in _objects)
        {
            if (key.Namespace == name || (subject is CiliumIdentity identity && IdentityConverter.NamespaceOf(identity) == name))
                touched.Add(key);
        }
    }

    private bool IsGlobal(string ns) => ServiceAnnotations.IsGlobalNamespace(_namespaces.GetValueOrDefault(ns), namespacesAreGlobal);

    private void Publish(ObjectKey key)
    {
        if (PublicationOf(key.Kind) is not { } publication)
            return;
        Publishable outcome;
        try
        {
            outcome = _objects.TryGetValue(key, out var subject) ? Convert(subject) : Publishable.Nothing;
        }
        catch (ArgumentException e)
        {
            // The codec refuses what peers would reject: this object alone keeps what it last published.
            _problems[key.ToString()] = e.Message;
            return;
        }
        if (outcome.Problem is null)
            _problems.Remove(key.ToString());
        else
            _problems[key.ToString()] = outcome.Problem;
        publication.Set(key, outcome.Records);
    }

    private Publication? PublicationOf(ObjectKind kind) => kind switch
    {
        ObjectKind.CiliumNode => Nodes,
        ObjectKind.Service => Services,
        ObjectKind.CiliumIdentity => Identities,
        ObjectKind.CiliumEndpoint => IpEntries,
        ObjectKind.ServiceExport => ServiceExports,
        _ => null,
    };

    private Publishable Convert(KubernetesObject subject) => subject switch
    {
        CiliumNode node => NodeConverter.Convert(node, self),
        CiliumIdentity identity when IdentityConverter.NamespaceOf(identity) is { } ns && !IsGlobal(ns) => Publishable.Nothing,
        CiliumIdentity identity => IdentityConverter.Convert(identity, self),
        ServiceExport export => ServiceExportConverter.Convert(export,
            _objects.GetValueOrDefault(export.Key with { Kind = ObjectKind.Service }) as Service, self, IsGlobal(export.Metadata.Namespace!)),
        { } other when !IsGlobal(other.Metadata.Namespace!) => Publishable.Nothing,
        CiliumEndpoint endpoint => IpEntryConverter.Convert(endpoint, self),
        Service service => ServiceConverter.Convert(service, Slices(service.Metadata), self),
        _ => Publishable.Nothing,
    };

    private Dictionary<ObjectKey, EndpointSlice>.ValueCollection Slices(ObjectMeta service) =>
        _slices.GetValueOrDefault(new ServiceName(service.Namespace!, service.Name!), []).Values;
}
