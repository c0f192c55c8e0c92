using System.Text.Json.Nodes;
using Mesh.KubeApi.Api;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Patching;

/// <summary>
/// Who wrote which field: metadata.managedFields, and server-side apply on top of it. A field set is a set of paths to leaves; lists
/// that merge by key and sets are walked item by item, all other lists are one leaf.
/// <para>Versions of a CRD are one here: a manager's entry holds for whichever version it wrote.</para>
/// </summary>
internal static class FieldOwners
{
    private const char Step = '\u0001';

    private sealed record Owner(string Manager, string Operation, string Sub)
    {
        public SortedSet<string> Fields { get; init; } = new(StringComparer.Ordinal);

        public string Time { get; set; } = "";

        public string ApiVersion { get; set; } = "";

        public bool Is(string manager, string operation, string sub) => Manager == manager && Operation == operation && Sub == sub;
    }

    /// <summary>Equal but for the times at which fields were written: such a write changes nothing.</summary>
    public static bool SameButTime(JsonObject old, JsonObject node)
    {
        if (Json.Same(old, node))
            return true;
        if (old["metadata"]?["managedFields"] is null || node["metadata"]?["managedFields"] is null)
            return false;
        var (left, right) = ((JsonObject)old.DeepClone(), (JsonObject)node.DeepClone());
        foreach (var one in new[] { left, right })
            foreach (var entry in one["metadata"].Arr("managedFields").Objects())
                entry.Remove("time");
        return Json.Same(left, right);
    }

    /// <summary>After a create, update or patch: what it added or changed is the writer's, what it removed nobody's.</summary>
    public static void Written(ResourceType type, TypeRegistry types, string version, JsonObject? old, JsonObject node,
        Writes.Writer writer, DateTimeOffset now)
    {
        // An apply that creates has written its own entry; and the server's own hand is not a manager.
        if (writer.Manager == "" || writer.Manager == Writes.Writer.Internal.Manager)
            return;
        var owners = Read(old ?? []);
        if (node["metadata"]!["managedFields"] is JsonArray { Count: 0 } or JsonArray { Count: 1 } and [JsonObject { Count: 0 }])
            owners.Clear();
        var shape = new Shape(type, version);
        var before = old is null ? new SortedDictionary<string, JsonNode?>(StringComparer.Ordinal) : shape.Leaves(old);
        var after = shape.Leaves(node);
        var changed = after.Where(pair => !before.TryGetValue(pair.Key, out var was) || !Json.Same(was, pair.Value)).Select(pair => pair.Key).ToList();
        var gone = before.Keys.Where(path => !after.ContainsKey(path)).ToList();
        foreach (var owner in owners)
        {
            owner.Fields.ExceptWith(gone);
            if (!owner.Is(writer.Manager, "Update", writer.Sub))
                owner.Fields.ExceptWith(changed);
        }
        if (changed.Count > 0)
        {
            var mine = owners.FirstOrDefault(one => one.Is(writer.Manager, "Update", writer.Sub));
            if (mine is null)
                owners.Add(mine = new Owner(writer.Manager, "Update", writer.Sub));
            mine.Fields.UnionWith(changed);
            mine.Time = Writes.Rfc3339(now);
            mine.ApiVersion = type.ApiVersion(version);
        }
        Put(node, owners, shape);
    }

    /// <summary>An apply that creates: all its fields are the manager's.</summary>
    public static void Applied(ResourceType type, TypeRegistry types, string version, JsonObject node, JsonObject intent, Writes.Writer writer,
        DateTimeOffset now)
    {
        var shape = new Shape(type, version);
        Put(node, [Entry(type, version, intent, writer, now, shape)], shape);
    }

    private static Owner Entry(ResourceType type, string version, JsonObject intent, Writes.Writer writer, DateTimeOffset now, Shape shape)
    {
        var owner = new Owner(writer.Manager, "Apply", writer.Sub) { Time = Writes.Rfc3339(now), ApiVersion = type.ApiVersion(version) };
        owner.Fields.UnionWith(shape.Leaves(intent).Keys);
        return owner;
    }

    /// <summary>
    /// Merges the intent into the object: fields that others own with another value are conflicts (409) unless forced; fields that this
    /// manager applied before, that it leaves out now and that nobody else owns, are removed.
    /// </summary>
    public static JsonObject Apply(ResourceType type, TypeRegistry types, string version, JsonObject old, JsonObject intent, Writes.Writer writer, bool force,
        DateTimeOffset now)
    {
        var shape = new Shape(type, version);
        var owners = Read(old);
        var present = shape.Leaves(old);
        var wanted = shape.Leaves(intent);
        var mine = owners.FirstOrDefault(one => one.Is(writer.Manager, "Apply", writer.Sub));
        var conflicts = new List<(Owner Owner, string Path)>();
        foreach (var owner in owners.Where(one => one != mine))
            foreach (var path in owner.Fields.Where(path => wanted.TryGetValue(path, out var value)
                && !(present.TryGetValue(path, out var now) && Json.Same(value, now))))
                conflicts.Add((owner, path));
        if (conflicts.Count > 0 && !force)
            throw Conflict(conflicts);
        foreach (var (owner, path) in conflicts)
            owner.Fields.Remove(path);
        var node = (JsonObject)old.DeepClone();
        var removed = (mine?.Fields ?? []).Where(path => !wanted.ContainsKey(path) && !owners.Any(one => one != mine && one.Fields.Contains(path))).ToList();
        // An item of which nobody wants anything any more goes whole, with what was defaulted in it.
        bool Left(string item) => wanted.Keys.Any(path => path.StartsWith(item, StringComparison.Ordinal))
            || owners.Any(one => one != mine && one.Fields.Any(path => path.StartsWith(item, StringComparison.Ordinal)));
        var items = removed.SelectMany(Items).Distinct().Where(item => !Left(item)).ToList();
        shape.Remove(node, items.Concat(removed.Where(path => !items.Any(item => path.StartsWith(item, StringComparison.Ordinal)))));
        shape.Merge(node, intent);
        if (mine is not null)
            owners.Remove(mine);
        var entry = Entry(type, version, intent, writer, now, shape);
        if (mine is not null && mine.Fields.SetEquals(entry.Fields) && mine.ApiVersion == entry.ApiVersion)
            entry.Time = mine.Time;
        owners.Insert(0, entry);
        var left = shape.Leaves(node);
        foreach (var owner in owners)
            owner.Fields.RemoveWhere(path => !left.ContainsKey(path));
        Put(node, owners, shape);
        return node;
    }

    /// <summary>The list items that a path leads through.</summary>
    private static IEnumerable<string> Items(string path)
    {
        var steps = path.Split(Step);
        for (var i = 0; i < steps.Length; i++)
            if (steps[i][0] == 'k')
                yield return string.Join(Step, steps[..(i + 1)]);
    }

    private static KubeApiException Conflict(List<(Owner Owner, string Path)> conflicts)
    {
        static string Shown(string path) => string.Concat(path.Split(Step).Select(step => step[0] == 'k' ? $"[{step[2..].Trim('{', '}')
            .Replace("\":", "=\"", StringComparison.Ordinal).Replace("\"\"", "\"", StringComparison.Ordinal).TrimStart('"')}]" : $".{step[2..]}"));
        var causes = new JsonArray([.. conflicts.Select(one => (JsonNode)new JsonObject
        {
            ["reason"] = "FieldManagerConflict",
            ["message"] = $"conflict with \"{one.Owner.Manager}\"{(one.Owner.Sub == "" ? "" : $" with subresource \"{one.Owner.Sub}\"")} "
                + $"using {one.Owner.ApiVersion}",
            ["field"] = Shown(one.Path),
        })]);
        var lines = conflicts.GroupBy(one => (one.Owner.Manager, one.Owner.ApiVersion)).Select(group =>
            $"conflict{(group.Count() > 1 ? "s" : "")} with \"{group.Key.Manager}\" using {group.Key.ApiVersion}:"
            + (group.Count() > 1 ? string.Concat(group.Select(one => $"\n- {Shown(one.Path)}")) : $" {Shown(group.First().Path)}"));
        return new KubeApiException(409, "Conflict",
            $"Apply failed with {conflicts.Count} conflict{(conflicts.Count > 1 ? "s" : "")}: {string.Join("\n", lines)}",
            new() { ["causes"] = causes });
    }

    private static List<Owner> Read(JsonObject node)
    {
        var owners = new List<Owner>();
        foreach (var entry in node["metadata"].Arr("managedFields").Objects())
        {
            var owner = new Owner(entry.Str("manager") ?? "", entry.Str("operation") ?? "Update", entry.Str("subresource") ?? "")
            {
                Time = entry.Str("time") ?? "",
                ApiVersion = entry.Str("apiVersion") ?? "",
            };
            Flatten(entry.Obj("fieldsV1"), "", owner.Fields);
            owners.Add(owner);
        }
        return owners;
    }

    private static void Flatten(JsonObject? fields, string path, SortedSet<string> into)
    {
        foreach (var (name, inner) in fields ?? [])
        {
            if (name == ".")
                continue;
            var at = path == "" ? name : path + Step + name;
            if (inner is JsonObject { Count: > 0 } deeper && deeper.Any(pair => pair.Key != "."))
                Flatten(deeper, at, into);
            else
                into.Add(at);
        }
    }

    private static void Put(JsonObject node, List<Owner> owners, Shape shape)
    {
        _ = shape;
        var list = new JsonArray();
        foreach (var owner in owners.Where(one => one.Fields.Count > 0))
        {
            var fields = new JsonObject();
            foreach (var path in owner.Fields)
            {
                var at = fields;
                foreach (var step in path.Split(Step))
                {
                    at = at.Need(step);
                    if (step[0] == 'k')
                        at.Need(".");
                }
            }
            var entry = new JsonObject
            {
                ["manager"] = owner.Manager,
                ["operation"] = owner.Operation,
                ["apiVersion"] = owner.ApiVersion,
                ["time"] = owner.Time,
                ["fieldsType"] = "FieldsV1",
                ["fieldsV1"] = fields,
            };
            if (owner.Sub != "")
                entry["subresource"] = owner.Sub;
            list.Add((JsonNode)entry);
        }
        if (list.Count > 0)
            node["metadata"]!["managedFields"] = list;
        else
            ((JsonObject)node["metadata"]!).Remove("managedFields");
    }

    /// <summary>How objects of one kind are walked: which lists have keys, which are sets.</summary>
    private sealed class Shape(ResourceType type, string version)
    {
        private static readonly HashSet<string> Unowned = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "selfLink",
            "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"];

        private readonly StructuralSchema? _schema = type.Custom ? type.Served(version).Schema : null;

        private string[]? Keys(List<string> path)
        {
            if (path is ["metadata", "ownerReferences"])
                return ["uid"];
            if (!type.Custom)
                return ListKeys.Keys(type.Group, type.Kind, path);
            var schema = _schema?.At(path);
            return schema.Str("x-kubernetes-list-type") == "map" ? [.. schema.Arr("x-kubernetes-list-map-keys")!.Select(key => (string)key!)] : null;
        }

        private bool IsSet(List<string> path) => path is ["metadata", "finalizers"]
            || (type.Custom ? _schema?.At(path).Str("x-kubernetes-list-type") == "set" : ListKeys.IsSet(path));

        private bool IsAtomic(List<string> path) => type.Custom ? _schema?.At(path).Str("x-kubernetes-map-type") == "atomic"
            : path[^1] is "selector" && type.Kind != "Service"
                || path[^1] is "roleRef" or "fieldRef" or "secretKeyRef" or "configMapKeyRef" or "nodeSelectorTerms";

        public SortedDictionary<string, JsonNode?> Leaves(JsonObject node)
        {
            var leaves = new SortedDictionary<string, JsonNode?>(StringComparer.Ordinal);
            foreach (var (name, value) in node)
            {
                if (name is "apiVersion" or "kind")
                    continue;
                if (name == "metadata" && value is JsonObject metadata)
                {
                    foreach (var (part, inner) in metadata)
                        if (!Unowned.Contains(part))
                            Walk(inner, $"f:metadata{Step}f:{part}", ["metadata", part], leaves);
                }
                else
                {
                    Walk(value, $"f:{name}", [name], leaves);
                }
            }
            return leaves;
        }

        private static string KeyStep(JsonObject item, string[] keys)
        {
            var key = new JsonObject();
            foreach (var name in keys.Order(StringComparer.Ordinal))
                if (item[name]?.DeepClone() is { } value)
                    key[name] = value;
                else if (name == "protocol")
                    key[name] = "TCP";
            return $"k:{Json.Text(key)}";
        }

        private void Walk(JsonNode? node, string at, List<string> path, SortedDictionary<string, JsonNode?> leaves)
        {
            switch (node)
            {
                case JsonObject { Count: > 0 } map when !IsAtomic(path):
                    foreach (var (name, value) in map)
                        Walk(value, $"{at}{Step}f:{name}", [.. path, name], leaves);
                    break;
                case JsonArray { Count: > 0 } list when Keys(path) is { } keys && list.All(item => item is JsonObject):
                    foreach (var item in list.Objects())
                    {
                        var itemAt = $"{at}{Step}{KeyStep(item, keys)}";
                        foreach (var (name, value) in item)
                            Walk(value, $"{itemAt}{Step}f:{name}", [.. path, name], leaves);
                    }
                    break;
                case JsonArray { Count: > 0 } set when IsSet(path):
                    foreach (var item in set)
                        leaves[$"{at}{Step}v:{Json.Text(item)}"] = item;
                    break;
                default:
                    leaves[at] = node;
                    break;
            }
        }

        /// <summary>Takes leaves away, and what is empty because of it.</summary>
        public void Remove(JsonObject node, IEnumerable<string> paths)
        {
            foreach (var path in paths)
                Remove(node, path.Split(Step), 0, []);
        }

        private bool Remove(JsonNode? node, string[] steps, int at, List<string> path)
        {
            var step = steps[at];
            if (step[0] == 'f' && node is JsonObject map && map.ContainsKey(step[2..]))
            {
                var name = step[2..];
                if (at == steps.Length - 1 || Remove(map[name], steps, at + 1, [.. path, name]))
                    map.Remove(name);
                return map.Count == 0 && at > 0;
            }
            if (node is not JsonArray list)
                return false;
            for (var i = list.Count - 1; i >= 0; i--)
            {
                if (step[0] == 'v' && Json.Text(list[i]) == step[2..])
                    list.RemoveAt(i);
                else if (step[0] == 'k' && list[i] is JsonObject item && Keys(path) is { } keys && KeyStep(item, keys) == step
                    && (at == steps.Length - 1 || Remove(item, steps, at + 1, path)))
                    list.RemoveAt(i);
            }
            return list.Count == 0;
        }

        public void Merge(JsonObject node, JsonObject intent) => Merge(node, intent, []);

        private void Merge(JsonObject into, JsonObject from, List<string> path)
        {
            foreach (var (name, value) in from)
            {
                List<string> here = [.. path, name];
                if (path is ["metadata"] && name is "resourceVersion" or "uid")
                {
                    into[name] = value?.DeepClone();
                    continue;
                }
                switch (value)
                {
                    case JsonObject map when into[name] is JsonObject there && !IsAtomic(here):
                        Merge(there, map, here);
                        break;
                    case JsonArray list when Keys(here) is { } keys && into[name] is JsonArray there:
                        foreach (var item in list.Objects())
                        {
                            if (there.Objects().FirstOrDefault(one => KeyStep(one, keys) == KeyStep(item, keys)) is { } same)
                                Merge(same, item, here);
                            else
                                there.Add((JsonNode)item.DeepClone());
                        }
                        break;
                    case JsonArray list when IsSet(here) && into[name] is JsonArray there:
                        foreach (var item in list)
                            if (!there.Any(one => Json.Same(one, item)))
                                there.Add(item?.DeepClone());
                        break;
                    default:
                        into[name] = value?.DeepClone();
                        break;
                }
            }
        }
    }
}
