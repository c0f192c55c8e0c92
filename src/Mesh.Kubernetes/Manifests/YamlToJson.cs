using System.Buffers;
using System.Globalization;
using System.Numerics;
using System.Text.Json;
using YamlDotNet.Core;
using YamlDotNet.Core.Events;

namespace Mesh.Kubernetes.Manifests;

/// <summary>
/// Turns one YAML document into JSON, so that YAML and JSON manifests are decoded by one serializer. Scalars follow the core schema
/// of YAML 1.2: what is quoted or a block is text, `yes` and `on` are text, `012` is twelve. Each scalar's place in the JSON is
/// remembered with its YAML line: the serializer complains by byte offset, a person mends by line.
/// </summary>
internal sealed class YamlToJson : IDisposable
{
    /// <summary>Aliases multiply: a document that would grow beyond this is refused.</summary>
    private const int MaxJsonBytes = 64 << 20;

    /// <summary>As deep as System.Text.Json reads.</summary>
    private const int MaxDepth = 60;

    private readonly Parser _yaml;
    private readonly ArrayBufferWriter<byte> _buffer = new(1024);
    private readonly Utf8JsonWriter _json;
    private readonly Dictionary<AnchorName, (int Start, int End)> _anchors = [];
    private readonly List<(int Offset, int Line)> _lines = [];

    private YamlToJson(string text)
    {
        _yaml = new Parser(new StringReader(text));
        _json = new Utf8JsonWriter(_buffer, new JsonWriterOptions { SkipValidation = true });
    }

    /// <summary>Converts the one document in the text.</summary>
    /// <returns>Null when the document is empty.</returns>
    /// <exception cref="ManifestException">It is not one sound YAML document; the line counts from the text's first.</exception>
    public static JsonText? Convert(string text)
    {
        using var converter = new YamlToJson(text);
        try
        {
            return converter.Document();
        }
        catch (YamlException e)
        {
            throw new ManifestException((int)e.Start.Line, $"is not YAML: {FirstLine(e.Message)}");
        }
        catch (Exception e) when (e is not ManifestException)
        {
            // The scanner trips over some broken texts with exceptions of its own making.
            throw new ManifestException(Line(converter._yaml.Current), $"is not YAML: {FirstLine(e.Message)}");
        }
    }

    public void Dispose() => _json.Dispose();

    private JsonText? Document()
    {
        _yaml.Consume<StreamStart>();
        if (!_yaml.TryConsume<DocumentStart>(out _))
            return null;
        if (_yaml.Accept<Scalar>(out var only) && only.Style == ScalarStyle.Plain && only.Value.Length == 0)
            return null;
        Node(0);
        _yaml.Consume<DocumentEnd>();
        if (!_yaml.Accept<StreamEnd>(out var end))
            throw new ManifestException(Line(_yaml.Current ?? end), "goes on after its end: begin each document with ---");
        _json.Flush();
        return new JsonText(_buffer.WrittenMemory, _lines);
    }

    private void Node(int depth)
    {
        if (depth > MaxDepth)
            throw new ManifestException(Line(_yaml.Current), $"is nested deeper than {MaxDepth} levels");
        if (_yaml.TryConsume<AnchorAlias>(out var alias))
        {
            Alias(alias);
            return;
        }
        var anchor = _yaml.Accept<NodeEvent>(out var node) ? node.Anchor : AnchorName.Empty;
        _json.Flush();
        var start = _buffer.WrittenCount;
        if (_yaml.TryConsume<MappingStart>(out var mapping))
            Mapping(mapping, depth);
        else if (_yaml.TryConsume<SequenceStart>(out _))
            Sequence(depth);
        else
            Scalar(_yaml.Consume<Scalar>());
        if (anchor.IsEmpty)
            return;
        _json.Flush();
        // A separator may stand between the end of the previous value and ours: it is no part of the value.
        var written = _buffer.WrittenSpan[start..];
        var skip = written.IndexOfAnyExcept((byte)',', (byte)':');
        _anchors[anchor] = (start + skip, _buffer.WrittenCount);
    }

    private void Alias(AnchorAlias alias)
    {
        if (!_anchors.TryGetValue(alias.Value, out var place))
            throw new ManifestException(Line(alias), $"uses the alias *{alias.Value} before its anchor is complete");
        if (_buffer.WrittenCount + (place.End - place.Start) > MaxJsonBytes)
            throw new ManifestException(Line(alias), $"grows beyond {MaxJsonBytes >> 20} MiB by its aliases");
        Mark(alias);
        _json.WriteRawValue(_buffer.WrittenSpan[place.Start..place.End].ToArray(), skipInputValidation: true);
        _json.Flush();
    }

    private void Mapping(MappingStart start, int depth)
    {
        Mark(start);
        _json.WriteStartObject();
        var names = new HashSet<string>(StringComparer.Ordinal);
        while (!_yaml.TryConsume<MappingEnd>(out _))
        {
            if (!_yaml.TryConsume<Scalar>(out var name))
                throw new ManifestException(Line(_yaml.Current), "has a key that is not a plain word");
            if (name.Value == "<<" && name.Style == ScalarStyle.Plain)
                throw new ManifestException(Line(name), "uses a merge key (<<): write the fields out");
            if (!names.Add(name.Value))
                throw new ManifestException(Line(name), $"has the key '{name.Value}' twice: remove one");
            _json.WritePropertyName(name.Value);
            Node(depth + 1);
        }
        _json.WriteEndObject();
    }

    private void Sequence(int depth)
    {
        _json.WriteStartArray();
        while (!_yaml.TryConsume<SequenceEnd>(out _))
            Node(depth + 1);
        _json.WriteEndArray();
    }

    private void Scalar(Scalar scalar)
    {
        Mark(scalar);
        if (IsText(scalar))
            _json.WriteStringValue(scalar.Value);
        else
            Plain(scalar.Value);
        if (_buffer.WrittenCount > MaxJsonBytes)
            throw new ManifestException(Line(scalar), $"is larger than {MaxJsonBytes >> 20} MiB");
    }

    private static bool IsText(Scalar scalar)
    {
        if (scalar.Tag.IsEmpty)
            return scalar.Style != ScalarStyle.Plain;
        return scalar.Tag.IsNonSpecific || scalar.Tag.Value is not
            ("tag:yaml.org,2002:int" or "tag:yaml.org,2002:float" or "tag:yaml.org,2002:bool" or "tag:yaml.org,2002:null");
    }

    private void Plain(string text)
    {
        switch (text)
        {
            case "" or "~" or "null" or "Null" or "NULL":
                _json.WriteNullValue();
                break;
            case "true" or "True" or "TRUE":
                _json.WriteBooleanValue(true);
                break;
            case "false" or "False" or "FALSE":
                _json.WriteBooleanValue(false);
                break;
            default:
                if (JsonNumber(text) is { } number)
                    _json.WriteRawValue(number, skipInputValidation: true);
                else
                    _json.WriteStringValue(text);
                break;
        }
    }

    /// <summary>The number as JSON writes it, or null when the core schema sees text (.inf and .nan too: JSON has none).</summary>
    internal static string? JsonNumber(string text)
    {
        if (text.StartsWith("0o", StringComparison.Ordinal))
            return Based(text.AsSpan(2), 8);
        if (text.StartsWith("0x", StringComparison.Ordinal))
            return Based(text.AsSpan(2), 16);
        var rest = text.AsSpan();
        var sign = rest[0] == '-' ? "-" : "";
        if (rest[0] is '-' or '+')
            rest = rest[1..];
        var whole = Digits(ref rest);
        var hasPoint = rest is ['.', ..];
        if (hasPoint)
            rest = rest[1..];
        var fraction = hasPoint ? Digits(ref rest) : "";
        if (whole.Length == 0 && fraction.Length == 0)
            return null;
        var exponent = "";
        if (rest is ['e' or 'E', ..])
        {
            rest = rest[1..];
            var exponentSign = rest is ['-', ..] ? "-" : "+";
            if (rest is ['-' or '+', ..])
                rest = rest[1..];
            var digits = Digits(ref rest);
            if (digits.Length == 0)
                return null;
            exponent = $"e{exponentSign}{digits}";
        }
        if (rest.Length > 0)
            return null;
        var significant = whole.TrimStart('0');
        var integer = significant.Length == 0 ? "0" : significant;
        return hasPoint ? $"{sign}{integer}.{(fraction.Length == 0 ? "0" : fraction)}{exponent}" : $"{sign}{integer}{exponent}";
    }

    private static string Digits(ref ReadOnlySpan<char> rest)
    {
        var end = rest.IndexOfAnyExceptInRange('0', '9');
        var digits = (end < 0 ? rest : rest[..end]).ToString();
        rest = rest[digits.Length..];
        return digits;
    }

    private static string? Based(ReadOnlySpan<char> digits, int radix)
    {
        if (digits.IsEmpty || digits.Length > 64)
            return null;
        BigInteger value = 0;
        foreach (var c in digits)
        {
            var digit = char.IsAsciiHexDigit(c) ? System.Convert.ToInt32(c.ToString(), 16) : radix;
            if (digit >= radix)
                return null;
            value = value * radix + digit;
        }
        return value.ToString(CultureInfo.InvariantCulture);
    }

    private void Mark(ParsingEvent at)
    {
        _json.Flush();
        _lines.Add((_buffer.WrittenCount, Line(at)));
    }

    private static int Line(ParsingEvent? at) => (int)(at?.Start.Line ?? 1);

    private static string FirstLine(string message) => message.Split('\n', 2)[0].TrimEnd('\r', '.');
}

/// <summary>A document as JSON, with the source line of each scalar.</summary>
/// <param name="Utf8">The JSON text.</param>
/// <param name="Lines">Byte offset → 1-based line of the source, ascending.</param>
internal sealed record JsonText(ReadOnlyMemory<byte> Utf8, IReadOnlyList<(int Offset, int Line)> Lines)
{
    /// <summary>Source line of whatever stands at this byte of the JSON.</summary>
    public int LineAt(long offset)
    {
        var line = 1;
        foreach (var mark in Lines)
        {
            if (mark.Offset > offset)
                break;
            line = mark.Line;
        }
        return line;
    }
}

/// <summary>A document that cannot be taken over. The message goes on after "document N".</summary>
internal sealed class ManifestException(int line, string message) : Exception(message)
{
    /// <summary>1-based, counted from the document's first line.</summary>
    public int Line { get; } = line;
}
