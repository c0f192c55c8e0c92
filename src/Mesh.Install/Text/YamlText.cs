using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.Kubernetes.Manifests;

namespace Mesh.Install.Text;

/// <summary>YAML to trees and back.</summary>
public static class YamlText
{
    private const int Indent = 2;

    /// <summary>What has a meaning in YAML at some place or other.</summary>
    private static readonly SearchValues<char> Signs = SearchValues.Create("\"'#&*!|>%@`{}[],\\=");

    /// <param name="name">What is read, for messages.</param>
    /// <returns>Null for an empty document.</returns>
    /// <exception cref="InstallException">It is not one YAML document; name and line are told.</exception>
    public static object? Parse(string text, string name) => Tree.FromJson(ParseJson(text, name));

    /// <inheritdoc cref="Parse"/>
    public static JsonNode? ParseJson(string text, string name)
    {
        try
        {
            return YamlToJson.Convert(text) is { } json ? JsonNode.Parse(json.Utf8.Span) : null;
        }
        catch (ManifestException e)
        {
            throw new InstallException($"{name}: line {e.Line} {e.Message}", e);
        }
    }

    /// <inheritdoc cref="Parse"/>
    public static Map ParseMap(string text, string name) => Parse(text, name) switch
    {
        null => [],
        Map map => map,
        var other => throw new InstallException($"{name}: must be a map of names, and is {Tree.KindOf(other)}"),
    };

    /// <summary>The documents of a stream, without those that are empty or hold only comments.</summary>
    public static IEnumerable<string> Documents(string text)
    {
        var document = new StringBuilder();
        foreach (var line in text.Split('\n'))
        {
            if (line.TrimEnd() == "---")
            {
                if (HasContent(document.ToString()))
                    yield return document.ToString();
                document.Clear();
            }
            else
            {
                document.Append(line).Append('\n');
            }
        }
        if (HasContent(document.ToString()))
            yield return document.ToString();
    }

    /// <summary>In blocks, names in order; without a newline at the end, as Helm's toYaml: whoever writes it somewhere ends the line.</summary>
    public static string Write(object? value)
    {
        var text = new StringBuilder();
        Node(text, value, 0, inline: false);
        return text.ToString().Trim('\n');
    }

    private static bool HasContent(string document) =>
        document.Split('\n').Any(line => line.Trim().Length > 0 && line.TrimStart()[0] != '#');

    /// <param name="inline">The value begins behind "- " or "name:" on the line.</param>
    private static void Node(StringBuilder text, object? value, int depth, bool inline)
    {
        switch (value)
        {
            case Map { Count: > 0 } map:
                foreach (var (name, inner) in map)
                {
                    if (!inline)
                        text.Append(' ', depth);
                    inline = false;
                    text.Append(Scalar(name)).Append(':');
                    Member(text, inner, depth);
                }
                break;
            case IReadOnlyList<object?> { Count: > 0 } items:
                foreach (var item in items)
                {
                    if (!inline)
                        text.Append(' ', depth);
                    inline = false;
                    text.Append("- ");
                    Node(text, item, depth + Indent, inline: true);
                }
                break;
            // At the top there is no indentation, and a block needs some.
            case string content when depth > 0 && IsBlock(content):
                Block(text, content, depth);
                break;
            default:
                text.Append(value switch { Map => "{}", IReadOnlyList<object?> => "[]", _ => Scalar(value) }).Append('\n');
                break;
        }
    }

    private static void Member(StringBuilder text, object? value, int depth)
    {
        switch (value)
        {
            case Map { Count: > 0 }:
                text.Append('\n');
                Node(text, value, depth + Indent, inline: false);
                break;
            case IReadOnlyList<object?> { Count: > 0 }:
                text.Append('\n');
                Node(text, value, depth, inline: false);
                break;
            default:
                text.Append(' ');
                Node(text, value, depth + Indent, inline: true);
                break;
        }
    }

    /// <summary>Lines that can be written as they are: more than one, and the last one ended.</summary>
    private static bool IsBlock(string content) => content.Contains('\n', StringComparison.Ordinal) && content[0] is not (' ' or '\n')
        && content.EndsWith('\n') && !content.EndsWith("\n\n", StringComparison.Ordinal)
        && !content.AsSpan().ContainsAnyExceptInRange(' ', '~', '\n');

    private static bool ContainsAnyExceptInRange(this ReadOnlySpan<char> text, char low, char high, char also)
    {
        foreach (var c in text)
        {
            if ((c < low || c > high) && c != also)
                return true;
        }
        return false;
    }

    private static void Block(StringBuilder text, string content, int depth)
    {
        text.Append("|\n");
        foreach (var line in content.TrimEnd('\n').Split('\n'))
            text.Append(line.Length > 0 ? new string(' ', depth) : "").Append(line).Append('\n');
    }

    private static string Scalar(object? value) => value switch
    {
        null => "null",
        string content => IsPlain(content) ? content : Quote(content),
        double number => number.ToString("R", CultureInfo.InvariantCulture),
        _ => Tree.Print(value),
    };

    /// <summary>As JSON writes it, which YAML reads too.</summary>
    internal static string Quote(string content) => $"\"{JsonEncodedText.Encode(content, JavaScriptEncoder.UnsafeRelaxedJsonEscaping)}\"";

    private static bool IsPlain(string content)
    {
        if (content.Length == 0 || content[0] is ' ' or '-' or '?' or ':' || content[^1] is ' ' or ':')
            return false;
        return !content.AsSpan().ContainsAnyExceptInRange(' ', '~', ' ') && !content.AsSpan().ContainsAny(Signs)
            && !content.Contains(": ", StringComparison.Ordinal) && !IsOther(content);
    }

    /// <summary>Words that some YAML takes for something other than text.</summary>
    private static bool IsOther(string content) =>
        content.ToUpperInvariant() is "TRUE" or "FALSE" or "NULL" or "~" or "YES" or "NO" or "ON" or "OFF" or "Y" or "N" or ".INF" or ".NAN" or "<<"
        || char.IsAsciiDigit(content[0]) || content[0] is '.' or '+';
}
