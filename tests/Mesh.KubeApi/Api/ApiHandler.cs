using System.Collections.Concurrent;
using System.Net;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Auth;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>One request from its first byte to its last: who, what, what goes wrong on purpose, may they, and then the work.</summary>
internal sealed class ApiHandler
{
    private const int BodyMax = 3 * 1024 * 1024;
    private readonly KubeApiOptions _options;
    private readonly KubeApiServer _server;
    private readonly Authority _authority;
    private readonly TokenBook _tokens;
    private readonly Access _access;
    private readonly Reviews _reviews;
    private readonly Discovery _discovery;
    private readonly ListWatch _listWatch;
    private readonly Subresources _subresources;
    private readonly ConcurrentDictionary<string, long> _counts = new();
    private long _requests;

    public ApiHandler(KubeApiOptions options, KubeApiServer server, Authority authority, TokenBook tokens)
    {
        _options = options;
        _server = server;
        _authority = authority;
        _tokens = tokens;
        Store = new ObjectStore(options.HistoryMax, options.WatchBacklogMax);
        Types = new TypeRegistry();
        Writes = new Writes(options, Store, Types, new Definitions(options, Store, Types), authority.Pem);
        _access = new Access(options, Store, authority, tokens);
        _reviews = new Reviews(_access);
        _discovery = new Discovery(options, Types);
        _listWatch = new ListWatch(Store, options);
        _subresources = new Subresources(options, server, Store, Writes, tokens);
    }

    public ObjectStore Store { get; }

    public TypeRegistry Types { get; }

    public Writes Writes { get; }

    public long RequestCount => Interlocked.Read(ref _requests);

    public IReadOnlyDictionary<string, long> RequestCounts => _counts.ToDictionary();

    public void Bootstrap(IPAddress address, int port) => Bootstrapping.Make(Writes, _options, address, port);

    /// <summary>Looks at every change from the first on, until stopped.</summary>
    public Task RunControllersAsync(CancellationToken stop)
    {
        var controllers = new Controllers(_options, Store, Types, Writes, _authority.Pem);
        return Task.Run(async () =>
        {
            using (controllers)
                await controllers.RunAsync(stop);
        }, CancellationToken.None);
    }

    public async Task HandleAsync(HttpContext http, CancellationToken serverStops)
    {
        Interlocked.Increment(ref _requests);
        using var cut = serverStops.Register(http.Abort);
        try
        {
            if (_options.FaultPath && http.Request.Path.StartsWithSegments("/_faults", StringComparison.Ordinal))
            {
                await FaultPath.HandleAsync(http, _server);
                return;
            }
            var request = ApiRequest.Read(http, await _access.AuthenticateAsync(http));
            _counts.AddOrUpdate(request.IsResource ? $"{request.Verb} {request.ResourceAndSub}" : $"get {request.Path}", 1, (_, count) => count + 1);
            await Disturbed.RunAsync(request, _server.Faults, () => AnswerAsync(request, serverStops), serverStops);
        }
        catch (KubeApiException told)
        {
            await Reply.ErrorAsync(http, told);
        }
        catch (Exception failure) when (http.RequestAborted.IsCancellationRequested || serverStops.IsCancellationRequested
            || failure is Microsoft.AspNetCore.Connections.ConnectionResetException)
        {
            // The client has gone, or was sent away; there is nobody to answer.
        }
        catch (BadHttpRequestException bad)
        {
            await Reply.ErrorAsync(http, bad.StatusCode == 413
                ? new KubeApiException(413, "RequestEntityTooLarge", "the request is too large") : KubeApiException.BadRequest(bad.Message));
        }
        catch (Exception failure)
        {
            await Reply.ErrorAsync(http, KubeApiException.Internal(failure.ToString()));
        }
    }

    private async Task AnswerAsync(ApiRequest request, CancellationToken serverStops)
    {
        _access.Authorize(request);
        if (!request.IsResource)
        {
            await DescribeAsync(request);
            return;
        }
        var type = Types.Find(request.Group, request.Version, request.Resource) ?? throw KubeApiException.NoSuchPath();
        if (type.Namespaced && request.Namespace == "" && request.Verb is not ("list" or "watch") && !type.CreateOnly)
            throw KubeApiException.MethodNotAllowed();
        if (!type.Namespaced && request.Namespace != "" && request.Resource != "namespaces")
            throw KubeApiException.NoSuchPath();
        if (type.CreateOnly)
        {
            if (request.Verb != "create")
                throw KubeApiException.MethodNotAllowed();
            await Reply.JsonAsync(request.Http, 201, _reviews.Answer(request, type, await BodyAsync(request)));
            return;
        }
        if (request.Sub is not ("" or "status"))
        {
            await _subresources.HandleAsync(request, type, serverStops);
            return;
        }
        if (request.Sub == "status" && !type.HasStatus(request.Version))
            throw KubeApiException.NoSuchPath();
        await (request.Verb switch
        {
            "get" => Reply.ObjectAsync(request, 200, Store.Get(type, Namespace(request, type), request.Name) ?? throw request.NotFound(), _options.Time),
            "list" => _listWatch.ListAsync(request, type),
            "watch" => _listWatch.WatchAsync(request, type, serverStops),
            "create" => CreateAsync(request, type),
            "update" => UpdateAsync(request, type),
            "patch" => PatchAsync(request, type),
            "delete" => DeleteAsync(request, type),
            "deletecollection" => DeleteCollectionAsync(request, type),
            _ => throw KubeApiException.MethodNotAllowed(),
        });
    }

    private static string Namespace(ApiRequest request, ResourceType type) => type.Namespaced ? request.Namespace : "";

    private async Task DescribeAsync(ApiRequest request)
    {
        var http = request.Http;
        var parts = request.Path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        switch (parts)
        {
            case ["healthz" or "livez" or "readyz", ..]:
                await Reply.TextAsync(http, 200, "ok");
                return;
            case ["openapi", "v2"]:
                await OpenApi.V2Async(http, Types);
                return;
        }
        var node = parts switch
        {
            ["version"] => _discovery.Version(),
            ["api"] => Discovery.Core($"{_options.Address}:{_server.Port}"),
            ["apis"] => _discovery.Groups(),
            ["api", "v1"] => _discovery.Resources("", "v1"),
            ["apis", var group] => _discovery.Group(group) is { } found ? With(found) : null,
            ["apis", var group, var version] => _discovery.Resources(group, version),
            [] => new JsonObject { ["paths"] = new JsonArray("/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/readyz", "/version") },
            _ => null,
        };
        if (node is null)
        {
            // A path that is not known at all is answered in plain text by the real one, too.
            await Reply.TextAsync(http, 404, "404 page not found\n");
            return;
        }
        await Reply.JsonAsync(http, 200, node);
    }

    private static JsonObject With(JsonObject group)
    {
        group.Insert(0, "apiVersion", "v1");
        group.Insert(0, "kind", "APIGroup");
        return group;
    }

    public static async Task<byte[]> BytesAsync(ApiRequest request)
    {
        if (request.Http.Request.ContentLength > BodyMax)
            throw new KubeApiException(413, "RequestEntityTooLarge", $"Request entity too large: limit is {BodyMax}");
        var body = new MemoryStream();
        await request.Http.Request.Body.CopyToAsync(body, request.Http.RequestAborted);
        return body.ToArray();
    }

    public static async Task<JsonObject> BodyAsync(ApiRequest request)
    {
        var mediaType = request.Http.Request.ContentType?.Split(';')[0] ?? "application/json";
        if (mediaType == ProtobufBody.MediaType)
            return ProtobufBody.Read(await BytesAsync(request)) ?? throw KubeApiException.UnsupportedMediaType("application/json, application/yaml");
        if (mediaType is not ("application/json" or "application/yaml" or "text/plain" or "application/octet-stream" or "*/*"))
            throw KubeApiException.UnsupportedMediaType("application/json, application/yaml");
        return Json.Parse(await BytesAsync(request)) as JsonObject ?? throw KubeApiException.BadRequest("the body must be an object");
    }

    private static Writes.Writer Writer(ApiRequest request) => new(request.FieldManager, request.DryRun, request.Sub, request.User.Name);

    private async Task CreateAsync(ApiRequest request, ResourceType type)
    {
        if (request.Name != "" || request.Sub != "")
            throw KubeApiException.MethodNotAllowed();
        var body = await BodyAsync(request);
        Strictness.Check(request, type, body);
        await Reply.ObjectAsync(request, 201, Writes.Create(type, request.Version, Namespace(request, type), body, Writer(request)), _options.Time);
    }

    private async Task UpdateAsync(ApiRequest request, ResourceType type)
    {
        if (request.Name == "")
            throw KubeApiException.MethodNotAllowed();
        var body = await BodyAsync(request);
        Strictness.Check(request, type, body);
        var stored = Writes.Update(type, request.Version, Namespace(request, type), request.Name, body, Writer(request));
        await Reply.ObjectAsync(request, 200, stored, _options.Time);
    }

    private async Task PatchAsync(ApiRequest request, ResourceType type)
    {
        if (request.Name == "")
            throw KubeApiException.MethodNotAllowed();
        var mediaType = request.Http.Request.ContentType?.Split(';')[0] ?? "";
        var patch = Json.Parse(await BytesAsync(request));
        if (mediaType is "application/apply-patch+yaml" or "application/apply-patch+cbor")
        {
            if (request.Query("fieldManager") == "")
                throw KubeApiException.Invalid("PatchOptions", "meta.k8s.io", "",
                    [KubeApiException.Cause.Required("fieldManager", "is required for apply patch")]);
            var intent = patch as JsonObject ?? throw KubeApiException.BadRequest("the body must be an object");
            var (applied, created) = Writes.Apply(type, request.Version,
                Namespace(request, type), request.Name, intent, Writer(request), request.Flag("force"));
            await Reply.ObjectAsync(request, created ? 201 : 200, applied, _options.Time);
            return;
        }
        if (mediaType == "application/merge-patch+json" && patch is JsonObject merge)
            Strictness.Check(request, type, merge);
        var stored = Writes.Patch(type, request.Version, Namespace(request, type), request.Name, mediaType, patch, Writer(request));
        await Reply.ObjectAsync(request, 200, stored, _options.Time);
    }

    private static async Task<JsonObject> DeleteOptionsAsync(ApiRequest request)
    {
        var options = await BytesAsync(request) is not { Length: > 0 } body ? []
            : body.AsSpan().StartsWith("k8s\0"u8) ? ProtobufBody.Read(body) ?? [] : Json.Parse(body) as JsonObject ?? [];
        if (request.Number("gracePeriodSeconds") is { } grace)
            options["gracePeriodSeconds"] = grace;
        if (request.Query("propagationPolicy") is { Length: > 0 } policy)
            options["propagationPolicy"] = policy;
        return options;
    }

    private static bool DryRun(ApiRequest request, JsonObject options) => request.DryRun || options.Arr("dryRun") is { Count: > 0 };

    private async Task DeleteAsync(ApiRequest request, ResourceType type)
    {
        if (request.Sub != "")
            throw KubeApiException.MethodNotAllowed();
        var options = await DeleteOptionsAsync(request);
        var (last, gone) = Writes.Delete(type, Namespace(request, type), request.Name, options, DryRun(request, options));
        if (!gone || type.Kind == "Pod")
        {
            await Reply.ObjectAsync(request, 200, last, _options.Time);
            return;
        }
        await Reply.JsonAsync(request.Http, 200, new JsonObject
        {
            ["kind"] = "Status",
            ["apiVersion"] = "v1",
            ["metadata"] = new JsonObject(),
            ["status"] = "Success",
            ["details"] = new JsonObject { ["name"] = request.Name, ["group"] = type.Group, ["kind"] = type.Plural, ["uid"] = last.Uid },
        });
    }

    private async Task DeleteCollectionAsync(ApiRequest request, ResourceType type)
    {
        var options = await DeleteOptionsAsync(request);
        var all = _listWatch.Matching(request, type);
        foreach (var stored in all)
        {
            try
            {
                Writes.Delete(type, stored.Namespace, stored.Name, options, DryRun(request, options));
            }
            catch (KubeApiException told) when (told.Code == 404)
            {
                continue;
            }
        }
        await Reply.JsonAsync(request.Http, 200, new JsonObject
        {
            ["kind"] = type.ListKind,
            ["apiVersion"] = type.ApiVersion(request.Version),
            ["metadata"] = new JsonObject { ["resourceVersion"] = Store.Revision.ToString(System.Globalization.CultureInfo.InvariantCulture) },
            ["items"] = new JsonArray([.. all.Select(stored => (JsonNode)stored.Copy(request.Version))]),
        });
    }
}
