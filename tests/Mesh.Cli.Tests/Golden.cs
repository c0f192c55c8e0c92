using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Mesh.Cli.Tests;

/// <summary>What real Cilium answered and printed.</summary>
internal static class Golden
{
    public static string Text(string name) => File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "golden", "cilium-1.13.2", name));

    public static T Json<T>(string name, JsonTypeInfo<T> type) => JsonSerializer.Deserialize(Text(name), type)!;
}
