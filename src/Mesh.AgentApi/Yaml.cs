using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Mesh.AgentApi;

/// <summary>A JSON document as block YAML, as `-o yaml` of Cilium's tools gives it: members sorted, texts quoted only where YAML would
/// read them as something else.</summary>
public static class Yaml
{
    /// <summary>Ends with a line feed.</summary>
    public static string Of(JsonElement value)
    {
        var text = new StringBuilder();
        switch (value.ValueKind)
        {
            case JsonValueKind.Object when value.EnumerateObject().Any():
            case JsonValueKind.Array when value.GetArrayLength() > 0:
                Block(text, value, "", inline: false);
                break;
            default:
                text.Append(Scalar(value)).Append('\n');
                break;
        }
        return text.ToString();
    }

    /// <param name="inline">The cursor stands behind "- ": the first member goes there.</param>
    private static void Block(StringBuilder text, JsonElement value, string indent, bool inline)
    {
        if (value.ValueKind == JsonValueKind.Array)
        {
            foreach (var item in value.EnumerateArray())
            {
                text.Append(inline ? "" : indent).Append("- ");
                inline = false;
                if (IsBlock(item))
                    Block(text, item, indent + "  ", inline: true);
                else
                    text.Append(Scalar(item)).Append('\n');
            }
            return;
        }
        foreach (var member in value.EnumerateObject().OrderBy(member => member.Name, StringComparer.Ordinal))
        {
            text.Append(inline ? "" : indent).Append(Quoted(member.Name)).Append(':');
            inline = false;
            if (!IsBlock(member.Value))
            {
                text.Append(' ').Append(Scalar(member.Value)).Append('\n');
                continue;
            }
            text.Append('\n');
            // A list stands below its name, not further in, as Go's writer has it.
            Block(text, member.Value, member.Value.ValueKind == JsonValueKind.Array ? indent : indent + "  ", inline: false);
        }
    }

    private static bool IsBlock(JsonElement value) => value.ValueKind == JsonValueKind.Object ? value.EnumerateObject().Any()
        : value.ValueKind == JsonValueKind.Array && value.GetArrayLength() > 0;

    private static string Scalar(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "{}",
        JsonValueKind.Array => "[]",
        JsonValueKind.String => Quoted(value.GetString()!),
        _ => value.GetRawText(),
    };

    private static string Quoted(string text)
    {
        if (text.Any(char.IsControl))
            return JsonSerializer.Serialize(text, AgentApiJson.Wire.String);
        return IsPlain(text) ? text : $"'{text.Replace("'", "''", StringComparison.Ordinal)}'";
    }

    /// <summary>Whether YAML reads it as this very text: no sign of another meaning, no number, no truth, no time.</summary>
    private static bool IsPlain(string text)
    {
        if (text.Length == 0 || text[0] is ' ' || text[^1] is ' ' or ':' || "-?:,[]{}#&*!|>'\"%@`.~=<+0123456789".Contains(text[0]))
            return text.Length > 0 && IsPlainWord(text);
        if (text.Contains(": ", StringComparison.Ordinal) || text.Contains(" #", StringComparison.Ordinal))
            return false;
        return text.ToLowerInvariant() is not ("true" or "false" or "yes" or "no" or "on" or "off" or "null" or "y" or "n");
    }

    /// <summary>Begins with a digit or a sign and is plain all the same: an address or an ID such as 10.1.0.1 or 172.18.0.3:2379.</summary>
    private static bool IsPlainWord(string text) => char.IsAsciiDigit(text[0]) && text.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '/')
        && text.Count(c => c == '.') > 1 && !double.TryParse(text, CultureInfo.InvariantCulture, out _);
}
