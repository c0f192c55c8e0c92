using System.Buffers;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Mesh.Install.Text;

namespace Mesh.Install.Charts.Templates;

/// <summary>The functions that the chart's templates call, with the meaning that they have in Helm. What is not here is refused.</summary>
internal static class TemplateFunctions
{
    private delegate object? Function(IReadOnlyList<object?> arguments, IChartEnvironment environment);

    private static readonly Dictionary<string, (int Least, int Most, Function Run)> Known = new(StringComparer.Ordinal)
    {
        ["append"] = (2, 2, (a, _) => List(a[0]).Append(a[1]).ToList()),
        ["b64dec"] = (1, 1, (a, _) => Encoding.UTF8.GetString(Convert.FromBase64String(Text(a[0])))),
        ["b64enc"] = (1, 1, (a, _) => Convert.ToBase64String(Encoding.UTF8.GetBytes(Text(a[0])))),
        ["buildCustomCert"] = (2, 2, (a, _) => Pair(Decoded(a[0]), Decoded(a[1]))),
        ["concat"] = (1, 9, (a, _) => a.SelectMany(List).ToList()),
        ["default"] = (2, 2, (a, _) => IsTrue(a[1]) ? a[1] : a[0]),
        ["dict"] = (0, 40, (a, _) => a.Count % 2 == 0
            ? new Map(a.Chunk(2).Select(pair => KeyValuePair.Create(Text(pair[0]), pair[1])))
            : throw new ArgumentException("dict wants a value for each name")),
        ["eq"] = (2, 2, (a, _) => Tree.Same(a[0], a[1])),
        ["fail"] = (1, 1, (a, _) => throw new InstallException(Text(a[0]))),
        ["fromYaml"] = (1, 1, (a, _) => YamlText.ParseMap(Text(a[0]), "fromYaml")),
        ["genCA"] = (2, 2, (a, environment) => environment.MakeAuthority(Text(a[0]), Whole(a[1]))),
        ["genSignedCert"] = (5, 5, (a, environment) => environment.MakeCertificate(
            Text(a[0]), [.. List(a[1]).Select(Text)], [.. List(a[2]).Select(Text)], Whole(a[3]), AMap(a[4]))),
        // What is not there is "", as in Helm.
        ["get"] = (2, 2, (a, _) => AMap(a[0]).TryGetValue(Text(a[1]), out var value) ? value : ""),
        ["index"] = (2, 2, (a, _) => AMap(a[0]).TryGetValue(Text(a[1]), out var value) ? value : throw new ArgumentException($"there is no '{a[1]}'")),
        ["int"] = (1, 1, (a, _) => (long)Whole(a[0])),
        ["join"] = (2, 2, (a, _) => string.Join(Text(a[0]), List(a[1]).Select(Tree.Print))),
        ["kindIs"] = (2, 2, (a, _) => Text(a[0]) == GoKind(a[1])),
        ["list"] = (0, 40, (a, _) => a.ToList()),
        ["lookup"] = (4, 4, (a, environment) => environment.Lookup(Text(a[0]), Text(a[1]), Text(a[2]), Text(a[3]))),
        ["mergeOverwrite"] = (2, 2, (a, _) => AMap(a[0]).With(AMap(a[1]))),
        ["ne"] = (2, 2, (a, _) => !Tree.Same(a[0], a[1])),
        ["nindent"] = (2, 2, (a, _) => "\n" + Indented(Whole(a[0]), Text(a[1]))),
        ["not"] = (1, 1, (a, _) => !IsTrue(a[0])),
        ["printf"] = (1, 9, (a, _) => Printed(Text(a[0]), [.. a.Skip(1)])),
        ["quote"] = (1, 1, (a, _) => YamlText.Quote(Tree.Print(a[0]))),
        ["sha256sum"] = (1, 1, (a, _) => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(Text(a[0]))))),
        ["toJson"] = (1, 1, (a, _) => Json(a[0])),
        ["toString"] = (1, 1, (a, _) => Tree.Print(a[0])),
        ["toYaml"] = (1, 1, (a, _) => YamlText.Write(a[0])),
        ["trim"] = (1, 1, (a, _) => Text(a[0]).Trim()),
        ["trimSuffix"] = (2, 2, (a, _) => Text(a[0]).Length > 0 && Text(a[1]).EndsWith(Text(a[0]), StringComparison.Ordinal)
            ? Text(a[1])[..^Text(a[0]).Length]
            : Text(a[1])),
        ["trunc"] = (2, 2, (a, _) => Text(a[1]) is var text && text.Length > Whole(a[0]) ? text[..Whole(a[0])] : text),
        ["uniq"] = (1, 1, (a, _) => List(a[0]).Distinct().ToList()),
    };

    /// <exception cref="ArgumentException">It is not known, or its arguments make no sense.</exception>
    public static object? Call(string name, IReadOnlyList<object?> arguments, IChartEnvironment environment)
    {
        if (!Known.TryGetValue(name, out var function))
            throw new ArgumentException($"the function {name} is not among what this renderer knows");
        if (arguments.Count < function.Least || arguments.Count > function.Most)
            throw new ArgumentException($"{name} has {arguments.Count} arguments");
        try
        {
            return function.Run(arguments, environment);
        }
        catch (Exception e) when (e is ArgumentException or FormatException or InvalidCastException or OverflowException or CryptographicException)
        {
            throw new ArgumentException($"{name}: {e.Message}", e);
        }
    }

    /// <summary>Go's idea of it: what is zero or empty is false.</summary>
    public static bool IsTrue(object? value) => value switch
    {
        null => false,
        bool flag => flag,
        string text => text.Length > 0,
        long number => number != 0,
        double number => number != 0,
        Map map => map.Count > 0,
        IReadOnlyList<object?> items => items.Count > 0,
        _ => true,
    };

    private static string GoKind(object? value) => value switch
    {
        null => "invalid",
        Map => "map",
        string => "string",
        bool => "bool",
        long => "int64",
        double => "float64",
        _ => "slice",
    };

    private static string Text(object? value) => value as string ?? throw new ArgumentException($"wants text, and gets {Tree.KindOf(value)}");

    private static Map AMap(object? value) => value as Map ?? throw new ArgumentException($"wants a map, and gets {Tree.KindOf(value)}");

    private static IReadOnlyList<object?> List(object? value) =>
        value as IReadOnlyList<object?> ?? throw new ArgumentException($"wants a list, and gets {Tree.KindOf(value)}");

    private static int Whole(object? value) => value switch
    {
        long number => checked((int)number),
        double number when number == Math.Floor(number) => checked((int)number),
        string text => int.Parse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture),
        _ => throw new ArgumentException($"wants a whole number, and gets {Tree.KindOf(value)}"),
    };

    private static Map Pair(string certificate, string key) => new() { ["Cert"] = certificate, ["Key"] = key };

    private static string Decoded(object? value) => Encoding.UTF8.GetString(Convert.FromBase64String(Text(value)));

    /// <summary>Byte for byte as Go writes it: with names in order, and of what need not be escaped only what HTML would mistake.</summary>
    private static string Json(object? value)
    {
        var bytes = new ArrayBufferWriter<byte>();
        using (var writer = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            if (Tree.ToJson(value) is { } node)
                node.WriteTo(writer);
            else
                writer.WriteNullValue();
        }
        return Encoding.UTF8.GetString(bytes.WrittenSpan).Replace("<", "\\u003c", StringComparison.Ordinal)
            .Replace(">", "\\u003e", StringComparison.Ordinal).Replace("&", "\\u0026", StringComparison.Ordinal);
    }

    private static string Indented(int spaces, string text) =>
        string.Join('\n', text.Split('\n').Select(line => new string(' ', spaces) + line));

    private static string Printed(string format, IReadOnlyList<object?> values)
    {
        var text = new StringBuilder();
        var next = 0;
        for (var i = 0; i < format.Length; i++)
        {
            if (format[i] != '%')
            {
                text.Append(format[i]);
                continue;
            }
            var verb = ++i < format.Length ? format[i] : ' ';
            if (next == values.Count)
                throw new ArgumentException($"'{format}' has more places than there are values");
            text.Append(verb switch
            {
                's' => Text(values[next++]),
                'd' => Whole(values[next++]).ToString(CultureInfo.InvariantCulture),
                _ => throw new ArgumentException($"'%{verb}' is not among what this renderer knows"),
            });
        }
        return next == values.Count ? text.ToString() : throw new ArgumentException($"'{format}' has fewer places than there are values");
    }
}
