using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>
/// /openapi/v2 as kubectl reads it: which kinds are patched where and take dryRun and fieldValidation, and the schemas of CRDs. JSON, or
/// protobuf (the messages of the OpenAPI v2 description language, numbered by its published .proto) for clients that ask for it.
/// <para>Built-in kinds have no schemas here: clients then check nothing themselves and leave it to the server.</para>
/// </summary>
internal static class OpenApi
{
    private const string ProtobufType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

    public static async Task V2Async(HttpContext http, TypeRegistry types)
    {
        var document = Document(types);
        if (http.Request.Headers.Accept.ToString().Contains("proto-openapi", StringComparison.Ordinal))
            await Reply.BytesAsync(http, 200, Protobuf(document), ProtobufType);
        else
            await Reply.JsonAsync(http, 200, document);
    }

    private static JsonObject Document(TypeRegistry types)
    {
        var paths = new JsonObject();
        var definitions = new JsonObject();
        foreach (var type in types.All.Where(type => !type.CreateOnly))
        {
            foreach (var version in type.Versions)
            {
                var root = type.Group == "" ? $"/api/{version.Name}" : $"/apis/{type.Group}/{version.Name}";
                var collection = $"{root}/{(type.Namespaced ? "namespaces/{namespace}/" : "")}{type.Plural}";
                paths[$"{collection}/{{name}}"] = new JsonObject { ["patch"] = Operation(type, version.Name), ["put"] = Operation(type, version.Name) };
                paths[collection] = new JsonObject { ["post"] = Operation(type, version.Name) };
                if (version.Schema is null)
                    continue;
                var schema = Plain(version.Schema.Root);
                schema["x-kubernetes-group-version-kind"] = new JsonArray(Kind(type, version.Name));
                schema.Need("properties")["apiVersion"] = new JsonObject { ["type"] = "string" };
                schema.Need("properties")["kind"] = new JsonObject { ["type"] = "string" };
                schema.Need("properties")["metadata"] = new JsonObject { ["type"] = "object" };
                definitions[$"{string.Join('.', type.Group.Split('.').Reverse())}.{version.Name}.{type.Kind}"] = schema;
            }
        }
        return new JsonObject
        {
            ["swagger"] = "2.0",
            ["info"] = new JsonObject { ["title"] = "Kubernetes", ["version"] = "unversioned" },
            ["paths"] = paths,
            ["definitions"] = definitions,
        };
    }

    private static JsonObject Kind(ResourceType type, string version) => new() { ["group"] = type.Group, ["kind"] = type.Kind, ["version"] = version };

    private static JsonObject Operation(ResourceType type, string version) => new()
    {
        ["parameters"] = new JsonArray([.. new[] { "dryRun", "fieldManager", "fieldValidation", "force" }.Select(name => (JsonNode)new JsonObject
        {
            ["name"] = name,
            ["in"] = "query",
            ["type"] = name == "force" ? "boolean" : "string",
            ["uniqueItems"] = true,
        })]),
        ["responses"] = new JsonObject { ["200"] = new JsonObject { ["description"] = "OK" } },
        ["x-kubernetes-group-version-kind"] = Kind(type, version),
    };

    /// <summary>What of a structural schema the older description language can say: shapes, without rules.</summary>
    private static JsonObject Plain(JsonObject schema)
    {
        var plain = new JsonObject();
        if (schema.Bool("x-kubernetes-preserve-unknown-fields") == true || schema.Bool("x-kubernetes-int-or-string") == true || schema.Bool("nullable") == true)
            return plain;
        foreach (var name in new[] { "type", "description", "format" })
            if (schema[name] is { } value)
                plain[name] = value.DeepClone();
        if (schema["required"] is JsonArray required)
            plain["required"] = required.DeepClone();
        if (schema["items"] is JsonObject items)
            plain["items"] = Plain(items);
        if (schema["additionalProperties"] is JsonObject rest)
            plain["additionalProperties"] = Plain(rest);
        if (schema["properties"] is JsonObject properties)
            plain["properties"] = new JsonObject(properties.Where(pair => pair.Value is JsonObject)
                .Select(pair => KeyValuePair.Create<string, JsonNode?>(pair.Key, Plain((JsonObject)pair.Value!))));
        return plain;
    }

    private static MemoryStream Protobuf(JsonObject document)
    {
        var message = new Message();
        message.Text(1, "2.0");
        message.Sub(2, info =>
        {
            info.Text(1, "Kubernetes");
            info.Text(2, "unversioned");
        });
        message.Sub(8, paths =>
        {
            foreach (var (name, item) in document.Obj("paths")!)
                paths.Sub(2, path =>
                {
                    path.Text(1, name);
                    path.Sub(2, operations =>
                    {
                        foreach (var (verb, number) in new[] { ("put", 3), ("post", 4), ("patch", 8) })
                            if (item.Obj(verb) is { } operation)
                                operations.Sub(number, one => Operation(one, operation));
                    });
                });
        });
        message.Sub(9, definitions =>
        {
            foreach (var (name, schema) in document.Obj("definitions")!)
                definitions.Sub(1, named => Named(named, name, (JsonObject)schema!));
        });
        return message.Bytes;
    }

    private static void Operation(Message message, JsonObject operation)
    {
        foreach (var parameter in operation.Arr("parameters").Objects())
            message.Sub(8, item => item.Sub(1, one => one.Sub(2, nonBody => nonBody.Sub(3, query =>
            {
                query.Text(2, "query");
                query.Text(4, parameter.Str("name")!);
                query.Text(6, parameter.Str("type")!);
            }))));
        Extension(message, 13, operation["x-kubernetes-group-version-kind"]!);
    }

    private static void Extension(Message message, int number, JsonNode kind) => message.Sub(number, extension =>
    {
        extension.Text(1, "x-kubernetes-group-version-kind");
        // The value is YAML, of which JSON is a part.
        extension.Sub(2, any => any.Text(2, Json.Text(kind) + "\n"));
    });

    private static void Named(Message message, string name, JsonObject schema)
    {
        message.Text(1, name);
        message.Sub(2, one => Schema(one, schema));
    }

    private static void Schema(Message message, JsonObject schema)
    {
        if (schema.Str("format") is { } format)
            message.Text(2, format);
        if (schema.Str("description") is { } description)
            message.Text(4, description);
        foreach (var required in schema.Arr("required") ?? [])
            message.Text(19, (string)required!);
        if (schema["additionalProperties"] is JsonObject rest)
            message.Sub(21, item => item.Sub(1, one => Schema(one, rest)));
        if (schema.Str("type") is { } type)
            message.Sub(22, item => item.Text(1, type));
        if (schema["items"] is JsonObject items)
            message.Sub(23, item => item.Sub(1, one => Schema(one, items)));
        if (schema["properties"] is JsonObject properties)
            message.Sub(25, all =>
            {
                foreach (var (name, property) in properties)
                    all.Sub(1, named => Named(named, name, (JsonObject)property!));
            });
        if (schema["x-kubernetes-group-version-kind"] is { } kind)
            Extension(message, 31, kind);
    }

    /// <summary>A protobuf message being written: texts and messages are all that is needed.</summary>
    private sealed class Message
    {
        public MemoryStream Bytes { get; } = new();

        public void Text(int number, string text) => Put(number, Encoding.UTF8.GetBytes(text));

        public void Sub(int number, Action<Message> write)
        {
            var sub = new Message();
            write(sub);
            Put(number, sub.Bytes.GetBuffer().AsSpan(0, (int)sub.Bytes.Length));
        }

        private void Put(int number, ReadOnlySpan<byte> bytes)
        {
            Varint((uint)(number << 3 | 2));
            Varint((uint)bytes.Length);
            Bytes.Write(bytes);
        }

        private void Varint(uint value)
        {
            for (; value >= 0x80; value >>= 7)
                Bytes.WriteByte((byte)(value | 0x80));
            Bytes.WriteByte((byte)value);
        }
    }
}
