using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;

namespace Mesh.KubeApi.Objects;

/// <summary>
/// The openAPIV3Schema of a CRD version: fills in defaults, prunes what it does not know, and says all that is wrong. CEL rules
/// (x-kubernetes-validations) are not evaluated.
/// </summary>
internal sealed class StructuralSchema(JsonObject root)
{
    private const string PreserveUnknown = "x-kubernetes-preserve-unknown-fields";
    private const string IntOrString = "x-kubernetes-int-or-string";

    public JsonObject Root { get; } = root;

    /// <summary>The schema of what a path leads to; null when it says nothing.</summary>
    public JsonObject? At(IReadOnlyList<string> path)
    {
        JsonObject? at = Root;
        foreach (var step in path)
        {
            while (at?["items"] is JsonObject items)
                at = items;
            at = at.Obj("properties").Obj(step) ?? at.Obj("additionalProperties");
        }
        return at;
    }

    public void ApplyDefaults(JsonObject node) => Default(node, Root);

    private static void Default(JsonNode? node, JsonObject schema)
    {
        switch (node)
        {
            case JsonObject map:
                foreach (var (name, property) in schema.Obj("properties") ?? [])
                {
                    if (property is not JsonObject child)
                        continue;
                    if (child["default"] is { } value && (!map.ContainsKey(name) || (map[name] is null && child.Bool("nullable") != true)))
                        map[name] = value.DeepClone();
                    Default(map[name], child);
                }
                if (schema["additionalProperties"] is JsonObject rest)
                    foreach (var (name, value) in map)
                        if (schema.Obj("properties")?.ContainsKey(name) != true)
                            Default(value, rest);
                break;
            case JsonArray list when schema["items"] is JsonObject items:
                foreach (var item in list)
                    Default(item, items);
                break;
        }
    }

    /// <summary>Removes unknown fields; gives their paths.</summary>
    public List<string> Prune(JsonObject node)
    {
        var pruned = new List<string>();
        Prune(node, Root, "", pruned, top: true);
        return pruned;
    }

    private static void Prune(JsonNode? node, JsonObject schema, string path, List<string> pruned, bool top)
    {
        if (schema.Bool(PreserveUnknown) == true && schema["properties"] is null)
            return;
        switch (node)
        {
            case JsonObject map:
                var properties = schema.Obj("properties") ?? [];
                var rest = schema["additionalProperties"];
                foreach (var (name, value) in map.ToList())
                {
                    if ((top || schema.Bool("x-kubernetes-embedded-resource") == true) && name is "apiVersion" or "kind" or "metadata")
                        continue;
                    var inner = path == "" ? name : $"{path}.{name}";
                    if (properties[name] is JsonObject child)
                        Prune(value, child, inner, pruned, false);
                    else if (rest is JsonObject other)
                        Prune(value, other, inner, pruned, false);
                    else if (schema.Bool(PreserveUnknown) != true && !(rest is JsonValue allowed && allowed.GetValueKind() == JsonValueKind.True))
                    {
                        map.Remove(name);
                        pruned.Add(inner);
                    }
                }
                break;
            case JsonArray list when schema["items"] is JsonObject items:
                for (var i = 0; i < list.Count; i++)
                    Prune(list[i], items, string.Create(CultureInfo.InvariantCulture, $"{path}[{i}]"), pruned, false);
                break;
        }
    }

    public List<KubeApiException.Cause> Validate(JsonObject node)
    {
        var causes = new List<KubeApiException.Cause>();
        Check(node, Root, "", causes, top: true);
        return causes;
    }

    private static string Kind(JsonNode? node) => node switch
    {
        null => "null",
        JsonObject => "object",
        JsonArray => "array",
        _ => node.GetValueKind() switch
        {
            JsonValueKind.String => "string",
            JsonValueKind.True or JsonValueKind.False => "boolean",
            _ => IsInteger(node) ? "integer" : "number",
        },
    };

    private static bool IsInteger(JsonNode node) => !node.ToJsonString().AsSpan().ContainsAny('.', 'e', 'E');

    private static void Check(JsonNode? node, JsonObject schema, string path, List<KubeApiException.Cause> causes, bool top = false)
    {
        var actual = Kind(node);
        if (node is null)
        {
            if (schema.Bool("nullable") != true && !top)
                causes.Add(KubeApiException.Cause.Invalid(path, "\"null\"", $"{path} in body must be of type {schema.Str("type")}: \"null\""));
            return;
        }
        var type = schema.Str("type");
        if (schema.Bool(IntOrString) == true)
        {
            if (actual is not ("integer" or "string"))
                causes.Add(WrongType(path, actual, "integer,string"));
        }
        else if (type is not (null or "") && type != actual && !(type == "number" && actual == "integer"))
        {
            causes.Add(WrongType(path, actual, type));
            return;
        }
        CheckValue(node, schema, path, causes);
        foreach (var one in schema.Arr("allOf").Objects())
            Check(node, one, path, causes, top);
        if (schema.Arr("anyOf") is { Count: > 0 } any && !any.Objects().Any(one => Holds(node, one, path)))
            causes.Add(KubeApiException.Cause.Invalid(path, Short(node), $"{path} in body must validate at least one schema (anyOf)"));
        if (schema.Arr("oneOf") is { Count: > 0 } exact && exact.Objects().Count(one => Holds(node, one, path)) != 1)
            causes.Add(KubeApiException.Cause.Invalid(path, Short(node), $"{path} in body must validate one and only one schema (oneOf)"));
        if (schema.Obj("not") is { } not && Holds(node, not, path))
            causes.Add(KubeApiException.Cause.Invalid(path, Short(node), $"{path} in body must not validate the schema (not)"));
        if (node is JsonObject map)
            CheckObject(map, schema, path, causes, top);
        else if (node is JsonArray list)
            CheckArray(list, schema, path, causes);
    }

    private static bool Holds(JsonNode node, JsonObject schema, string path)
    {
        var inner = new List<KubeApiException.Cause>();
        Check(node, schema, path, inner);
        return inner.Count == 0;
    }

    private static KubeApiException.Cause WrongType(string path, string actual, string wanted) =>
        new(path, "FieldValueTypeInvalid", $"Invalid value: \"{actual}\": {path} in body must be of type {wanted}: \"{actual}\"");

    private static string Short(JsonNode node) => Json.Text(node) is { Length: < 80 } text ? text : $"\"{Kind(node)}\"";

    private static void CheckValue(JsonNode node, JsonObject schema, string path, List<KubeApiException.Cause> causes)
    {
        void Wrong(string why) => causes.Add(KubeApiException.Cause.Invalid(path, Short(node), $"{path} in body {why}"));
        if (schema.Arr("enum") is { } allowed && !allowed.Any(one => Json.Same(one, node)))
            causes.Add(KubeApiException.Cause.Unsupported(path, Short(node),
                allowed.Select(one => one is JsonValue value ? value.ToString() : Json.Text(one))));
        if (node is not JsonValue)
            return;
        if (node.GetValueKind() == JsonValueKind.String)
        {
            var text = (string)node!;
            if (schema.Num("minLength") is { } min && text.Length < min)
                Wrong($"should be at least {min} chars long");
            if (schema.Num("maxLength") is { } max && text.Length > max)
                Wrong($"should be at most {max} chars long");
            if (schema.Str("pattern") is { } pattern && !Regex.IsMatch(text, pattern, RegexOptions.None, TimeSpan.FromSeconds(1)))
                Wrong($"should match '{pattern}'");
            if (!FormatHolds(schema.Str("format"), text))
                Wrong($"must be of type {schema.Str("format")}: {Json.Text(node)}");
        }
        else if (node.GetValueKind() == JsonValueKind.Number)
        {
            var number = Number(node);
            if (schema["minimum"] is JsonValue low && (number < Number(low) || (schema.Bool("exclusiveMinimum") == true && number <= Number(low))))
                Wrong($"should be greater than or equal to {Json.Text(low)}");
            if (schema["maximum"] is JsonValue high && (number > Number(high) || (schema.Bool("exclusiveMaximum") == true && number >= Number(high))))
                Wrong($"should be less than or equal to {Json.Text(high)}");
            if (schema.Str("format") == "int32" && (number < int.MinValue || number > int.MaxValue))
                Wrong("must be of type int32");
        }
    }

    private static double Number(JsonNode node) => double.Parse(node.ToJsonString(), CultureInfo.InvariantCulture);

    private static bool FormatHolds(string? format, string text) => format switch
    {
        "date-time" => DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.None, out _),
        "ipv4" => System.Net.IPAddress.TryParse(text, out var four) && four.AddressFamily == System.Net.Sockets.AddressFamily.InterNetwork,
        "ipv6" => System.Net.IPAddress.TryParse(text, out var six) && six.AddressFamily == System.Net.Sockets.AddressFamily.InterNetworkV6,
        "cidr" => System.Net.IPNetwork.TryParse(text, out _),
        "uuid" => Guid.TryParse(text, out _),
        "byte" => Convert.TryFromBase64String(text, new byte[text.Length], out _),
        _ => true,
    };

    private static void CheckObject(JsonObject map, JsonObject schema, string path, List<KubeApiException.Cause> causes, bool top)
    {
        string Inner(string name) => path == "" ? name : $"{path}.{name}";
        foreach (var name in schema.Arr("required") ?? [])
            if (!map.ContainsKey((string)name!))
                causes.Add(KubeApiException.Cause.Required(Inner((string)name!)));
        if (schema.Num("maxProperties") is { } most && map.Count > most)
            causes.Add(new(path, "FieldValueTooMany", $"Too many: {map.Count}: must have at most {most} items"));
        if (schema.Num("minProperties") is { } least && map.Count < least)
            causes.Add(KubeApiException.Cause.Invalid(path, Short(map), $"{path} in body should have at least {least} properties"));
        var properties = schema.Obj("properties") ?? [];
        foreach (var (name, value) in map)
        {
            if (top && name is "apiVersion" or "kind" or "metadata")
                continue;
            if (properties[name] is JsonObject child)
                Check(value, child, Inner(name), causes);
            else if (schema["additionalProperties"] is JsonObject rest)
                Check(value, rest, Inner(name), causes);
        }
    }

    private static void CheckArray(JsonArray list, JsonObject schema, string path, List<KubeApiException.Cause> causes)
    {
        if (schema.Num("maxItems") is { } most && list.Count > most)
            causes.Add(new(path, "FieldValueTooMany", $"Too many: {list.Count}: must have at most {most} items"));
        if (schema.Num("minItems") is { } least && list.Count < least)
            causes.Add(KubeApiException.Cause.Invalid(path, Short(list), $"{path} in body should have at least {least} items"));
        if (schema["items"] is JsonObject items)
            for (var i = 0; i < list.Count; i++)
                Check(list[i], items, string.Create(CultureInfo.InvariantCulture, $"{path}[{i}]"), causes);
        var keys = schema.Str("x-kubernetes-list-type") switch
        {
            "map" => schema.Arr("x-kubernetes-list-map-keys")?.Select(key => (string)key!).ToArray(),
            "set" => [],
            _ => null,
        };
        if (keys is null)
            return;
        var seen = new HashSet<string>();
        for (var i = 0; i < list.Count; i++)
            if (!seen.Add(keys.Length == 0 ? Json.Text(list[i]) : Patching.ListKeys.KeyOf(list[i], keys)))
                causes.Add(new(string.Create(CultureInfo.InvariantCulture, $"{path}[{i}]"), "FieldValueDuplicate", $"Duplicate value: {Short(list[i]!)}"));
    }
}
