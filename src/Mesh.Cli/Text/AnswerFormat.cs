using System.Text.Json;
using Mesh.AgentApi;
using Mesh.Cli.Commands;

namespace Mesh.Cli.Text;

/// <summary>
/// -o json, yaml and jsonpath={…}, as Cilium's tools have them on every command that asks an agent: the JSON document that was to be
/// told, in the form that was asked for. Text and other words for people stay with the commands.
/// </summary>
internal static class AnswerFormat
{
    public const string Choices = "json, yaml or jsonpath={…}";
    private const string PathWord = "jsonpath=";

    public static bool IsStructured(string format) => format is "json" or "yaml" || format.StartsWith(PathWord, StringComparison.Ordinal);

    /// <summary>What is wrong with a format that none of the words is; null when it can be written.</summary>
    public static string? FaultOf(string format, params string[] words)
    {
        if (words.Contains(format) || format is "json" or "yaml")
            return null;
        if (!format.StartsWith(PathWord, StringComparison.Ordinal))
            return $"--output {format}: must be {string.Join(", ", words)}, {Choices}";
        try
        {
            Parse(format);
            return null;
        }
        catch (FormatException e)
        {
            return $"--output {format}: {e.Message}";
        }
    }

    /// <param name="format">One that <see cref="IsStructured"/>.</param>
    /// <returns>Ends with a line feed.</returns>
    public static string Of(string format, byte[] json)
    {
        if (format == "json")
            return ListCommand.Indent(json);
        using var document = JsonDocument.Parse(json);
        return format == "yaml" ? Yaml.Of(document.RootElement) : Parse(format).Of(document.RootElement) + "\n";
    }

    /// <summary>Quotes around the template come from callers who start us without a shell.</summary>
    private static JsonPath Parse(string format)
    {
        var template = format[PathWord.Length..];
        return JsonPath.Parse(template.Length > 1 && template[0] == '\'' && template[^1] == '\'' ? template[1..^1] : template);
    }
}
