using System.Text;
using YamlDotNet.RepresentationModel;

namespace Mesh.ClusterMesh.Door.Access;

/// <summary>The users file of kvstore contract §4.2: `users:` with a `name` and a `role` each.</summary>
internal static class UsersFile
{
    /// <summary>User name → role name.</summary>
    /// <exception cref="InvalidDataException">Not a users file; the message says where.</exception>
    /// <exception cref="YamlDotNet.Core.YamlException">Not YAML.</exception>
    public static Dictionary<string, string> Parse(ReadOnlySpan<byte> content)
    {
        var yaml = new YamlStream();
        using (var text = new StringReader(Encoding.UTF8.GetString(content)))
            yaml.Load(text);
        var users = new Dictionary<string, string>(StringComparer.Ordinal);
        // A file cut short must not shut everybody out.
        if (yaml.Documents.Count == 0)
            throw new InvalidDataException("it is empty: write 'users: []' for no users");
        if (yaml.Documents[0].RootNode is not YamlMappingNode root || !root.Children.TryGetValue("users", out var list))
            throw new InvalidDataException("a users file begins with 'users:'");
        if (list is YamlScalarNode { Value: null or "" or "null" or "~" })
            return users;
        if (list is not YamlSequenceNode entries)
            throw new InvalidDataException("'users' must be a list");
        foreach (var entry in entries)
        {
            var name = Field(entry, "name");
            if (!users.TryAdd(name, Field(entry, "role")))
                throw new InvalidDataException($"user {name} is there twice");
        }
        return users;
    }

    private static string Field(YamlNode entry, string field) =>
        entry is YamlMappingNode map && map.Children.TryGetValue(field, out var node) && node is YamlScalarNode { Value: { Length: > 0 } value }
            ? value
            : throw new InvalidDataException($"each user needs a '{field}' (line {entry.Start.Line})");
}
