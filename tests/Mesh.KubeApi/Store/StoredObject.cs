using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace Mesh.KubeApi.Store;

/// <summary>
/// One version of one object, frozen: nobody changes <see cref="Node"/> after it has been stored; whoever wants to clones it.
/// Its JSON is made once, however many lists and watches send it.
/// </summary>
internal sealed class StoredObject
{
    /// <summary>Non-ASCII text goes out as it is.</summary>
    internal static readonly JsonSerializerOptions Plain = new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private byte[]? _rest;

    public StoredObject(ResourceType type, JsonObject node, long revision)
    {
        Type = type;
        Node = node;
        Revision = revision;
        var metadata = node["metadata"]!;
        Name = (string)metadata["name"]!;
        Namespace = (string?)metadata["namespace"] ?? "";
        Uid = (string?)metadata["uid"] ?? "";
    }

    public ResourceType Type { get; }

    public JsonObject Node { get; }

    public long Revision { get; }

    public string Name { get; }

    public string Namespace { get; }

    public string Uid { get; }

    public string Key => KeyOf(Namespace, Name);

    public bool Deleting => Node["metadata"]!["deletionTimestamp"] is not null;

    public static string KeyOf(string @namespace, string name) => @namespace == "" ? name : $"{@namespace}/{name}";

    /// <summary>The object's JSON without its opening brace, apiVersion and kind: `"metadata":{…},…}`.</summary>
    private byte[] Rest
    {
        get
        {
            if (_rest is { } ready)
                return ready;
            var bytes = new MemoryStream(512);
            using (var writer = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = Plain.Encoder }))
            {
                writer.WriteStartObject();
                foreach (var (name, value) in Node)
                {
                    if (name is "apiVersion" or "kind")
                        continue;
                    writer.WritePropertyName(name);
                    if (value is null)
                        writer.WriteNullValue();
                    else
                        value.WriteTo(writer, Plain);
                }
                writer.WriteEndObject();
            }
            return _rest = bytes.GetBuffer().AsSpan(1, (int)bytes.Length - 1).ToArray();
        }
    }

    /// <summary>Writes the object as the given version, with or without its apiVersion and kind.</summary>
    public void WriteTo(Stream output, string version, bool bare)
    {
        output.Write(bare ? "{"u8 : Encoding.UTF8.GetBytes($"{{\"kind\":\"{Type.Kind}\",\"apiVersion\":\"{Type.ApiVersion(version)}\","));
        output.Write(Rest);
    }

    /// <summary>A copy that may be changed, as the given version.</summary>
    public JsonObject Copy(string version)
    {
        var copy = (JsonObject)Node.DeepClone();
        copy["apiVersion"] = Type.ApiVersion(version);
        copy["kind"] = Type.Kind;
        return copy;
    }
}
