using System.Buffers.Text;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Wire.Json;

/// <summary>
/// Reads JSON the way Go's encoding/json fills a struct, because every other reader of these bytes does: unknown fields are
/// skipped, names match whatever their case, a repeated member wins over the earlier one (a repeated map adds to it), null leaves
/// the value as it is, and a value of the wrong type or an integer out of range condemns the whole document.
/// Each Read method takes the next value; a document that cannot be read ends in <see cref="RejectedRecordException"/> or
/// <see cref="JsonException"/>, never in anything else.
/// </summary>
internal ref struct GoJsonReader
{
    // Go stops at 10,000 levels too.
    private static readonly JsonReaderOptions Options = new() { MaxDepth = 10_000 };

    private readonly StringCache? _strings;
    private Utf8JsonReader _reader;
    private ReadOnlySpan<byte> _name;
    private bool _nameIsForeign;
    private bool _valueIsCurrent;

    public GoJsonReader(ReadOnlySpan<byte> json, StringCache? strings)
    {
        _reader = new Utf8JsonReader(json, Options);
        _strings = strings;
    }

    /// <summary>True at an object, whose fields <see cref="NextField"/> gives; false for null.</summary>
    public bool ReadObject() => ReadStart(JsonTokenType.StartObject, "an object");

    /// <summary>True at an array, whose items <see cref="NextItem"/> gives; false for null.</summary>
    public bool ReadArray() => ReadStart(JsonTokenType.StartArray, "an array");

    private bool ReadStart(JsonTokenType start, string wanted)
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.Null)
            return false;
        if (_reader.TokenType != start)
            throw WrongType(wanted);
        _name = default;
        return true;
    }

    /// <summary>Steps to the next field of the current object; its value must be read or skipped before the next call.</summary>
    public bool NextField()
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.EndObject)
            return false;
        _name = _reader.ValueIsEscaped ? Encoding.UTF8.GetBytes(CurrentText()) : _reader.ValueSpan;
        _nameIsForeign = !Ascii.IsValid(_name);
        return true;
    }

    /// <summary>True when the current field is the one of this name (ASCII), by Go's case folding.</summary>
    public readonly bool Is(ReadOnlySpan<byte> field) =>
        _name.Length == field.Length ? _name.SequenceEqual(field) || Ascii.EqualsIgnoreCase(_name, field)
        : _name.Length > field.Length && _nameIsForeign && FoldedEquals(_name, field);

    /// <summary>The same without folding: for the few fields that another spelling of theirs stands beside.</summary>
    public readonly bool IsExactly(ReadOnlySpan<byte> field) => _name.SequenceEqual(field);

    // Two letters outside ASCII fold into it, and make the name longer: U+017F to s, U+212A to k.
    private static bool FoldedEquals(ReadOnlySpan<byte> name, ReadOnlySpan<byte> field)
    {
        var at = 0;
        foreach (var wanted in field)
        {
            var rest = name[Math.Min(at, name.Length)..];
            var lower = wanted | 0x20;
            if (lower == 's' && rest.StartsWith("\u017f"u8))
                at += 2;
            else if (lower == 'k' && rest.StartsWith("\u212a"u8))
                at += 3;
            else if (!rest.IsEmpty && Ascii.EqualsIgnoreCase(rest[..1], [wanted]))
                at++;
            else
                return false;
        }
        return at == name.Length;
    }

    /// <summary>The current field's name as text: a map key.</summary>
    public readonly string FieldName() => _strings?.Get(_name) ?? Encoding.UTF8.GetString(_name);

    public bool NextItem()
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.EndArray)
            return false;
        _valueIsCurrent = true;
        return true;
    }

    public void Skip()
    {
        Advance();
        _reader.Skip();
    }

    /// <summary>After the document nothing but white space may follow.</summary>
    public void End()
    {
        if (_reader.Read())
            throw new RejectedRecordException("something follows the JSON document");
    }

    public bool ReadBool(bool current)
    {
        Advance();
        return _reader.TokenType switch
        {
            JsonTokenType.True => true,
            JsonTokenType.False => false,
            JsonTokenType.Null => current,
            _ => throw WrongType("true or false"),
        };
    }

    public bool? ReadNullableBool()
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.Null)
            return null;
        _valueIsCurrent = true;
        return ReadBool(false);
    }

    /// <summary>An integer from 0 to <paramref name="max"/>, written with digits only: 7.0, 7e0 and "7" are not one.</summary>
    public uint ReadUnsigned(uint max, uint current)
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.Null)
            return current;
        if (_reader.TokenType != JsonTokenType.Number)
            throw WrongType("an integer");
        var digits = _reader.ValueSpan;
        if (!Utf8Parser.TryParse(digits, out uint value, out var consumed) || consumed != digits.Length || digits[0] == '-' || value > max)
            throw new RejectedRecordException($"{Field()} is {Quoted.Text(digits)}, not an integer from 0 to {max}");
        return value;
    }

    /// <summary>A string that differs in nearly every record.</summary>
    public string ReadText(string current) => ReadText(current, cached: false);

    /// <summary>A string that many records share.</summary>
    public string ReadSharedText(string current) => ReadText(current, cached: true);

    private string ReadText(string current, bool cached)
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.Null)
            return current;
        if (_reader.TokenType != JsonTokenType.String)
            throw WrongType("a string");
        if (_reader.ValueIsEscaped)
            return CurrentText();
        return cached && _strings is not null ? _strings.Get(_reader.ValueSpan) : Encoding.UTF8.GetString(_reader.ValueSpan);
    }

    /// <summary>IP text in Go's rendering, "" when unset.</summary>
    public string ReadIp(string current, bool shared = false)
    {
        var text = ReadText(current, shared);
        if (text.Length == 0)
            return text;
        if (!IpAddr.TryParse(text, out var address))
            throw new RejectedRecordException($"{Field()} {Quoted.Text(text)} is not an IP address");
        Span<char> canonical = stackalloc char[45];
        canonical = canonical[..address.Format(canonical)];
        return canonical.SequenceEqual(text) ? text : new string(canonical);
    }

    /// <summary>Bytes as base64 text, or, as Go allows, as an array of numbers. Null stays null.</summary>
    public string? ReadBase64()
    {
        Advance();
        if (_reader.TokenType == JsonTokenType.Null)
            return null;
        _valueIsCurrent = true;
        if (_reader.TokenType != JsonTokenType.StartArray)
            return ReadSharedText("");
        var bytes = new List<byte>();
        ReadArray();
        while (NextItem())
            bytes.Add((byte)ReadUnsigned(byte.MaxValue, 0));
        return Convert.ToBase64String([.. bytes]);
    }

    /// <summary>A map of strings; null makes it null, a repeated member adds to it.</summary>
    public Dictionary<string, string>? ReadTextMap(Dictionary<string, string>? current)
    {
        if (!ReadObject())
            return null;
        current ??= new Dictionary<string, string>(StringComparer.Ordinal);
        while (NextField())
            current[FieldName()] = ReadSharedText("");
        return current;
    }

    private void Advance()
    {
        if (_valueIsCurrent)
            _valueIsCurrent = false;
        else if (!_reader.Read())
            throw new RejectedRecordException("the JSON document ends too early");
    }

    /// <summary>The current string or name with its escapes resolved. Go replaces what is not Unicode instead of failing.</summary>
    private readonly string CurrentText()
    {
        var raw = _reader.ValueSpan;
        var text = new StringBuilder(raw.Length);
        for (var slash = raw.IndexOf((byte)'\\'); slash >= 0; slash = raw.IndexOf((byte)'\\'))
        {
            text.Append(Encoding.UTF8.GetString(raw[..slash]));
            var escape = (char)raw[slash + 1];
            raw = raw[(slash + 2)..];
            if (escape == 'u')
            {
                text.Append((char)ushort.Parse(raw[..4], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture));
                raw = raw[4..];
                continue;
            }
            text.Append(escape switch { 'b' => '\b', 'f' => '\f', 'n' => '\n', 'r' => '\r', 't' => '\t', _ => escape });
        }
        text.Append(Encoding.UTF8.GetString(raw));
        // A round trip replaces lone surrogates, which \u can spell, by U+FFFD.
        return Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text.ToString()));
    }

    private readonly RejectedRecordException WrongType(string wanted) =>
        new($"{Field()} must be {wanted}, not {TypeName(_reader.TokenType)}");

    private readonly string Field() => _name.IsEmpty ? "the value" : Quoted.Text(_name);

    private static string TypeName(JsonTokenType token) => token switch
    {
        JsonTokenType.StartObject => "an object",
        JsonTokenType.StartArray => "an array",
        JsonTokenType.String => "a string",
        JsonTokenType.Number => "a number",
        JsonTokenType.True or JsonTokenType.False => "a boolean",
        _ => "null",
    };
}
