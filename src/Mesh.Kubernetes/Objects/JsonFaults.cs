using System.Text.Json;

namespace Mesh.Kubernetes.Objects;

/// <summary>What the serializer did not like, in a person's words.</summary>
internal static class JsonFaults
{
    /// <summary>How the serializer names the type it wanted, and how a person does.</summary>
    private static readonly (string Sign, string Wanted)[] WantedTypes =
    [
        ("IReadOnlyList", "a list"),
        ("IReadOnlyDictionary", "a map"),
        ("System.String.", "text: put it in quotes"),
        ("as a string", "text: put it in quotes"),
        ("Int32", "a whole number without quotes"),
        ("Int64", "a whole number without quotes"),
        ("as a number", "a whole number without quotes"),
        ("Boolean", "true or false without quotes"),
        ("as a boolean", "true or false without quotes"),
        ("DateTimeOffset", "a time such as 2026-01-31T12:00:00Z"),
    ];

    /// <summary>Field and what it must be.</summary>
    public static string Describe(JsonException e)
    {
        var field = e.Path is { Length: > 2 } path ? path[2..] : "the object";
        var message = $"{e.Message} {e.InnerException?.Message}";
        foreach (var (sign, wanted) in WantedTypes)
        {
            if (message.Contains(sign, StringComparison.Ordinal))
                return $"{field} must be {wanted}";
        }
        return message.Contains("null", StringComparison.Ordinal)
            ? $"{field} is null: fill it or leave it out"
            : $"{field} has the wrong type";
    }
}
