using System.Globalization;
using System.Text.Json;
using Mesh.Model;

namespace Mesh.Kubernetes.Policies;

/// <summary>
/// The fields of one JSON object of a policy, each asked for by name. A policy must not be weaker than its author wrote it, so a field
/// that nobody asked for is a fault: unlike other objects, nothing unknown is passed over.
/// </summary>
internal readonly struct Fields
{
    private readonly JsonElement _element;

    public Fields(string path, JsonElement element)
    {
        Path = path;
        _element = element;
        if (element.ValueKind != JsonValueKind.Object)
            throw new PolicyFaultException($"{path} must be a map of fields");
    }

    public string Path { get; }

    public string At(string name) => $"{Path}.{name}";

    /// <summary>Null when absent or null.</summary>
    public JsonElement? Get(string name) =>
        _element.TryGetProperty(name, out var value) && value.ValueKind != JsonValueKind.Null ? value : null;

    public bool Has(string name) => Get(name) is not null;

    public bool IsEmpty => !_element.EnumerateObject().Any(member => member.Value.ValueKind != JsonValueKind.Null);

    /// <exception cref="PolicyFaultException">There is a field of another name.</exception>
    public Fields Only(params IReadOnlyCollection<string> known)
    {
        foreach (var field in _element.EnumerateObject())
            if (field.Value.ValueKind != JsonValueKind.Null && !known.Contains(field.Name))
                throw new PolicyFaultException($"{At(field.Name)} is not known: remove it, or mend its name");
        return this;
    }

    /// <summary>Null when absent; otherwise the members with their paths.</summary>
    public IReadOnlyList<(string Path, JsonElement Value)>? List(string name)
    {
        if (Get(name) is not { } value)
            return null;
        if (value.ValueKind != JsonValueKind.Array)
            throw new PolicyFaultException($"{At(name)} must be a list");
        var path = At(name);
        return [.. value.EnumerateArray().Select((member, index) => ($"{path}[{index}]", member))];
    }

    public bool? Flag(string name) => Get(name) is not { } value ? null : value.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw new PolicyFaultException($"{At(name)} must be true or false without quotes"),
    };

    /// <summary>Null when absent.</summary>
    public string? Text(string name) => Get(name) is { } value ? TextOf(At(name), value) : null;

    public static string TextOf(string path, JsonElement value) => value.ValueKind == JsonValueKind.String
        ? value.GetString()!
        : throw new PolicyFaultException($"{path} must be text: put it in quotes");

    public static IpPrefix RangeOf(string path, JsonElement value)
    {
        var text = TextOf(path, value);
        return IpPrefix.TryParse(text, out var range)
            ? range
            : throw new PolicyFaultException($"{path} '{Shown(text)}' is not an address range such as 10.1.0.0/24");
    }

    /// <summary>Except ranges must lie inside the range that they narrow.</summary>
    public IEnumerable<IpPrefix> Except(IpPrefix range)
    {
        foreach (var (path, value) in List("except") ?? [])
        {
            var except = RangeOf(path, value);
            if (except.Address.IsV6 != range.Address.IsV6 || except.Length < range.Length || !range.Contains(except.Address))
                throw new PolicyFaultException($"{path} '{except}' must lie within {range}");
            yield return except;
        }
    }

    /// <summary>A whole number, with or without quotes; null for text that is none.</summary>
    public static int? NumberOf(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Number when value.TryGetInt32(out var number) => number,
        JsonValueKind.String when int.TryParse(value.GetString(), NumberStyles.None, CultureInfo.InvariantCulture, out var number) => number,
        _ => null,
    };

    /// <param name="source">Put before keys that name none, such as "k8s:".</param>
    public LabelSelector Selector(string source)
    {
        Only("matchLabels", "matchExpressions");
        var requirements = new List<LabelRequirement>();
        if (Get("matchLabels") is { } labels)
        {
            if (labels.ValueKind != JsonValueKind.Object)
                throw new PolicyFaultException($"{At("matchLabels")} must be a map");
            foreach (var label in labels.EnumerateObject())
                requirements.Add(LabelRequirement.Is(Key(At("matchLabels"), label.Name, source), TextOf($"{At("matchLabels")}.{label.Name}", label.Value)));
        }
        foreach (var (path, value) in List("matchExpressions") ?? [])
            requirements.Add(Expression(new Fields(path, value).Only("key", "operator", "values"), source));
        return new LabelSelector(new EquatableArray<LabelRequirement>(requirements));
    }

    public static string Shown(string text) => text.Length > 80 ? text[..80] + "…" : text;

    private static LabelRequirement Expression(Fields fields, string source)
    {
        var key = Key(fields.At("key"), fields.Text("key") ?? "", source);
        var values = fields.List("values")?.Select(value => TextOf(value.Path, value.Value)).ToList() ?? [];
        var word = fields.Text("operator");
        if (!Enum.TryParse<LabelOperator>(word, out var @operator) || @operator.ToString() != word)
            throw new PolicyFaultException($"{fields.At("operator")} '{Shown(word ?? "")}' must be In, NotIn, Exists or DoesNotExist");
        if (@operator is LabelOperator.In or LabelOperator.NotIn ? values.Count == 0 : values.Count > 0)
            throw new PolicyFaultException($"{fields.At("values")} must {(values.Count == 0 ? "not " : "")}be empty for {word}");
        return new LabelRequirement(key, @operator, new EquatableArray<string>(values));
    }

    private static string Key(string path, string key, string source)
    {
        var colon = key.IndexOf(':', StringComparison.Ordinal);
        if (key.Length == 0 || colon == 0 || colon == key.Length - 1)
            throw new PolicyFaultException($"{path} has the key '{Shown(key)}': write it as app, or with its source as k8s:app");
        return colon > 0 && source != "k8s:" ? key : source + key;
    }
}
