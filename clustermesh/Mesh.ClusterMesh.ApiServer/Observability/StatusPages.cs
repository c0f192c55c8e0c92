using System.Net;

namespace Mesh.ClusterMesh.ApiServer.Observability;

/// <summary>Three pages over plain HTTP: /readyz for probes, /metrics for Prometheus, /problems for people.</summary>
internal static class StatusPages
{
    /// <summary>Serves until disposed. Without an address to listen on it serves nothing.</summary>
    /// <exception cref="IOException">An address cannot be used; the message names its flag.</exception>
    public static async Task<IAsyncDisposable> StartAsync(
        IPEndPoint? health, IPEndPoint? metricsAddress, Func<bool> isReady, Func<string> metrics, Func<string> problems, CancellationToken cancellation)
    {
        // Empty: the slim builder follows every directory below the working directory for an appsettings.json that we do not have.
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.Services.AddRoutingCore();
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            foreach (var address in new[] { health, metricsAddress }.OfType<IPEndPoint>().Distinct())
                kestrel.Listen(address);
        });
        var pages = builder.Build();
        if (health is null && metricsAddress is null)
            return pages;
        pages.MapGet("/readyz", context =>
        {
            var ready = isReady();
            context.Response.StatusCode = ready ? StatusCodes.Status200OK : StatusCodes.Status500InternalServerError;
            return context.Response.WriteAsync(ready ? "Ready" : "NotReady", context.RequestAborted);
        });
        pages.MapGet("/problems", context => context.Response.WriteAsync(problems(), context.RequestAborted));
        pages.MapGet("/metrics", context =>
        {
            context.Response.ContentType = "text/plain; version=0.0.4; charset=utf-8";
            return context.Response.WriteAsync(metrics(), context.RequestAborted);
        });
        try
        {
            await pages.StartAsync(cancellation);
        }
        catch (IOException e)
        {
            await pages.DisposeAsync();
            throw new IOException($"--health-port {health}, --prometheus-serve-addr {metricsAddress}: {e.Message}", e);
        }
        return pages;
    }
}
