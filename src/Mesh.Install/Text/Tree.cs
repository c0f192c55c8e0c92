using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mesh.Install.Text;

/// <summary>
/// What values and templates are made of, as plain .NET values: null, bool, long, double, string, a list (<c>List&lt;object?&gt;</c>) or a
/// map (<see cref="Map"/>). The same that YAML and JSON have; a map is walked in the order of its names, as Go's templates walk it.
/// </summary>
public static class Tree
{
    public static object? FromJson(JsonNode? node) => node switch
    {
        null => null,
        JsonObject members => new Map(members.Select(member => KeyValuePair.Create(member.Key, FromJson(member.Value)))),
        JsonArray items => items.Select(FromJson).ToList(),
        JsonValue value => value.GetValueKind() switch
        {
            JsonValueKind.True => true,
            JsonValueKind.False => false,
            JsonValueKind.String => value.GetValue<string>(),
            JsonValueKind.Null => null,
            _ => Number(value.ToJsonString()),
        },
        _ => throw new InvalidOperationException($"JSON of an unknown kind: {node.GetType().Name}"),
    };

    public static JsonNode? ToJson(object? value) => value switch
    {
        null => null,
        bool flag => JsonValue.Create(flag),
        string text => JsonValue.Create(text),
        long number => JsonValue.Create(number),
        double number => JsonValue.Create(number),
        Map map => new JsonObject(map.Select(member => KeyValuePair.Create(member.Key, ToJson(member.Value)))),
        IReadOnlyList<object?> items => new JsonArray([.. items.Select(ToJson)]),
        _ => throw new InvalidOperationException($"a {value.GetType().Name} is no part of a tree"),
    };

    /// <summary>A copy that shares nothing with the original.</summary>
    public static object? Copy(object? value) => value switch
    {
        Map map => map.Copy(),
        IReadOnlyList<object?> items => items.Select(Copy).ToList(),
        _ => value,
    };

    public static bool Same(object? a, object? b) => (a, b) switch
    {
        (Map x, Map y) => x.Count == y.Count && x.All(member => y.TryGetValue(member.Key, out var other) && Same(member.Value, other)),
        (IReadOnlyList<object?> x, IReadOnlyList<object?> y) => x.Count == y.Count && x.Zip(y).All(pair => Same(pair.First, pair.Second)),
        (long x, double y) => x == y,
        (double x, long y) => x == y,
        _ => Equals(a, b),
    };

    /// <summary>As Go's templates print it.</summary>
    public static string Print(object? value) => value switch
    {
        null => "",
        bool flag => flag ? "true" : "false",
        string text => text,
        long number => number.ToString(CultureInfo.InvariantCulture),
        double number => number.ToString("R", CultureInfo.InvariantCulture),
        _ => ToJson(value)!.ToJsonString(),
    };

    /// <summary>What a person calls it.</summary>
    public static string KindOf(object? value) => value switch
    {
        null => "nothing",
        bool => "true or false",
        long => "a whole number",
        double => "a number",
        string => "text",
        Map => "a map",
        _ => "a list",
    };

    private static object Number(string text) =>
        long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var whole)
            ? (object)whole
            : double.Parse(text, CultureInfo.InvariantCulture);
}

/// <summary>Names and what they stand for, in the order of the names (by bytes).</summary>
public sealed class Map : SortedDictionary<string, object?>
{
    /// <summary>Below it every whole number is a double of its own.</summary>
    private const double LargestExact = 1L << 53;

    public Map()
        : base(StringComparer.Ordinal)
    {
    }

    public Map(IEnumerable<KeyValuePair<string, object?>> members)
        : this()
    {
        foreach (var (name, value) in members)
            this[name] = value;
    }

    public Map Copy() => new(this.Select(member => KeyValuePair.Create(member.Key, Tree.Copy(member.Value))));

    /// <summary>This map with the other one over it: maps are merged, everything else is replaced, null takes a name away (as in Helm).</summary>
    public Map With(Map other)
    {
        var merged = Copy();
        foreach (var (name, value) in other)
        {
            if (value is null)
                merged.Remove(name);
            else
                merged[name] = value is Map inner && merged.TryGetValue(name, out var below) && below is Map outer ? outer.With(inner) : Tree.Copy(value);
        }
        return merged;
    }

    /// <summary>As it is meant: a name without a value is not set, 1e3 is 1000. Below the first level Helm would take such a name out of the
    /// chart's own values too, and the chart would break over it.</summary>
    public Map Plain() => new(this.Where(member => member.Value is not null).Select(member => KeyValuePair.Create(member.Key, Plain(member.Value))));

    private static object? Plain(object? value) => value switch
    {
        Map map => map.Plain(),
        IReadOnlyList<object?> items => items.Select(Plain).ToList(),
        double number when number == Math.Floor(number) && Math.Abs(number) < LargestExact => (long)number,
        _ => value,
    };

    /// <summary>What is at a path such as "clustermesh.config.enabled"; null when there is nothing.</summary>
    public object? At(string path)
    {
        object? at = this;
        foreach (var name in path.Split('.'))
        {
            if (at is not Map map || !map.TryGetValue(name, out at))
                return null;
        }
        return at;
    }

    /// <summary>Puts a value at a path, making the maps on the way.</summary>
    public Map Set(string path, object? value)
    {
        var at = this;
        var names = path.Split('.');
        foreach (var name in names[..^1])
        {
            if (!at.TryGetValue(name, out var next) || next is not Map inner)
                at[name] = inner = [];
            at = inner;
        }
        at[names[^1]] = value;
        return this;
    }
}
