using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Api;

/// <summary>
/// The loops without which deletion has no end: garbage of owners that are gone, foreground and orphan deletion, namespaces being
/// emptied; and every namespace's own ServiceAccount. One loop looks at every change, and after each batch at what the batch touched.
/// </summary>
internal sealed class Controllers(KubeApiOptions options, ObjectStore store, TypeRegistry types, Writes writes, string authority) : IDisposable
{
    private readonly ObjectStore.Watcher _changes = store.WatchAll();
    private readonly Dictionary<string, StoredObject> _byUid = [];
    private readonly Dictionary<string, HashSet<string>> _byOwner = [];

    public async Task RunAsync(CancellationToken stop)
    {
        try
        {
            while (await _changes.Changes.WaitToReadAsync(stop))
            {
                var owners = new HashSet<string>();
                var dependents = new List<StoredObject>();
                var namespaces = new HashSet<string>();
                while (_changes.Changes.TryRead(out var change))
                    Note(change, owners, dependents, namespaces);
                if (options.CollectGarbage)
                    Collect(owners, dependents);
                foreach (var name in namespaces)
                    Namespace(name);
            }
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            // The server is being disposed.
        }
    }

    public void Dispose() => _changes.Dispose();

    private static IEnumerable<string> Owners(StoredObject? stored) =>
        stored?.Node["metadata"].Arr("ownerReferences").Objects().Select(reference => reference.Str("uid")).OfType<string>() ?? [];

    private void Index(Change change)
    {
        foreach (var owner in Owners(change.Before))
            if (_byOwner.TryGetValue(owner, out var uids) && uids.Remove(change.Before!.Uid) && uids.Count == 0)
                _byOwner.Remove(owner);
        if (change.After is null)
        {
            _byUid.Remove(change.Before!.Uid);
            return;
        }
        _byUid[change.After.Uid] = change.After;
        foreach (var owner in Owners(change.After))
        {
            if (!_byOwner.TryGetValue(owner, out var uids))
                _byOwner[owner] = uids = [];
            uids.Add(change.After.Uid);
        }
    }

    private void Note(Change change, HashSet<string> owners, List<StoredObject> dependents, HashSet<string> namespaces)
    {
        Index(change);
        var shown = change.After ?? change.Before!;
        if (change.Type == BuiltIns.Namespaces)
            namespaces.Add(shown.Name);
        else if (change.After is null && shown.Namespace != "")
            namespaces.Add(shown.Namespace);
        if (change.After is null || change.After.Deleting)
            owners.Add(shown.Uid);
        foreach (var reference in shown.Node["metadata"].Arr("ownerReferences").Objects())
        {
            // The owner may wait for this one, or may never have been.
            if (reference.Str("uid") is { } uid)
                owners.Add(uid);
            if (change.After is not null && change.Before is null)
                dependents.Add(change.After);
        }
    }

    /// <summary>The object with this uid as it is now.</summary>
    private StoredObject? Present(string uid) =>
        _byUid.TryGetValue(uid, out var last) && store.Get(last.Type, last.Namespace, last.Name) is { } now && now.Uid == uid ? now : null;

    private List<StoredObject> Dependents(string uid) =>
        _byOwner.TryGetValue(uid, out var uids) ? [.. uids.Select(Present).OfType<StoredObject>()] : [];

    private void Collect(HashSet<string> owners, List<StoredObject> fresh)
    {
        foreach (var uid in owners)
        {
            var owner = Present(uid);
            if (owner is { Deleting: false })
                continue;
            var dependents = Dependents(uid);
            var finalizers = owner?.Node["metadata"].Arr("finalizers")?.Select(one => (string)one!).ToList() ?? [];
            if (owner is null)
            {
                foreach (var dependent in dependents)
                    Orphaned(dependent);
            }
            else if (finalizers.Contains(Deletion.OrphanFinalizer))
            {
                foreach (var dependent in dependents)
                    Edit(dependent, node => RemoveOwner(node, uid));
                Edit(owner, node => RemoveFinalizer(node, Deletion.OrphanFinalizer));
            }
            else if (finalizers.Contains(Deletion.ForegroundFinalizer))
            {
                var waits = false;
                foreach (var dependent in dependents)
                {
                    waits |= dependent.Node["metadata"].Arr("ownerReferences").Objects()
                        .Any(one => one.Str("uid") == uid && one.Bool("blockOwnerDeletion") == true);
                    if (!dependent.Deleting)
                        Try(() => writes.Delete(dependent.Type, dependent.Namespace, dependent.Name, Options(dependent, "Foreground"), false));
                }
                if (!waits)
                    Edit(owner, node => RemoveFinalizer(node, Deletion.ForegroundFinalizer));
            }
        }
        foreach (var dependent in fresh)
            if (Present(dependent.Uid) is { } present)
                Orphaned(present);
    }

    private static JsonObject Options(StoredObject stored, string policy) => new()
    {
        ["propagationPolicy"] = policy,
        ["preconditions"] = new JsonObject { ["uid"] = stored.Uid },
    };

    /// <summary>Deletes what has no owner left; takes away references to owners that are gone when another one is left.</summary>
    private void Orphaned(StoredObject dependent)
    {
        var references = dependent.Node["metadata"].Arr("ownerReferences").Objects().ToList();
        var gone = references.Where(reference => !(reference.Str("uid") is { } uid && Present(uid) is { } owner
            && (owner.Namespace == "" || owner.Namespace == dependent.Namespace))).ToList();
        if (gone.Count == 0 || dependent.Deleting)
            return;
        if (gone.Count == references.Count)
            Try(() => writes.Delete(dependent.Type, dependent.Namespace, dependent.Name, Options(dependent, "Background"), false));
        else
            Edit(dependent, node =>
            {
                foreach (var reference in gone)
                    RemoveOwner(node, reference.Str("uid")!);
            });
    }

    private static void RemoveOwner(JsonObject node, string uid)
    {
        var list = node["metadata"].Arr("ownerReferences")!;
        foreach (var one in list.Objects().Where(one => one.Str("uid") == uid).ToList())
            list.Remove(one);
        if (list.Count == 0)
            ((JsonObject)node["metadata"]!).Remove("ownerReferences");
    }

    private static void RemoveFinalizer(JsonObject node, string name)
    {
        var list = node["metadata"].Arr("finalizers");
        foreach (var one in list?.Where(one => (string?)one == name).ToList() ?? [])
            list!.Remove(one);
        if (list is { Count: 0 })
            ((JsonObject)node["metadata"]!).Remove("finalizers");
    }

    private void Edit(StoredObject stored, Action<JsonObject> edit) => Try(() => writes.Change(stored.Type, stored.Type.Versions[0].Name, stored.Namespace,
        stored.Name, new Writes.Writer("garbage-collector"), node =>
        {
            edit(node);
            return node;
        }));

    /// <summary>Another writer may have been first or the object may be gone: the change that says so brings this loop back.</summary>
    private static void Try(Action action)
    {
        try
        {
            action();
        }
        catch (KubeApiException told) when (told.Code is 404 or 409)
        {
            return;
        }
    }

    private void Namespace(string name)
    {
        if (store.Get(BuiltIns.Namespaces, "", name) is not { } there)
            return;
        if (!there.Deleting)
        {
            if (options.MakeServiceAccounts)
                foreach (var (type, node) in Bootstrapping.OfNamespace(authority))
                    if (store.Get(type, name, node["metadata"].Str("name")!) is null)
                        Try(() => writes.Create(type, "v1", name, node, Writes.Writer.Internal));
            return;
        }
        if (!options.FinishNamespaces)
            return;
        var left = 0;
        foreach (var type in types.All.Where(type => type.Namespaced))
        {
            foreach (var stored in store.Snapshot(type).Table.Values.Where(stored => stored.Namespace == name))
            {
                left++;
                if (!stored.Deleting)
                    Try(() => left -= writes.Delete(type, name, stored.Name, Options(stored, "Background"), false).Gone ? 1 : 0);
            }
        }
        if (left == 0)
            Try(() => writes.Change(BuiltIns.Namespaces, "v1", "", name, new Writes.Writer("namespace-controller", Sub: "finalize"), node =>
            {
                node.Need("spec").Remove("finalizers");
                return node;
            }));
    }
}
