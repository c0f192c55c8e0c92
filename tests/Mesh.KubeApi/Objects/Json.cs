using System.Text.Json;
using System.Text.Json.Nodes;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Mesh.KubeApi.Objects;

/// <summary>Walking and reading JSON nodes; null stands for absent everywhere.</summary>
internal static class Json
{
    public static JsonObject? Obj(this JsonNode? node, string name) => (node as JsonObject)?[name] as JsonObject;

    public static JsonArray? Arr(this JsonNode? node, string name) => (node as JsonObject)?[name] as JsonArray;

    public static string? Str(this JsonNode? node, string name) =>
        (node as JsonObject)?[name] is JsonValue value && value.GetValueKind() == JsonValueKind.String ? (string)value! : null;

    public static long? Num(this JsonNode? node, string name) =>
        (node as JsonObject)?[name] is JsonValue value && value.GetValueKind() == JsonValueKind.Number && value.TryGetValue<JsonElement>(out var element)
            ? element.TryGetInt64(out var number) ? number : null
            : (node as JsonObject)?[name] is JsonValue made && made.TryGetValue<long>(out var one) ? one
            : (node as JsonObject)?[name] is JsonValue small && small.TryGetValue<int>(out var two) ? two : null;

    public static bool? Bool(this JsonNode? node, string name) =>
        (node as JsonObject)?[name] is JsonValue value && value.GetValueKind() is JsonValueKind.True or JsonValueKind.False
            ? ((JsonObject)node)[name]!.GetValueKind() == JsonValueKind.True : null;

    public static JsonObject Need(this JsonObject node, string name)
    {
        if (node[name] is JsonObject there)
            return there;
        var made = new JsonObject();
        node[name] = made;
        return made;
    }

    /// <summary>Sets what is absent or null.</summary>
    public static void Default(this JsonObject node, string name, JsonNode? value)
    {
        if (node[name] is null)
            node[name] = value;
    }

    public static IEnumerable<JsonObject> Objects(this JsonArray? array) => array?.OfType<JsonObject>() ?? [];

    public static bool Same(JsonNode? left, JsonNode? right) => JsonNode.DeepEquals(left, right);

    public static string Text(JsonNode? node) => node is null ? "null" : node.ToJsonString(Store.StoredObject.Plain);

    /// <summary>Reads JSON, or YAML when it does not begin with a brace. Throws BadRequest.</summary>
    public static JsonNode? Parse(byte[] body)
    {
        var text = System.Text.Encoding.UTF8.GetString(body);
        var start = text.AsSpan().TrimStart();
        try
        {
            if (start.Length > 0 && start[0] is '{' or '[')
                return JsonNode.Parse(text);
            return FromYaml(text).SingleOrDefault();
        }
        catch (Exception failure) when (failure is JsonException or YamlException or InvalidOperationException)
        {
            throw KubeApiException.BadRequest($"the body could not be read: {failure.Message}");
        }
    }

    /// <summary>All documents of a YAML text; empty ones are left out.</summary>
    public static IEnumerable<JsonNode> FromYaml(string text)
    {
        var stream = new YamlStream();
        using var reader = new StringReader(text);
        stream.Load(reader);
        foreach (var document in stream.Documents)
            if (FromYaml(document.RootNode) is { } node)
                yield return node;
    }

    private static JsonNode? FromYaml(YamlNode node) => node switch
    {
        YamlMappingNode map => FromYaml(map),
        YamlSequenceNode list => new JsonArray([.. list.Children.Select(FromYaml)]),
        YamlScalarNode scalar => Scalar(scalar),
        _ => null,
    };

    private static JsonObject FromYaml(YamlMappingNode map)
    {
        var node = new JsonObject();
        foreach (var (key, value) in map.Children)
            node[((YamlScalarNode)key).Value ?? ""] = FromYaml(value);
        return node;
    }

    private static JsonValue? Scalar(YamlScalarNode scalar)
    {
        var text = scalar.Value ?? "";
        if (scalar.Style is not (ScalarStyle.Plain or ScalarStyle.Any))
            return JsonValue.Create(text);
        return text switch
        {
            "" or "~" or "null" or "Null" or "NULL" => null,
            "true" or "True" or "TRUE" => JsonValue.Create(true),
            "false" or "False" or "FALSE" => JsonValue.Create(false),
            _ when long.TryParse(text, System.Globalization.NumberStyles.AllowLeadingSign, System.Globalization.CultureInfo.InvariantCulture,
                out var number) => JsonValue.Create(number),
            _ when char.IsAsciiDigit(text[^1]) && (char.IsAsciiDigit(text[0]) || text[0] is '-' or '.') && double.TryParse(text,
                System.Globalization.NumberStyles.Float, System.Globalization.CultureInfo.InvariantCulture, out var real) => JsonValue.Create(real),
            _ => JsonValue.Create(text),
        };
    }
}
