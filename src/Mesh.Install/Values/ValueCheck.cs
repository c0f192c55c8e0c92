using System.Text.RegularExpressions;
using Mesh.Install.Charts;
using Mesh.Install.Text;

namespace Mesh.Install.Values;

/// <summary>
/// Compares values with the chart's schema, the one that Helm would compare them with, and finds every fault at once: a name that does
/// not exist with the nearest one that does, a value of another kind with what is allowed.
/// </summary>
public static class ValueCheck
{
    /// <exception cref="InstallException">One line per fault.</exception>
    public static void ThrowIfWrong(Chart chart, Map given)
    {
        var faults = Faults(chart, given);
        if (faults.Count == 0)
            return;
        throw new InstallException(faults.Count == 1 ? faults[0] : $"{faults.Count} values are wrong:\n  {string.Join("\n  ", faults)}");
    }

    public static IReadOnlyList<string> Faults(Chart chart, Map given)
    {
        var faults = new List<string>();
        given = given.Plain();
        Check("", chart.Values.With(given), given, chart.Schema, chart.Schema, faults);
        if (faults.Count == 0)
            faults.AddRange(ValueSense.Faults(chart.Values.With(given)));
        return faults;
    }

    /// <summary>All names of the schema that end in a value, with their dots.</summary>
    public static IEnumerable<string> Names(Map schema, string path = "")
    {
        if (schema.TryGetValue("properties", out var properties) && properties is Map members)
        {
            foreach (var (name, inner) in members)
            {
                foreach (var found in Names((Map)inner!, path.Length == 0 ? name : $"{path}.{name}"))
                    yield return found;
            }
        }
        else
        {
            yield return path;
        }
    }

    private static void Check(string path, object? value, object? given, Map schema, Map root, List<string> faults)
    {
        if (schema.TryGetValue("anyOf", out var choices))
        {
            CheckAny(path, value, (IReadOnlyList<object?>)choices!, root, faults);
            return;
        }
        if (schema.TryGetValue("enum", out var allowed))
        {
            var words = (IReadOnlyList<object?>)allowed!;
            if (!words.Any(word => Tree.Same(word, value)))
                faults.Add($"{path} is {Shown(value)}: must be {OneOf(words)}{Unsupported.Reason(path, value)}");
            return;
        }
        if (!IsKind((string?)schema.GetValueOrDefault("type"), value))
        {
            faults.Add($"{path} is {Described(value)}: must be {KindName((string)schema["type"]!)}");
            return;
        }
        switch (value)
        {
            case Map map:
                CheckMap(path, map, given as Map, schema, root, faults);
                break;
            case IReadOnlyList<object?> items:
                if (schema.TryGetValue("minItems", out var least) && items.Count < (long)least!)
                    faults.Add($"{path} is empty: must have {least} entry or more");
                if (schema.TryGetValue("items", out var item))
                {
                    for (var i = 0; i < items.Count; i++)
                        Check($"{path}[{i}]", items[i], items[i], (Map)item!, root, faults);
                }
                break;
            case long number:
                var (low, high) = ((long?)schema.GetValueOrDefault("minimum"), (long?)schema.GetValueOrDefault("maximum"));
                if (number < low || number > high)
                    faults.Add($"{path} is {number}: must be {(high is null ? $"{low} or more" : $"{low} to {high}")}");
                break;
            case string text when schema.GetValueOrDefault("pattern") is string pattern && !Regex.IsMatch(text, pattern):
                faults.Add($"{path} is {Shown(value)}: must {ValueSense.Pattern(path, pattern)}");
                break;
        }
    }

    private static void CheckMap(string path, Map map, Map? given, Map schema, Map root, List<string> faults)
    {
        var known = schema.GetValueOrDefault("properties") as Map ?? [];
        schema.TryGetValue("additionalProperties", out var others);
        foreach (var (name, value) in map)
        {
            var at = path.Length == 0 ? name : $"{path}.{name}";
            if (known.TryGetValue(name, out var inner))
                Check(at, value, given?.GetValueOrDefault(name), (Map)inner!, root, faults);
            else if (others is Map any)
                Check(at, value, value, any, root, faults);
            // An open map may hold anything, but hardly what is one letter from a name that it has.
            else if (others is false || others is null && NearestWord.Of(name, known.Keys) is not null)
                faults.Add(Unknown(at, name, known, root));
        }
        if (schema.GetValueOrDefault("required") is IReadOnlyList<object?> required)
            faults.AddRange(required.Cast<string>().Where(name => !map.ContainsKey(name)).Select(name => $"{path} has no {name}: it must"));
    }

    private static void CheckAny(string path, object? value, IReadOnlyList<object?> choices, Map root, List<string> faults)
    {
        List<string>? nearest = null;
        foreach (var choice in choices.Cast<Map>())
        {
            var found = new List<string>();
            Check(path, value, value, choice, root, found);
            if (found.Count == 0)
                return;
            // The faults of the choice whose kind the value is say most.
            if (nearest is null || IsKind((string?)choice.GetValueOrDefault("type"), value))
                nearest = found;
        }
        faults.AddRange(nearest!);
    }

    private static string Unknown(string path, string name, Map siblings, Map root)
    {
        var parent = path[..^name.Length];
        var near = NearestWord.Of(name, siblings.Keys) is { } sibling ? parent + sibling : null;
        if (near is null && Unsupported.Reason(path, null) is { Length: > 0 } reason)
            return $"{path} is no value of this chart{reason}";
        var all = Names(root).Where(known => known.Length > 0).ToList();
        near ??= all.FirstOrDefault(known => known.EndsWith($".{name}", StringComparison.Ordinal)) ?? NearestWord.Of(path, all);
        var mend = near is not null ? $"did you mean {near}?"
            : siblings.Count is > 0 and <= 12 ? $"{(parent.Length > 0 ? parent.TrimEnd('.') : "it")} has {string.Join(", ", siblings.Keys)}"
            : "`mesh config values` lists all";
        return $"{path} is no value of this chart: {mend}";
    }

    private static bool IsKind(string? type, object? value) => type switch
    {
        null => true,
        "object" => value is Map,
        "array" => value is IReadOnlyList<object?>,
        "string" => value is string,
        "boolean" => value is bool,
        "integer" => value is long,
        "number" => value is long or double,
        _ => throw new InvalidOperationException($"the schema's type {type} is not known here"),
    };

    private static string KindName(string type) => type switch
    {
        "object" => "a map",
        "array" => "a list",
        "string" => "text (in quotes where it looks like a number)",
        "boolean" => "true or false",
        _ => "a whole number",
    };

    private static string OneOf(IReadOnlyList<object?> words)
    {
        var shown = words.Select(word => word is string text ? text : Tree.Print(word)).Distinct().ToList();
        return shown.Count == 1 ? shown[0] : $"{string.Join(", ", shown.SkipLast(1))} or {shown[^1]}";
    }

    private static string Described(object? value) =>
        value is null or Map or IReadOnlyList<object?> ? Shown(value) : $"{Shown(value)}, {Tree.KindOf(value)}";

    private static string Shown(object? value) => value switch
    {
        string text => $"'{(text.Length > 60 ? text[..60] + "…" : text)}'",
        null => "not set",
        Map or IReadOnlyList<object?> => Tree.KindOf(value),
        _ => Tree.Print(value),
    };
}
