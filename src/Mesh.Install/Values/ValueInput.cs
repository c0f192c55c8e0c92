using System.Globalization;
using System.Text;
using Mesh.Install.Text;

namespace Mesh.Install.Values;

/// <summary>Values as people give them: files (-f), and NAME=VALUE (--set, --set-string) as Helm reads them.</summary>
public static class ValueInput
{
    /// <param name="files">Later ones win.</param>
    /// <param name="sets">Each NAME=VALUE[,NAME=VALUE]; {a,b} is a list; they win over the files.</param>
    /// <param name="strings">As sets, always text.</param>
    /// <exception cref="InstallException">A file cannot be read, or a word is no NAME=VALUE.</exception>
    public static Map Read(IEnumerable<string> files, IEnumerable<string> sets, IEnumerable<string> strings)
    {
        var values = new Map();
        foreach (var file in files)
            values = values.With(ReadFile(file));
        foreach (var set in sets)
            values = values.With(ReadSet(set, asText: false));
        foreach (var set in strings)
            values = values.With(ReadSet(set, asText: true));
        return values;
    }

    private static Map ReadFile(string file)
    {
        try
        {
            return YamlText.ParseMap(File.ReadAllText(file), file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InstallException($"values file {file} cannot be read: {e.Message}", e);
        }
    }

    private static Map ReadSet(string text, bool asText)
    {
        var values = new Map();
        foreach (var pair in Split(text, ','))
        {
            var sign = pair.IndexOf('=', StringComparison.Ordinal);
            if (sign <= 0)
                throw new InstallException($"--set {pair}: must be NAME=VALUE, such as cluster.id=1");
            var (name, value) = (pair[..sign], pair[(sign + 1)..]);
            // A dot behind a backslash belongs to the name.
            var path = Split(name, '.').Select(Plain).ToList();
            if (path.Exists(word => word.Length == 0 || word.Contains('[', StringComparison.Ordinal)))
                throw new InstallException($"--set {name}: must be names with dots between; lists are written {{a,b}}, or in a values file (-f)");
            var at = values;
            foreach (var word in path.SkipLast(1))
                at = at.TryGetValue(word, out var next) && next is Map inner ? inner : (Map)(at[word] = new Map())!;
            at[path[^1]] = Value(value, asText);
        }
        return values;
    }

    private static object? Value(string escaped, bool asText)
    {
        if (escaped.StartsWith('{') && escaped.EndsWith('}'))
            return escaped.Length == 2 ? new List<object?>() : Split(escaped[1..^1], ',').Select(item => Value(item, asText)).ToList();
        var text = Plain(escaped);
        if (asText)
            return text;
        return text switch
        {
            "true" => true,
            "false" => false,
            "null" => null,
            // Helm's way: a number that does not begin with 0.
            _ when (text == "0" || text.Length > 0 && text[0] != '0')
                && long.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) => number,
            _ => text,
        };
    }

    /// <summary>Without the backslashes that kept a sign from its meaning.</summary>
    private static string Plain(string text)
    {
        var plain = new StringBuilder();
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] == '\\' && i + 1 < text.Length)
                i++;
            plain.Append(text[i]);
        }
        return plain.ToString();
    }

    /// <summary>Not inside braces, and not behind a backslash, which stays.</summary>
    private static IEnumerable<string> Split(string text, char separator)
    {
        var part = new StringBuilder();
        var depth = 0;
        for (var i = 0; i < text.Length; i++)
        {
            if (text[i] == '\\' && i + 1 < text.Length)
            {
                part.Append(text[i]).Append(text[++i]);
                continue;
            }
            depth += text[i] switch { '{' => 1, '}' => -1, _ => 0 };
            if (text[i] == separator && depth == 0)
            {
                yield return part.ToString();
                part.Clear();
            }
            else
            {
                part.Append(text[i]);
            }
        }
        yield return part.ToString();
    }
}
