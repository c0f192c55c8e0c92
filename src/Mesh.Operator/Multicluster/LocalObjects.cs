using System.Collections.Concurrent;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Api;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Multicluster;

namespace Mesh.Operator.Multicluster;

/// <summary>This cluster's own objects that global and exported services are made of. Nothing may be concluded before <see cref="ListedAsync"/>.</summary>
internal sealed class LocalObjects
{
    public const string ServiceNameLabel = "kubernetes.io/service-name";

    /// <summary>Endpoints of ours, as those of a derived Service.</summary>
    public const string LocalMirror = "endpointslice-local-mcsapi-controller.cilium.io";

    private readonly Reflector<Service> _services;
    private readonly Reflector<EndpointSlice> _slices;
    private readonly Reflector<Namespace> _namespaces;
    private readonly Reflector<ServiceExport>? _exports;
    private readonly Reflector<ServiceImport>? _imports;
    private readonly Lock _lock = new();
    private readonly Dictionary<ServiceName, Dictionary<string, EndpointSlice>> _byService = [];
    private readonly Dictionary<ObjectName, ServiceName> _serviceOf = [];

    /// <summary>Exported services by the name of the Service that stands for each, also while that is not there or is another's.</summary>
    private readonly ConcurrentDictionary<ServiceName, ServiceName> _standFor = new();
    private readonly Action<ServiceName> _touched;
    private readonly Func<IEnumerable<ServiceName>> _names;
    private readonly bool _namespacesAreGlobal;

    /// <param name="imports">Whether there are ServiceExports and ServiceImports to follow.</param>
    /// <param name="touched">Told of each service that an event concerns.</param>
    /// <param name="names">Services that may have something here though no object says so yet.</param>
    public LocalObjects(KubeClient client, ReflectorOptions options, bool imports, bool namespacesAreGlobal, Action<ServiceName> touched,
        Func<IEnumerable<ServiceName>> names)
    {
        _services = new(client, KubeResources.Services, options);
        _slices = new(client, KubeResources.EndpointSlices, options);
        _namespaces = new(client, KubeResources.Namespaces, options);
        _exports = imports ? new(client, KubeResources.ServiceExports, options) : null;
        _imports = imports ? new(client, KubeResources.ServiceImports, options) : null;
        (_touched, _names, _namespacesAreGlobal) = (touched, names, namespacesAreGlobal);
    }

    /// <summary>Everything that may be global, exported or imported.</summary>
    public IEnumerable<ServiceName> Names
    {
        get
        {
            var named = _services.Snapshot().Select(one => one.Metadata).Concat(_exports?.Snapshot().Select(one => one.Metadata) ?? [])
                .Concat(_imports?.Snapshot().Select(one => one.Metadata) ?? []).Select(meta => new ServiceName(meta.Namespace!, meta.Name!));
            lock (_lock)
                return [.. named.Concat(_byService.Keys).Concat(_names()).Distinct()];
        }
    }

    private IEnumerable<ReflectorStatus> Statuses =>
        new[] { _services.Status, _slices.Status, _namespaces.Status, _exports?.Status, _imports?.Status }.OfType<ReflectorStatus>();

    public Service? FindService(ServiceName name) => _services.Find(name.Namespace, name.Name);

    public ServiceExport? FindExport(ServiceName name) => _exports?.Find(name.Namespace, name.Name);

    public ServiceImport? FindImport(ServiceName name) => _imports?.Find(name.Namespace, name.Name);

    /// <summary>False for one that is not there, and one that is on its way out.</summary>
    public bool HasNamespace(string ns) => _namespaces.Find(null, ns) is { Metadata.DeletionTimestamp: null };

    public bool IsGlobalNamespace(string ns) => ServiceAnnotations.IsGlobalNamespace(_namespaces.Find(null, ns), _namespacesAreGlobal);

    /// <summary>Slices of the service that this controller manages; with null those that none of ours does.</summary>
    public IReadOnlyList<EndpointSlice> SlicesOf(ServiceName name, string? managedBy)
    {
        lock (_lock)
        {
            return [.. (_byService.GetValueOrDefault(name)?.Values ?? Enumerable.Empty<EndpointSlice>()).Where(slice =>
                slice.Metadata.Labels?.GetValueOrDefault(MadeForServices.ManagedByLabel) is var manager
                && (managedBy is null ? manager is not (MadeForServices.MeshMirror or LocalMirror) : manager == managedBy))];
        }
    }

    /// <summary>Whatever happens to the Service of the first name concerns the second.</summary>
    public void StandFor(ServiceName derived, ServiceName exported) => _standFor[derived] = exported;

    /// <summary>One for each kind; they end only when they are told to.</summary>
    public IEnumerable<Task> Follow(CancellationToken cancellation)
    {
        yield return FollowAsync(_services, (_, service) => Touch(service.Metadata), cancellation);
        yield return FollowAsync(_slices, Take, cancellation);
        yield return FollowAsync(_namespaces, (_, ns) => TouchAllOf(ns.Metadata.Name!), cancellation);
        if (_exports is not null && _imports is not null)
        {
            yield return FollowAsync(_exports, (_, export) => Touch(export.Metadata), cancellation);
            yield return FollowAsync(_imports, (_, import) => Touch(import.Metadata), cancellation);
        }
    }

    /// <summary>When all lists are whole.</summary>
    public async Task ListedAsync(OperatorLog log, TimeProvider time, CancellationToken cancellation)
    {
        const string where = "services of the mesh";
        while (Statuses.Any(status => !status.Synced))
        {
            if (Statuses.Select(status => status.Error).OfType<string>().FirstOrDefault() is { } error)
                log.Problem(where, error);
            await Task.Delay(TimeSpan.FromMilliseconds(50), time, cancellation);
        }
        log.Mended(where);
    }

    private static async Task FollowAsync<T>(Reflector<T> reflector, Action<bool, T> take, CancellationToken cancellation)
        where T : class
    {
        await foreach (var batch in reflector.WatchAsync(cancellation))
        {
            foreach (var change in batch)
            {
                if (change.Object is { } subject)
                    take(change.Type == ReflectorEventType.Upsert, subject);
            }
        }
    }

    private void Take(bool present, EndpointSlice slice)
    {
        var name = slice.Metadata.Name!;
        lock (_lock)
        {
            // Its label may have changed: it is of one service at a time.
            if (_serviceOf.Remove(new ObjectName(slice.Metadata.Namespace!, name), out var before) && _byService.TryGetValue(before, out var others))
            {
                others.Remove(name);
                if (others.Count == 0)
                    _byService.Remove(before);
                _touched(before);
            }
            if (slice.Metadata.Labels?.GetValueOrDefault(ServiceNameLabel) is not { Length: > 0 } of)
                return;
            var owner = new ServiceName(slice.Metadata.Namespace!, of);
            if (present)
            {
                if (!_byService.TryGetValue(owner, out var slices))
                    _byService[owner] = slices = new Dictionary<string, EndpointSlice>(StringComparer.Ordinal);
                slices[name] = slice;
                _serviceOf[new ObjectName(owner.Namespace, name)] = owner;
            }
            _touched(owner);
        }
        TouchExported(slice.Metadata);
    }

    private void Touch(ObjectMeta meta)
    {
        var name = new ServiceName(meta.Namespace!, meta.Name!);
        _touched(name);
        TouchExported(meta);
        if (_standFor.TryGetValue(name, out var exported))
            _touched(exported);
    }

    /// <summary>What a derived object stands for.</summary>
    private void TouchExported(ObjectMeta meta)
    {
        if (meta.Labels?.GetValueOrDefault(MulticlusterNames.ServiceNameLabel) is { Length: > 0 } exported)
            _touched(new ServiceName(meta.Namespace!, exported));
    }

    private void TouchAllOf(string ns)
    {
        foreach (var name in Names.Where(name => name.Namespace == ns))
            _touched(name);
    }
}
