using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Patching;

/// <summary>
/// The patch of built-in kinds: like a merge patch, but lists of known shape merge by key, and directives say what else to do:
/// $patch: delete|replace|merge, $deleteFromPrimitiveList/…, $setElementOrder/…, $retainKeys.
/// </summary>
internal sealed class StrategicMergePatch(string group, string kind)
{
    private const string Delete = "$deleteFromPrimitiveList/";
    private const string Order = "$setElementOrder/";

    public JsonObject Apply(JsonObject target, JsonNode? patch) => patch is JsonObject changes ? Merge(target, changes, [])
        : throw KubeApiException.BadRequest("a strategic merge patch is an object");

    private JsonObject Merge(JsonObject target, JsonObject patch, List<string> path)
    {
        switch (patch.Str("$patch"))
        {
            case "replace":
                var whole = (JsonObject)patch.DeepClone();
                whole.Remove("$patch");
                return whole;
            case "delete":
                return [];
            case null or "merge":
                break;
            case var other:
                throw KubeApiException.BadRequest($"unknown patch directive {other}");
        }
        if (patch["$retainKeys"] is JsonArray retained)
        {
            var names = retained.Select(one => (string?)one).ToHashSet();
            foreach (var gone in target.Select(pair => pair.Key).Where(name => !names.Contains(name)).ToList())
                target.Remove(gone);
        }
        foreach (var (name, value) in patch)
        {
            if (name.StartsWith(Delete, StringComparison.Ordinal))
                RemoveValues(target[name[Delete.Length..]] as JsonArray, value as JsonArray);
            if (name[0] == '$' && (name is "$patch" or "$retainKeys" || name.Contains('/', StringComparison.Ordinal)))
                continue;
            path.Add(name);
            var old = target[name];
            target.Remove(name);
            var made = value switch
            {
                null => null,
                JsonObject map => Merge(old as JsonObject ?? [], map, path),
                JsonArray list => MergeList(old as JsonArray, list, path, patch[Order + name] as JsonArray),
                _ => value.DeepClone(),
            };
            if (made is not null && (value is not JsonObject removed || removed.Str("$patch") != "delete"))
                target[name] = made;
            path.RemoveAt(path.Count - 1);
        }
        // An order without a change of the list itself.
        foreach (var (name, value) in patch)
        {
            if (name.StartsWith(Order, StringComparison.Ordinal) && target[name[Order.Length..]] is JsonArray list && value is JsonArray order)
            {
                path.Add(name[Order.Length..]);
                target[name[Order.Length..]] = Ordered(list, order, MergeKeyOf(path));
                path.RemoveAt(path.Count - 1);
            }
        }
        return target;
    }

    private string? MergeKeyOf(List<string> path) => ListKeys.MergeKey(group, kind, path);

    private static void RemoveValues(JsonArray? from, JsonArray? values)
    {
        if (from is null || values is null)
            return;
        for (var i = from.Count - 1; i >= 0; i--)
            if (values.Any(value => Json.Same(value, from[i])))
                from.RemoveAt(i);
    }

    private JsonArray MergeList(JsonArray? old, JsonArray patch, List<string> path, JsonArray? order)
    {
        var key = MergeKeyOf(path);
        if (key is null)
            return Clean((JsonArray)patch.DeepClone());
        var result = old ?? [];
        if (key == "")
        {
            foreach (var value in patch)
                if (!result.Any(one => Json.Same(one, value)))
                    result.Add(value?.DeepClone());
            return result;
        }
        if (patch.Objects().Any(item => item.Str("$patch") == "replace"))
            return Clean((JsonArray)patch.DeepClone());
        List<string> before = [.. result.Select(item => Json.Text((item as JsonObject)?[key]))];
        foreach (var item in patch)
        {
            if (item is not JsonObject change)
                throw KubeApiException.BadRequest($"items of {string.Join('.', path)} must be objects");
            if (change[key] is not { } wanted)
                throw KubeApiException.BadRequest($"map: {Json.Text(change)} does not contain declared merge key: {key}");
            var at = result.Select((one, index) => (one, index)).Where(pair => Json.Same((pair.one as JsonObject)?[key], wanted))
                .Select(pair => pair.index).DefaultIfEmpty(-1).First();
            if (change.Str("$patch") == "delete")
            {
                if (at >= 0)
                    result.RemoveAt(at);
            }
            else if (at < 0)
            {
                result.Add((JsonNode)Merge([], change, path));
            }
            else
            {
                var there = (JsonObject)result[at]!;
                result[at] = null;
                result[at] = Merge(there, change, path);
            }
        }
        return Ordered(result, order ??
            new JsonArray([.. patch.Objects().Where(item => item.Str("$patch") is null).Select(item => item.DeepClone())]), key, before);
    }

    private static JsonArray Clean(JsonArray list)
    {
        for (var i = list.Count - 1; i >= 0; i--)
        {
            if (list[i] is JsonObject item && item.ContainsKey("$patch"))
            {
                if (item.Count == 1 || item.Str("$patch") == "delete")
                    list.RemoveAt(i);
                else
                    item.Remove("$patch");
            }
        }
        return list;
    }

    /// <summary>
    /// Items named by <paramref name="order"/> in that order, the others in between as they stood before: an item that was there
    /// before another stays before it, and new ones come first. That is how a kube-apiserver orders.
    /// </summary>
    private static JsonArray Ordered(JsonArray list, JsonArray order, string? key, List<string>? before = null)
    {
        string Key(JsonNode? item) => Json.Text(key is null or "" ? item : (item as JsonObject)?[key]);
        var places = order.Select(Key).ToList();
        before ??= [.. list.Select(Key)];
        var named = list.Where(item => places.Contains(Key(item))).OrderBy(item => places.IndexOf(Key(item))).ToList();
        var others = list.Where(item => !places.Contains(Key(item))).ToList();
        var sorted = new List<JsonNode?>();
        int left = 0, right = 0;
        while (left < named.Count || right < others.Count)
        {
            var leftWas = left < named.Count ? before.IndexOf(Key(named[left])) : int.MaxValue;
            var rightWas = right < others.Count ? before.IndexOf(Key(others[right])) : int.MaxValue;
            sorted.Add(right >= others.Count || (left < named.Count && leftWas <= rightWas) ? named[left++] : others[right++]);
        }
        list.Clear();
        return new JsonArray([.. sorted]);
    }
}
