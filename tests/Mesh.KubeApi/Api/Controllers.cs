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

    private static void Note(Change change, HashSet<string> owners, List<StoredObject> dependents, HashSet<string> namespaces)
    {
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

    private Dictionary<string, StoredObject> All() =>
        types.All.SelectMany(type => store.Snapshot(type).Table.Values).GroupBy(one => one.Uid).ToDictionary(group => group.Key, group => group.First());

    private void Collect(HashSet<string> owners, List<StoredObject> fresh)
    {
        if (owners.Count == 0)
            return;
        var all = All();
        var byOwner = all.Values.SelectMany(one => one.Node["metadata"].Arr("ownerReferences").Objects().Select(reference => (Owner: reference.Str("uid") ?? "", one)))
            .ToLookup(pair => pair.Owner, pair => pair.one);
        foreach (var uid in owners)
        {
            var owner = all.GetValueOrDefault(uid);
            var finalizers = owner?.Node["metadata"].Arr("finalizers")?.Select(one => (string)one!).ToList() ?? [];
            if (owner is null)
            {
                foreach (var dependent in byOwner[uid])
                    Orphaned(dependent, all);
            }
            else if (owner.Deleting && finalizers.Contains(Deletion.OrphanFinalizer))
            {
                foreach (var dependent in byOwner[uid])
                    Edit(dependent, node => RemoveOwner(node, uid));
                Edit(owner, node => RemoveFinalizer(node, Deletion.OrphanFinalizer));
            }
            else if (owner.Deleting && finalizers.Contains(Deletion.ForegroundFinalizer))
            {
                var waits = false;
                foreach (var dependent in byOwner[uid])
                {
                    waits |= dependent.Node["metadata"].Arr("ownerReferences").Objects().Any(one => one.Str("uid") == uid && one.Bool("blockOwnerDeletion") == true);
                    if (!dependent.Deleting)
                        Try(() => writes.Delete(dependent.Type, dependent.Namespace, dependent.Name, Options(dependent, "Foreground"), false));
                }
                if (!waits || !byOwner[uid].Any())
                    Edit(owner, node => RemoveFinalizer(node, Deletion.ForegroundFinalizer));
            }
        }
        foreach (var dependent in fresh)
            if (all.TryGetValue(dependent.Uid, out var present))
                Orphaned(present, all);
    }

    private static JsonObject Options(StoredObject stored, string policy) => new()
    {
        ["propagationPolicy"] = policy,
        ["preconditions"] = new JsonObject { ["uid"] = stored.Uid },
    };

    /// <summary>Deletes what has no owner left; takes away references to owners that are gone when another one is left.</summary>
    private void Orphaned(StoredObject dependent, Dictionary<string, StoredObject> all)
    {
        var references = dependent.Node["metadata"].Arr("ownerReferences").Objects().ToList();
        var gone = references.Where(reference => !(reference.Str("uid") is { } uid && all.TryGetValue(uid, out var owner)
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
