using System.Globalization;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>In which form the client wants objects: as they are, as rows of a table, or their metadata only.</summary>
internal sealed record ResponseForm(bool Table, bool MetadataOnly, string IncludeObject, string TableVersion)
{
    public string ContentType => Table ? $"application/json;as=Table;v={TableVersion};g=meta.k8s.io" : "application/json";

    public static ResponseForm Of(ApiRequest request)
    {
        foreach (var one in request.Http.Request.Headers.Accept.ToString().Split(','))
        {
            var parts = one.Split(';', StringSplitOptions.TrimEntries);
            if (parts[0] is not ("application/json" or "*/*" or "application/*" or ""))
                continue;
            var include = request.Query("includeObject") is { Length: > 0 } asked ? asked : "Metadata";
            var version = parts.Contains("v=v1beta1") ? "v1beta1" : "v1";
            if (parts.Contains("as=Table"))
                return new(true, false, include, version);
            if (parts.Contains("as=PartialObjectMetadata") || parts.Contains("as=PartialObjectMetadataList"))
                return new(false, true, include, version);
            break;
        }
        return new(false, false, "", "v1");
    }
}

/// <summary>Answers on the wire.</summary>
internal static class Reply
{
    public static async Task BytesAsync(HttpContext http, int code, MemoryStream body, string contentType = "application/json")
    {
        http.Response.StatusCode = code;
        http.Response.ContentType = contentType;
        http.Response.Headers.CacheControl = "no-cache, private";
        http.Response.ContentLength = body.Length;
        if (http.Request.Method != "HEAD")
            await http.Response.Body.WriteAsync(body.GetBuffer().AsMemory(0, (int)body.Length), http.RequestAborted);
    }

    public static Task JsonAsync(HttpContext http, int code, JsonNode node, string contentType = "application/json")
    {
        var bytes = Encoding.UTF8.GetBytes(Json.Text(node) + "\n");
        return BytesAsync(http, code, new MemoryStream(bytes, 0, bytes.Length, false, true), contentType);
    }

    public static Task TextAsync(HttpContext http, int code, string text)
    {
        var bytes = Encoding.UTF8.GetBytes(text);
        return BytesAsync(http, code, new MemoryStream(bytes, 0, bytes.Length, false, true), "text/plain; charset=utf-8");
    }

    /// <summary>One object, in the form that the client wants.</summary>
    public static async Task ObjectAsync(ApiRequest request, int code, StoredObject stored, TimeProvider time)
    {
        var output = new MemoryStream(1024);
        var form = ResponseForm.Of(request);
        if (form.Table)
            Tables.Write(output, stored.Type, request.Version, [stored], form,
                new() { ["resourceVersion"] = stored.Revision.ToString(CultureInfo.InvariantCulture) }, time, headings: true);
        else if (form.MetadataOnly)
            Tables.WritePartial(output, stored);
        else
            stored.WriteTo(output, request.Version, bare: false);
        output.Write("\n"u8);
        await BytesAsync(request.Http, code, output, form.ContentType);
    }

    public static async Task ErrorAsync(HttpContext http, KubeApiException error)
    {
        if (http.Response.HasStarted)
        {
            http.Abort();
            return;
        }
        if (error.RetryAfterSeconds is { } seconds)
            http.Response.Headers.RetryAfter = seconds.ToString(CultureInfo.InvariantCulture);
        if (error.Code == 401)
            http.Response.Headers.WWWAuthenticate = "Bearer realm=\"kubernetes-master\"";
        await JsonAsync(http, error.Code, error.ToStatus());
    }
}
