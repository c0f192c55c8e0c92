using System.Globalization;
using System.Net.Http.Headers;
using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization.Metadata;

namespace Mesh.Kubernetes.Api;

/// <summary>
/// An API server, as one talks to it: get, list in pages, create, update, patch, apply, delete, watch, logs, exec, discovery; over any
/// resource, with a model (<see cref="KubeResource{T}"/>) or raw (<see cref="KubeResource.Raw"/>). Every failure is a
/// <see cref="KubeApiException"/>. Safe for any number of callers; they share connections. Namespaces are null for cluster-wide resources,
/// and in lists for all namespaces.
/// </summary>
public sealed partial class KubeClient : IDisposable
{
    private readonly KubeTransport _transport;
    private readonly KubeClientOptions _options;

    public KubeClient(KubeConfiguration configuration, KubeClientOptions? options = null)
    {
        Configuration = configuration;
        _options = options ?? new KubeClientOptions();
        _transport = new KubeTransport(configuration, _options);
    }

    public KubeConfiguration Configuration { get; }

    public void Dispose() => _transport.Dispose();

    /// <exception cref="KubeApiException">NotFound and others.</exception>
    public async Task<T> GetAsync<T>(KubeResource<T> resource, string? ns, string name, CancellationToken cancellation)
        where T : class => Decode(await CallAsync(HttpMethod.Get, resource.PathOf(ns, name), cancellation).ConfigureAwait(false), resource.Type,
            resource, name);

    /// <summary>Null when there is no such object.</summary>
    public async Task<T?> FindAsync<T>(KubeResource<T> resource, string? ns, string name, CancellationToken cancellation)
        where T : class
    {
        try
        {
            return await GetAsync(resource, ns, name, cancellation).ConfigureAwait(false);
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            return null;
        }
    }

    /// <summary>Page after page, all of one moment. A token that grew too old on the way is <see cref="KubeFault.Gone"/>: list anew.</summary>
    public async IAsyncEnumerable<KubeList<T>> ListPagesAsync<T>(KubeResource<T> resource, string? ns, KubeSelection? selection,
        [EnumeratorCancellation] CancellationToken cancellation)
        where T : class
    {
        selection ??= KubeSelection.All;
        string? next = null;
        do
        {
            var query = Query(("limit", selection.PageSize.ToString(CultureInfo.InvariantCulture)), ("labelSelector", selection.LabelSelector),
                ("fieldSelector", selection.FieldSelector), ("continue", next));
            var path = resource.PathOf(ns) + query;
            var page = ReadPage(await CallAsync(HttpMethod.Get, path, cancellation).ConfigureAwait(false), resource, path);
            next = page.Continue;
            yield return page;
        }
        while (next is not null);
    }

    /// <summary>All of them. One that its model cannot take is a <see cref="KubeFault.BadAnswer"/>; to go on without it, list in pages.</summary>
    public async Task<IReadOnlyList<T>> ListAsync<T>(KubeResource<T> resource, string? ns, CancellationToken cancellation, KubeSelection? selection = null)
        where T : class
    {
        var all = new List<T>();
        await foreach (var page in ListPagesAsync(resource, ns, selection, cancellation).ConfigureAwait(false))
        {
            foreach (var item in page.Items)
                all.Add(item.Object ?? throw new KubeApiException(KubeFault.BadAnswer, $"{resource.Kind} {item.Name}: {item.Fault}"));
        }
        return all;
    }

    /// <exception cref="KubeApiException">AlreadyExists, Invalid and others.</exception>
    public async Task<T> CreateAsync<T>(KubeResource<T> resource, string? ns, T subject, CancellationToken cancellation, KubeWrite? write = null)
        where T : class
    {
        var path = resource.PathOf(ns, name: null) + QueryOf(write);
        return Decode(await SendAsync(HttpMethod.Post, path, Encode(resource, subject), "application/json", cancellation).ConfigureAwait(false),
            resource.Type, resource, "");
    }

    /// <summary>Replaces the object, or its status. With metadata.resourceVersion set only that version: otherwise
    /// <see cref="KubeFault.Conflict"/>.</summary>
    public async Task<T> UpdateAsync<T>(KubeResource<T> resource, string? ns, string name, T subject, CancellationToken cancellation,
        KubeWrite? write = null)
        where T : class
    {
        var path = resource.PathOf(ns, name, write?.Subresource) + QueryOf(write);
        return Decode(await SendAsync(HttpMethod.Put, path, Encode(resource, subject), "application/json", cancellation).ConfigureAwait(false),
            resource.Type, resource, name);
    }

    /// <summary>Changes the object as the patch says, and returns it as it is then.</summary>
    public async Task<T> PatchAsync<T>(KubeResource<T> resource, string? ns, string name, KubePatch patch, CancellationToken cancellation,
        KubeWrite? write = null)
        where T : class
    {
        var path = resource.PathOf(ns, name, write?.Subresource) + QueryOf(write);
        var body = JsonSerializer.SerializeToUtf8Bytes(patch.Body, KubeJson.Default.JsonNode);
        return Decode(await SendAsync(HttpMethod.Patch, path, body, patch.ContentType, cancellation).ConfigureAwait(false), resource.Type, resource,
            name);
    }

    /// <summary>Server-side apply: creates the object or takes over the fields that it names, and gives up those it named before.</summary>
    /// <param name="subject">With metadata.name; apiVersion and kind are added.</param>
    /// <param name="force">Take fields from other managers; without, theirs are a <see cref="KubeFault.Conflict"/>.</param>
    public Task<T> ApplyAsync<T>(KubeResource<T> resource, string? ns, string name, T subject, string fieldManager, CancellationToken cancellation,
        bool force = true, bool dryRun = false, string? subresource = null)
        where T : class => PatchAsync(resource, ns, name, KubePatch.Apply(Tagged(resource, subject)), cancellation,
            new KubeWrite { FieldManager = fieldManager, Force = force, DryRun = dryRun, Subresource = subresource });

    /// <summary>True when there was such an object; with finalizers it may still be there for a while.</summary>
    /// <exception cref="KubeApiException">Conflict when a precondition of <paramref name="delete"/> does not hold, and others.</exception>
    public async Task<bool> DeleteAsync(KubeResource resource, string? ns, string name, CancellationToken cancellation, KubeDelete? delete = null)
    {
        try
        {
            await SendAsync(HttpMethod.Delete, resource.PathOf(ns, name), DeleteBody(delete ?? KubeDelete.Plain), "application/json", cancellation)
                .ConfigureAwait(false);
            return true;
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            return false;
        }
    }

    /// <summary>Deletes all that the selection names.</summary>
    public async Task DeleteAllAsync(KubeResource resource, string? ns, KubeSelection selection, CancellationToken cancellation, KubeDelete? delete = null)
    {
        var path = resource.PathOf(ns) + Query(("labelSelector", selection.LabelSelector), ("fieldSelector", selection.FieldSelector));
        await SendAsync(HttpMethod.Delete, path, DeleteBody(delete ?? KubeDelete.Plain), "application/json", cancellation).ConfigureAwait(false);
    }

    /// <summary>What /version says: the cheapest way of learning whether the server is there.</summary>
    public async Task<KubeVersion> GetVersionAsync(CancellationToken cancellation)
    {
        var body = await CallAsync(HttpMethod.Get, "/version", cancellation).ConfigureAwait(false);
        try
        {
            return JsonSerializer.Deserialize(body, KubeJson.Default.KubeVersion) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new KubeApiException(KubeFault.BadAnswer, $"{Configuration.Server} does not answer like an API server: {e.Message}", e);
        }
    }

    /// <summary>Any path of the server as text: "/readyz", "/openapi/v2".</summary>
    public async Task<string> GetTextAsync(string path, CancellationToken cancellation) =>
        System.Text.Encoding.UTF8.GetString(await CallAsync(HttpMethod.Get, path, cancellation).ConfigureAwait(false));

    /// <summary>All resources of one group and version, subresources left out. None when the server has no such group or version.</summary>
    public async Task<IReadOnlyList<KubeResource>> DiscoverAsync(string apiVersion, CancellationToken cancellation)
    {
        var (group, version) = apiVersion.Split('/') is [var g, var v] ? (g, v) : ("", apiVersion);
        try
        {
            var path = group.Length == 0 ? $"/api/{version}" : $"/apis/{group}/{version}";
            var body = await CallAsync(HttpMethod.Get, path, cancellation).ConfigureAwait(false);
            var list = JsonSerializer.Deserialize(body, KubeJson.Default.ApiResourceList);
            return [.. (list?.Resources ?? []).Where(one => one is { Name: not null, Kind: not null } && !one.Name.Contains('/', StringComparison.Ordinal))
                .Select(one => new KubeResource(group, version, one.Name!, one.Kind!, one.Namespaced))];
        }
        catch (KubeApiException e) when (e.Fault == KubeFault.NotFound)
        {
            return [];
        }
        catch (JsonException e)
        {
            throw new KubeApiException(KubeFault.BadAnswer, $"discovery of {apiVersion}: the answer is no JSON: {e.Message}", e);
        }
    }

    /// <summary>The resource of an object that says apiVersion and kind; null when the server has none.</summary>
    public async Task<KubeResource?> ResolveAsync(string apiVersion, string kind, CancellationToken cancellation) =>
        KubeResources.Of(apiVersion, kind)
            ?? (await DiscoverAsync(apiVersion, cancellation).ConfigureAwait(false)).FirstOrDefault(resource => resource.Kind == kind);

    private Task<byte[]> CallAsync(HttpMethod method, string path, CancellationToken cancellation) =>
        _transport.CallAsync(method, path, null, cancellation);

    private Task<byte[]> SendAsync(HttpMethod method, string path, byte[] body, string contentType, CancellationToken cancellation) =>
        _transport.CallAsync(method, path, () =>
        {
            var content = new ByteArrayContent(body);
            content.Headers.ContentType = new MediaTypeHeaderValue(contentType);
            return content;
        }, cancellation);

    private static JsonObject Tagged<T>(KubeResource<T> resource, T subject)
        where T : class
    {
        var node = JsonSerializer.SerializeToNode(subject, resource.Type)!.AsObject();
        node["apiVersion"] = resource.ApiVersion;
        node["kind"] = resource.Kind;
        return node;
    }

    private static byte[] Encode<T>(KubeResource<T> resource, T subject)
        where T : class => JsonSerializer.SerializeToUtf8Bytes(Tagged(resource, subject), KubeJson.Default.JsonNode);

    private static T Decode<T>(byte[] body, JsonTypeInfo<T> type, KubeResource resource, string name)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(body, type) ?? throw new JsonException("null");
        }
        catch (JsonException e)
        {
            throw new KubeApiException(KubeFault.BadAnswer,
                $"{resource.Kind} {name}: the answer cannot be taken: {Objects.JsonFaults.Describe(e)} ({KubeConfiguration.OneLine(e.Message)})", e);
        }
    }

    private KubeList<T> ReadPage<T>(byte[] body, KubeResource<T> resource, string path)
        where T : class
    {
        try
        {
            using var parsed = JsonDocument.Parse(body);
            var root = parsed.RootElement;
            if (root.ValueKind != JsonValueKind.Object || !root.TryGetProperty("metadata", out var metadata)
                || metadata.ValueKind != JsonValueKind.Object)
                throw new JsonException("it is no list");
            var items = new List<KubeItem<T>>();
            // An empty list may come as null.
            if (root.TryGetProperty("items", out var members) && members.ValueKind == JsonValueKind.Array)
            {
                foreach (var member in members.EnumerateArray())
                    items.Add(ItemReading.Item(member, resource.Type));
            }
            var next = ItemReading.Text(metadata, "continue");
            return new KubeList<T>(items, ItemReading.Text(metadata, "resourceVersion"), next.Length == 0 ? null : next);
        }
        catch (JsonException e)
        {
            throw _transport.Translate(e, HttpMethod.Get, path, late: false, CancellationToken.None)!;
        }
    }

    private static byte[] DeleteBody(KubeDelete delete)
    {
        var body = new JsonObject { ["apiVersion"] = "v1", ["kind"] = "DeleteOptions" };
        if (delete.Propagation is { } propagation)
            body["propagationPolicy"] = propagation;
        if (delete.GracePeriodSeconds is { } seconds)
            body["gracePeriodSeconds"] = seconds;
        if (delete.Uid is not null || delete.ResourceVersion is not null)
            body["preconditions"] = new JsonObject { ["uid"] = delete.Uid, ["resourceVersion"] = delete.ResourceVersion };
        if (delete.DryRun)
            body["dryRun"] = new JsonArray("All");
        return JsonSerializer.SerializeToUtf8Bytes(body, KubeJson.Default.JsonObject);
    }

    private static string QueryOf(KubeWrite? write) => write is null
        ? ""
        : Query(("fieldManager", write.FieldManager), ("force", write.Force ? "true" : null), ("dryRun", write.DryRun ? "All" : null));

    private static string Query(params ReadOnlySpan<(string Name, string? Value)> parameters)
    {
        var query = "";
        foreach (var (name, value) in parameters)
        {
            if (!string.IsNullOrEmpty(value))
                query += $"{(query.Length == 0 ? '?' : '&')}{name}={Uri.EscapeDataString(value)}";
        }
        return query;
    }
}
