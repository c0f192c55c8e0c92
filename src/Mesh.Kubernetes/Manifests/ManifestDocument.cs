using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Manifests;

/// <summary>
/// One document of a manifest file, decoded: its sound objects, and what is wrong with the others. A document is an object, or a
/// List of them; kinds that the mesh does not read are neither. Pure: the same text always gives the same document.
/// </summary>
internal sealed class ManifestDocument
{
    private readonly List<ManifestObject> _objects = [];
    private readonly List<ManifestFault> _faults = [];
    private readonly JsonText _json;

    private ManifestDocument(JsonText json) => _json = json;

    public IReadOnlyList<ManifestObject> Objects => _objects;

    public IReadOnlyList<ManifestFault> Faults => _faults;

    public static ManifestDocument DecodeYaml(string text)
    {
        try
        {
            var json = YamlToJson.Convert(text);
            return json is null ? new ManifestDocument(new JsonText(default, [])) : Decode(json);
        }
        catch (ManifestException e)
        {
            return Broken(e.Line, e.Message);
        }
    }

    public static ManifestDocument DecodeJson(ReadOnlyMemory<byte> utf8)
    {
        var lines = new List<(int, int)> { (0, 1) };
        for (var at = 0; at < utf8.Length; at++)
        {
            if (utf8.Span[at] == '\n')
                lines.Add((at + 1, lines.Count + 1));
        }
        try
        {
            return Decode(new JsonText(utf8, lines));
        }
        catch (JsonException e)
        {
            return Broken((int)(e.LineNumber ?? 0) + 1, $"is not JSON: {Reason(e)}");
        }
    }

    private static ManifestDocument Broken(int line, string message)
    {
        var broken = new ManifestDocument(new JsonText(default, []));
        broken._faults.Add(new ManifestFault(line, Subject: null, message));
        return broken;
    }

    private static ManifestDocument Decode(JsonText json)
    {
        var document = new ManifestDocument(json);
        using var parsed = JsonDocument.Parse(json.Utf8);
        document.Take(parsed.RootElement, "");
        return document;
    }

    private void Take(JsonElement element, string item)
    {
        var line = _json.LineAt(OffsetOf(element));
        if (element.ValueKind != JsonValueKind.Object)
        {
            Fault(line, null, $"{item}is not an object: begin it with apiVersion, kind and metadata");
            return;
        }
        if (Text(element, "kind") is not { Length: > 0 } kind || Text(element, "apiVersion") is not { Length: > 0 } apiVersion)
        {
            Fault(line, null, $"{item}has no apiVersion or no kind: add both");
            return;
        }
        if (kind.EndsWith("List", StringComparison.Ordinal) && element.TryGetProperty("items", out var items)
            && items.ValueKind == JsonValueKind.Array)
        {
            var number = 0;
            foreach (var member in items.EnumerateArray())
                Take(member, $"item {++number} ");
        }
        else if (KindOf(apiVersion, kind) is { } known)
        {
            TakeObject(element, known, item);
        }
    }

    private void TakeObject(JsonElement element, ObjectKind kind, string item)
    {
        var raw = JsonMarshal.GetRawUtf8Value(element);
        var subject = NameOf(element, kind);
        KubernetesObject decoded;
        try
        {
            decoded = (KubernetesObject)JsonSerializer.Deserialize(raw, Decoder(kind))!;
        }
        catch (JsonException e)
        {
            var line = _json.LineAt(OffsetOf(element) + OffsetIn(raw, e) - 1);
            Fault(line, subject, $"{item}{Named(kind, subject)}: {JsonFaults.Describe(e)}", kind);
            return;
        }
        decoded = Placed(decoded);
        if (ObjectRules.Check(decoded) is { } fault)
        {
            Fault(_json.LineAt(OffsetOf(element)), subject, $"{item}{Named(kind, subject)}: {fault}", kind);
            return;
        }
        var digest = SHA256.HashData(raw);
        _objects.Add(new ManifestObject(decoded, MemoryMarshal.Read<UInt128>(digest), _json.LineAt(OffsetOf(element))));
    }

    /// <summary>A namespaced object without a namespace lives in "default", as kubectl has it; the others have none.</summary>
    private static KubernetesObject Placed(KubernetesObject decoded)
    {
        var place = ObjectRules.IsNamespaced(decoded.Kind)
            ? string.IsNullOrEmpty(decoded.Metadata.Namespace) ? "default" : decoded.Metadata.Namespace
            : null;
        return place == decoded.Metadata.Namespace ? decoded : decoded with { Metadata = decoded.Metadata with { Namespace = place } };
    }

    /// <summary>Which object is meant, as far as a broken one still says so.</summary>
    private static ObjectKey? NameOf(JsonElement element, ObjectKind kind)
    {
        if (!element.TryGetProperty("metadata", out var metadata) || metadata.ValueKind != JsonValueKind.Object
            || !metadata.TryGetProperty("name", out var name))
            return null;
        var text = name.ValueKind switch
        {
            JsonValueKind.String => name.GetString()!,
            JsonValueKind.Number => name.GetRawText(),
            _ => "",
        };
        var place = ObjectRules.IsNamespaced(kind) ? Text(metadata, "namespace") is { Length: > 0 } given ? given : "default" : "";
        return text.Length == 0 ? null : new ObjectKey(kind, place, text);
    }

    private static string Named(ObjectKind kind, ObjectKey? subject) => subject?.ToString() ?? $"{kind} without a name";

    private static string? Text(JsonElement element, string name) =>
        element.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static ObjectKind? KindOf(string apiVersion, string kind) => (apiVersion, kind) switch
    {
        ("v1", "Service") => ObjectKind.Service,
        ("v1", "Namespace") => ObjectKind.Namespace,
        ("discovery.k8s.io/v1", "EndpointSlice") => ObjectKind.EndpointSlice,
        ("cilium.io/v2", "CiliumNode") => ObjectKind.CiliumNode,
        ("cilium.io/v2", "CiliumIdentity") => ObjectKind.CiliumIdentity,
        ("cilium.io/v2", "CiliumEndpoint") => ObjectKind.CiliumEndpoint,
        ("multicluster.x-k8s.io/v1alpha1" or "multicluster.x-k8s.io/v1beta1", "ServiceExport") => ObjectKind.ServiceExport,
        ("networking.k8s.io/v1", "NetworkPolicy") => ObjectKind.NetworkPolicy,
        ("cilium.io/v2", "CiliumNetworkPolicy") => ObjectKind.CiliumNetworkPolicy,
        ("cilium.io/v2", "CiliumClusterwideNetworkPolicy") => ObjectKind.CiliumClusterwideNetworkPolicy,
        _ => null,
    };

    private static JsonTypeInfo Decoder(ObjectKind kind) => kind switch
    {
        ObjectKind.Service => ObjectJson.Default.Service,
        ObjectKind.EndpointSlice => ObjectJson.Default.EndpointSlice,
        ObjectKind.Namespace => ObjectJson.Default.Namespace,
        ObjectKind.CiliumNode => ObjectJson.Default.CiliumNode,
        ObjectKind.CiliumIdentity => ObjectJson.Default.CiliumIdentity,
        ObjectKind.ServiceExport => ObjectJson.Default.ServiceExport,
        ObjectKind.NetworkPolicy => ObjectJson.Default.NetworkPolicy,
        ObjectKind.CiliumNetworkPolicy => ObjectJson.Default.CiliumNetworkPolicy,
        ObjectKind.CiliumClusterwideNetworkPolicy => ObjectJson.Default.CiliumClusterwideNetworkPolicy,
        _ => ObjectJson.Default.CiliumEndpoint,
    };

    private int OffsetOf(JsonElement element) =>
        _json.Utf8.Span.Overlaps(JsonMarshal.GetRawUtf8Value(element), out var offset) ? offset : 0;

    private static int OffsetIn(ReadOnlySpan<byte> raw, JsonException e)
    {
        var start = 0;
        for (var line = e.LineNumber ?? 0; line > 0; line--)
            start += raw[start..].IndexOf((byte)'\n') + 1;
        return start + (int)(e.BytePositionInLine ?? 0);
    }

    /// <summary>The parser's reason without its trailing position, which we give in lines of our own.</summary>
    private static string Reason(JsonException e) => e.Message.Split(". LineNumber:", 2)[0].Split(". Path:", 2)[0].TrimEnd('.');

    private void Fault(int line, ObjectKey? subject, string message, ObjectKind? kind = null) =>
        _faults.Add(new ManifestFault(line, subject, message) { Kind = kind });
}

/// <param name="Digest">Of the JSON it was decoded from: equal digests are equal objects.</param>
/// <param name="Line">1-based, counted from the document's first line.</param>
internal sealed record ManifestObject(KubernetesObject Object, UInt128 Digest, int Line);

/// <param name="Line">1-based, counted from the document's first line.</param>
/// <param name="Subject">The object that is broken; null when the document does not say.</param>
/// <param name="Message">Fault and mend; goes on after "document N, line M: ".</param>
internal sealed record ManifestFault(int Line, ObjectKey? Subject, string Message)
{
    /// <summary>What kind of object is broken; null when the document does not say.</summary>
    public ObjectKind? Kind { get; init; }
}
