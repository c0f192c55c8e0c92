using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Mesh.AgentApi;

/// <summary>
/// The part of kubectl's JSONPath templates that people use with `-o jsonpath=…`: text, {"literals"}, {.member}, {['member']}, {[0]}, {[-1]},
/// {[1:3]}, {[*]}, {.*}, {..member}, filters {[?(@.member=="text")]} with == != &lt; &lt;= &gt; &gt;= or the member alone, and {range …}…{end}.
/// Several results are separated by a blank; a member that is not there gives nothing.
/// </summary>
public sealed class JsonPath
{
    /// <summary>The longer ones first.</summary>
    private static readonly string[] Signs = ["==", "!=", "<=", ">=", "<", ">"];

    private readonly List<Part> _parts;

    private JsonPath(List<Part> parts) => _parts = parts;

    private abstract record Part;

    private sealed record Literal(string Text) : Part;

    private sealed record Query(IReadOnlyList<Step> Steps) : Part;

    private sealed record Range(IReadOnlyList<Step> Steps, List<Part> Body) : Part;

    private delegate IEnumerable<JsonElement> Step(JsonElement value);

    /// <exception cref="FormatException">The template cannot be understood; the message names the place.</exception>
    public static JsonPath Parse(string template)
    {
        var reader = new Reader(template);
        var parts = Parts(reader, inRange: false);
        return new JsonPath(parts);
    }

    public string Of(JsonElement root) => Render(_parts, root);

    private static string Render(List<Part> parts, JsonElement current)
    {
        var text = new StringBuilder();
        foreach (var part in parts)
        {
            switch (part)
            {
                case Literal literal:
                    text.Append(literal.Text);
                    break;
                case Query query:
                    text.AppendJoin(' ', Walk(query.Steps, current).Select(Text));
                    break;
                case Range range:
                    foreach (var item in Walk(range.Steps, current))
                        text.Append(Render(range.Body, item));
                    break;
            }
        }
        return text.ToString();
    }

    private static IEnumerable<JsonElement> Walk(IReadOnlyList<Step> steps, JsonElement from) =>
        steps.Aggregate((IEnumerable<JsonElement>)[from], (values, step) => values.SelectMany(value => step(value)));

    private static string Text(JsonElement value) => value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();

    private static List<Part> Parts(Reader reader, bool inRange)
    {
        var parts = new List<Part>();
        while (!reader.IsAtEnd)
        {
            if (reader.TakeUntil('{') is { Length: > 0 } text)
            {
                parts.Add(new Literal(text));
                continue;
            }
            reader.Require('{');
            reader.SkipBlanks();
            if (reader.TakeWord("end"))
            {
                reader.Close();
                return inRange ? parts : throw reader.Fault("'end' without 'range'");
            }
            if (reader.TakeWord("range"))
            {
                var steps = Steps(reader);
                reader.Close();
                parts.Add(new Range(steps, Parts(reader, inRange: true)));
            }
            else if (reader.Next is '"' or '\'')
            {
                parts.Add(new Literal(reader.TakeQuoted()));
                reader.Close();
            }
            else
            {
                parts.Add(new Query(Steps(reader)));
                reader.Close();
            }
        }
        return inRange ? throw reader.Fault("'range' without {end}") : parts;
    }

    private static List<Step> Steps(Reader reader)
    {
        var steps = new List<Step>();
        reader.SkipBlanks();
        if (reader.Next is '$' or '@')
            reader.Skip();
        while (true)
        {
            if (reader.Take(".."))
            {
                var name = reader.TakeName();
                steps.Add(value => Everything(value).SelectMany(one => Member(one, name)));
            }
            else if (reader.Take(".*"))
                steps.Add(Children);
            else if (reader.Next == '.' && reader.After is '[' or '}' or ')')
                reader.Skip();
            else if (reader.Take("."))
            {
                var name = reader.TakeName();
                steps.Add(value => Member(value, name));
            }
            else if (reader.Take("["))
                steps.Add(Subscript(reader));
            else
                return steps;
        }
    }

    private static Step Subscript(Reader reader)
    {
        if (reader.Take("*]"))
            return Children;
        if (reader.Next is '"' or '\'')
        {
            var name = reader.TakeQuoted();
            reader.Require(']');
            return value => Member(value, name);
        }
        if (reader.Take("?("))
        {
            var filter = Filter(reader);
            reader.Require(')');
            reader.Require(']');
            return value => Children(value).Where(filter);
        }
        var from = reader.TakeNumber();
        if (reader.Take(":"))
        {
            var to = reader.TakeNumber();
            reader.Require(']');
            return value => Slice(value, from, to);
        }
        if (from is not { } index)
            throw reader.Fault("a number, '*', a quoted name or a filter must stand in []");
        reader.Require(']');
        return value => Slice(value, index, index == -1 ? null : index + 1);
    }

    private static Func<JsonElement, bool> Filter(Reader reader)
    {
        var left = Steps(reader);
        reader.SkipBlanks();
        var sign = Signs.FirstOrDefault(reader.Take);
        if (sign is null)
            return value => Walk(left, value).Any();
        reader.SkipBlanks();
        var right = reader.Next is '"' or '\'' ? reader.TakeQuoted() : reader.TakeUntil(')').Trim();
        return value => Walk(left, value).Any(found => Holds(Text(found), sign, right));
    }

    private static bool Holds(string left, string sign, string right)
    {
        var order = double.TryParse(left, CultureInfo.InvariantCulture, out var a) && double.TryParse(right, CultureInfo.InvariantCulture, out var b)
            ? a.CompareTo(b) : string.CompareOrdinal(left, right);
        return sign switch { "==" => order == 0, "!=" => order != 0, "<" => order < 0, "<=" => order <= 0, ">" => order > 0, _ => order >= 0 };
    }

    private static IEnumerable<JsonElement> Member(JsonElement value, string name) =>
        value.ValueKind == JsonValueKind.Object && value.TryGetProperty(name, out var member) ? [member] : [];

    private static IEnumerable<JsonElement> Children(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Array => value.EnumerateArray(),
        JsonValueKind.Object => value.EnumerateObject().Select(member => member.Value),
        _ => [],
    };

    private static IEnumerable<JsonElement> Everything(JsonElement value) => Children(value).SelectMany(Everything).Prepend(value);

    private static IEnumerable<JsonElement> Slice(JsonElement value, int? from, int? to)
    {
        if (value.ValueKind != JsonValueKind.Array)
            return [];
        var count = value.GetArrayLength();
        var (first, last) = (from ?? 0, to ?? count);
        first = first < 0 ? first + count : first;
        last = last < 0 ? last + count : last;
        return value.EnumerateArray().Where((_, i) => i >= first && i < last);
    }

    private sealed class Reader(string text)
    {
        private int _at;

        public bool IsAtEnd => _at >= text.Length;

        public char Next => IsAtEnd ? '\0' : text[_at];

        public char After => _at + 1 < text.Length ? text[_at + 1] : '\0';

        public void Skip() => _at++;

        public void SkipBlanks()
        {
            while (Next == ' ')
                _at++;
        }

        public bool Take(string word)
        {
            if (!text.AsSpan(Math.Min(_at, text.Length)).StartsWith(word, StringComparison.Ordinal))
                return false;
            _at += word.Length;
            return true;
        }

        /// <summary>A word with nothing of a name behind it.</summary>
        public bool TakeWord(string word)
        {
            var at = _at;
            if (Take(word) && !char.IsLetterOrDigit(Next))
                return true;
            _at = at;
            return false;
        }

        public string TakeUntil(char end)
        {
            var length = text.AsSpan(_at).IndexOf(end);
            var taken = length < 0 ? text[_at..] : text.Substring(_at, length);
            _at += taken.Length;
            return taken;
        }

        public string TakeName()
        {
            var start = _at;
            while (Next is not ('.' or '[' or '}' or ')' or ' ' or '=' or '!' or '<' or '>' or '\0'))
                _at++;
            return _at > start ? text[start.._at] : throw Fault("a name must stand behind '.'");
        }

        public int? TakeNumber()
        {
            var start = _at;
            while (Next == '-' || char.IsAsciiDigit(Next))
                _at++;
            return int.TryParse(text.AsSpan(start, _at - start), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) ? number : null;
        }

        public string TakeQuoted()
        {
            var quote = Next;
            Skip();
            var taken = new StringBuilder();
            while (Next != quote)
            {
                if (IsAtEnd)
                    throw Fault($"{quote} is not closed");
                var c = Next;
                Skip();
                if (c == '\\')
                {
                    c = Next switch { 'n' => '\n', 't' => '\t', 'r' => '\r', var other => other };
                    Skip();
                }
                taken.Append(c);
            }
            Skip();
            return taken.ToString();
        }

        public void Require(char wanted)
        {
            if (Next != wanted)
                throw Fault($"'{wanted}' is missing");
            Skip();
        }

        public void Close()
        {
            SkipBlanks();
            Require('}');
        }

        public FormatException Fault(string what) => new($"at character {Math.Min(_at, text.Length) + 1}: {what}");
    }
}
