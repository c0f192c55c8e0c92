using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;

namespace Mesh.KubeApi.Api;

/// <summary>/openapi/v2.</summary>
internal static class OpenApi
{
    public static Task V2Async(HttpContext http, TypeRegistry types) => Reply.TextAsync(http, 404, "404 page not found\n");
}
