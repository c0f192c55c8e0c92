using System.Text;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace Mesh.Joining.Files;

/// <summary>
/// The users file of a door (`users: [{name, role}]`), edited as text: what others wrote there, comments too, stays as it is. The text is
/// read again after the edit; an edit that did not do what it should is an error and nothing is written.
/// </summary>
internal static class UsersFile
{
    private const string Role = "remote";

    public static bool Has(byte[] content, string user) => Read(content, "").Any(entry => entry.Name == user);

    /// <exception cref="JoinException">The file is not a users file.</exception>
    public static byte[] With(byte[]? content, string user, string path)
    {
        content ??= [];
        var entries = Read(content, path);
        if (entries.FirstOrDefault(entry => entry.Name == user) is { } present)
        {
            return present.Role == Role ? content
                : throw new JoinException("users-file", $"{path}: user {user} has the role '{present.Role}': make it {Role}, or remove the entry");
        }
        var text = Encoding.UTF8.GetString(content);
        var addition = $"- name: {user}\n  role: {Role}\n";
        string edited;
        if (entries.Count > 0)
        {
            var last = entries[^1];
            var lines = Lines(text);
            var indent = new string(' ', Math.Max(0, (int)last.Column - 1));
            edited = string.Concat(lines.Take(last.EndLine)) is var head && head.EndsWith('\n') ? head : head + "\n";
            edited += string.Concat(Lines(addition).Select(line => indent + line)) + string.Concat(lines.Skip(last.EndLine));
        }
        else
        {
            // No users yet: keep the lines that are comments, replace "users: []" or "users:".
            var kept = Lines(text).Where(line => !line.TrimStart().StartsWith("users:", StringComparison.Ordinal)).ToList();
            if (kept.Count > 0 && !kept[^1].EndsWith('\n'))
                kept[^1] += "\n";
            edited = string.Concat(kept) + "users:\n" + addition;
        }
        return Checked(edited, path, [.. entries.Select(entry => entry.Name), user]);
    }

    /// <summary>Without the entry, if it is there.</summary>
    public static byte[] Without(byte[] content, string user, string path)
    {
        var entries = Read(content, path);
        if (entries.FirstOrDefault(entry => entry.Name == user) is not { } entry)
            return content;
        var lines = Lines(Encoding.UTF8.GetString(content));
        if (entries.Count == 1)
            lines = [.. lines.Select(line => line.TrimStart().StartsWith("users:", StringComparison.Ordinal) ? "users: []\n" : line)];
        var edited = string.Concat(lines.Take(entry.StartLine - 1)) + string.Concat(lines.Skip(entry.EndLine));
        return Checked(edited, path, entries.Where(other => other != entry).Select(other => other.Name));
    }

    private static byte[] Checked(string text, string path, IEnumerable<string> names)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        if (!Read(bytes, path).Select(entry => entry.Name).Order().SequenceEqual(names.Order()))
            throw new JoinException("users-file", $"{path} is written in a way that cannot be edited here: give each user two lines, "
                + "`- name: NAME` and `  role: remote`");
        return bytes;
    }

    private static List<string> Lines(string text)
    {
        var lines = new List<string>();
        for (var at = 0; at < text.Length;)
        {
            var end = text.IndexOf('\n', at);
            end = end < 0 ? text.Length : end + 1;
            lines.Add(text[at..end]);
            at = end;
        }
        return lines;
    }

    private static List<Entry> Read(byte[] content, string path)
    {
        var yaml = new YamlStream();
        try
        {
            using var text = new StringReader(Encoding.UTF8.GetString(content));
            yaml.Load(text);
        }
        catch (YamlException e)
        {
            throw new JoinException("users-file", $"{path}: {InWords.Of(e)}: mend the file first", e);
        }
        if (yaml.Documents.Count == 0)
            return [];
        if (yaml.Documents[0].RootNode is YamlScalarNode { Value: null or "" })
            return [];
        if (yaml.Documents[0].RootNode is not YamlMappingNode root || !root.Children.TryGetValue("users", out var list))
            throw new JoinException("users-file", $"{path}: a users file begins with 'users:'");
        if (list is YamlScalarNode { Value: null or "" or "null" or "~" })
            return [];
        if (list is not YamlSequenceNode sequence)
            throw new JoinException("users-file", $"{path}: 'users' must be a list");
        return [.. sequence.Select(node => EntryOf(node, path))];
    }

    private static Entry EntryOf(YamlNode node, string path)
    {
        if (node is not YamlMappingNode map)
            throw new JoinException("users-file", $"{path}: line {node.Start.Line}: a user has a name and a role");
        var last = (int)map.Children.SelectMany(pair => new[] { pair.Key.End.Line, pair.Value.End.Line }).Max();
        // The mapping begins behind its dash.
        return new Entry(Scalar(map, "name"), Scalar(map, "role"), (int)map.Start.Line, last, Math.Max(1, map.Start.Column - 2));
    }

    private static string Scalar(YamlMappingNode map, string name) =>
        map.Children.TryGetValue(name, out var node) && node is YamlScalarNode { Value: { } value } ? value : "";

    /// <param name="StartLine">Counted from 1, like <paramref name="EndLine"/>, which belongs to it.</param>
    private sealed record Entry(string Name, string Role, int StartLine, int EndLine, long Column);
}
