using System.Buffers.Binary;
using System.Text;
using System.Text.Json.Nodes;

namespace Mesh.KubeApi.Objects;

/// <summary>
/// Bodies that newer kubectls send as Kubernetes protobuf (application/vnd.kubernetes.protobuf) even where a server answers JSON: the
/// few kinds that are questions and options. Numbers of fields are those of the published .proto files; other kinds are refused (415).
/// </summary>
internal static class ProtobufBody
{
    public const string MediaType = "application/vnd.kubernetes.protobuf";

    private sealed record Field(string Name, Dictionary<int, Field>? Message = null, bool Many = false, bool Number = false);

    private static Dictionary<int, Field> Of(params (int Number, Field Field)[] fields) => fields.ToDictionary(pair => pair.Number, pair => pair.Field);

    private static readonly Dictionary<int, Field> Metadata = Of((1, new("name")), (2, new("generateName")), (3, new("namespace")));

    private static readonly Dictionary<int, Field> Resource = Of((1, new("namespace")), (2, new("verb")), (3, new("group")), (4, new("version")),
        (5, new("resource")), (6, new("subresource")), (7, new("name")));

    private static readonly Dictionary<int, Field> Question = Of((1, new("resourceAttributes", Resource)),
        (2, new("nonResourceAttributes", Of((1, new("path")), (2, new("verb"))))));

    private static readonly Dictionary<int, Field> DeleteOptions = Of((1, new("gracePeriodSeconds", Number: true)),
        (2, new("preconditions", Of((1, new("uid")), (2, new("resourceVersion"))))), (4, new("propagationPolicy")), (5, new("dryRun", Many: true)));

    private static readonly Dictionary<string, Dictionary<int, Field>> Kinds = new()
    {
        ["SelfSubjectAccessReview"] = Of((1, new("metadata", Metadata)), (2, new("spec", Question))),
        ["SelfSubjectRulesReview"] = Of((1, new("metadata", Metadata)), (2, new("spec", Of((1, new("namespace")))))),
        ["SelfSubjectReview"] = Of((1, new("metadata", Metadata))),
        ["TokenRequest"] = Of((1, new("metadata", Metadata)), (2, new("spec", Of((1, new("audiences", Many: true)), (4, new("expirationSeconds", Number: true)),
            (3, new("boundObjectRef", Of((1, new("kind")), (2, new("apiVersion")), (3, new("name")), (4, new("uid"))))))))),
        ["Eviction"] = Of((1, new("metadata", Metadata)), (2, new("deleteOptions", DeleteOptions))),
        ["DeleteOptions"] = DeleteOptions,
        ["Scale"] = Of((1, new("metadata", Metadata)), (2, new("spec", Of((1, new("replicas", Number: true)))))),
    };

    /// <summary>The object as JSON; null when it is of a kind that is not read here.</summary>
    public static JsonObject? Read(ReadOnlySpan<byte> body)
    {
        if (!body.StartsWith("k8s\0"u8))
            throw KubeApiException.BadRequest("the body is no Kubernetes protobuf: its first four bytes are not \"k8s\\0\"");
        var (type, raw) = (default(JsonObject), default(byte[]));
        foreach (var (number, bytes, _) in Fields(body[4..].ToArray()))
        {
            if (number == 1)
                type = Message(bytes, Of((1, new("apiVersion")), (2, new("kind"))));
            else if (number == 2)
                raw = bytes;
        }
        if (!Kinds.TryGetValue(type.Str("kind") ?? "", out var fields))
            return null;
        var node = Message(raw ?? [], fields);
        node["apiVersion"] = type.Str("apiVersion");
        node["kind"] = type.Str("kind");
        return node;
    }

    private static JsonObject Message(byte[] bytes, Dictionary<int, Field> known)
    {
        var node = new JsonObject();
        foreach (var (number, value, varint) in Fields(bytes))
        {
            if (!known.TryGetValue(number, out var field))
                continue;
            JsonNode made = field.Message is { } inner ? Message(value, inner) : field.Number ? (long)varint : Encoding.UTF8.GetString(value);
            if (!field.Many)
                node[field.Name] = made;
            else if (node[field.Name] is JsonArray list)
                list.Add(made);
            else
                node[field.Name] = new JsonArray(made);
        }
        return node;
    }

    private static List<(int Number, byte[] Bytes, ulong Value)> Fields(byte[] bytes)
    {
        var fields = new List<(int, byte[], ulong)>();
        var at = 0;
        ulong Varint()
        {
            ulong value = 0;
            for (var shift = 0; ; shift += 7)
            {
                if (at >= bytes.Length || shift > 63)
                    throw KubeApiException.BadRequest("the protobuf body ends in the middle of a number");
                var one = bytes[at++];
                value |= (ulong)(one & 0x7f) << shift;
                if (one < 0x80)
                    return value;
            }
        }
        byte[] Take(ulong length)
        {
            if (length > (ulong)(bytes.Length - at))
                throw KubeApiException.BadRequest("the protobuf body ends in the middle of a field");
            at += (int)length;
            return bytes[(at - (int)length)..at];
        }
        while (at < bytes.Length)
        {
            var tag = Varint();
            switch (tag & 7)
            {
                case 0:
                    fields.Add(((int)(tag >> 3), [], Varint()));
                    break;
                case 1:
                    fields.Add(((int)(tag >> 3), [], BinaryPrimitives.ReadUInt64LittleEndian(Take(8))));
                    break;
                case 2:
                    fields.Add(((int)(tag >> 3), Take(Varint()), 0));
                    break;
                case 5:
                    fields.Add(((int)(tag >> 3), [], BinaryPrimitives.ReadUInt32LittleEndian(Take(4))));
                    break;
                default:
                    throw KubeApiException.BadRequest("the protobuf body has a field of an unknown wire type");
            }
        }
        return fields;
    }
}
