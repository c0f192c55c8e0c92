using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Mesh.ClusterMesh.Wire.Json;

/// <summary>Writes one record as Go's encoding/json does: compact, maps sorted by key, empty collections as the record's own table
/// says.</summary>
internal static class WireWriter
{
    // Quotes as \" and letters as they are, like Go; readers do not care how the rest is escaped.
    private static readonly JsonWriterOptions Options = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static byte[] Write<T>(T record, Action<Utf8JsonWriter, T> write)
    {
        var buffer = new ArrayBufferWriter<byte>(512);
        using (var writer = new Utf8JsonWriter(buffer, Options))
            write(writer, record);
        return buffer.WrittenSpan.ToArray();
    }

    public static IEnumerable<KeyValuePair<string, T>> Sorted<T>(IReadOnlyDictionary<string, T> map) =>
        map.OrderBy(pair => pair.Key, StringComparer.Ordinal);

    /// <summary>An object; null as null.</summary>
    public static void WriteTextMap(this Utf8JsonWriter writer, string name, IReadOnlyDictionary<string, string>? map)
    {
        if (map is null)
        {
            writer.WriteNull(name);
            return;
        }
        writer.WriteStartObject(name);
        foreach (var (key, value) in Sorted(map))
            writer.WriteString(key, value);
        writer.WriteEndObject();
    }
}
