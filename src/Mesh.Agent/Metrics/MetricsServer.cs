using System.Net;
using Mesh.Agent.Api;

namespace Mesh.Agent.Metrics;

/// <summary>Serves /metrics over TCP, and nothing else.</summary>
internal sealed class MetricsServer : IAsyncDisposable
{
    private readonly WebApplication _application;

    private MetricsServer(WebApplication application) => _application = application;

    /// <summary>Null when there is no address to serve on.</summary>
    /// <exception cref="IOException">The address is in use or not ours.</exception>
    public static async Task<MetricsServer?> StartAsync(AgentView view, IPEndPoint? address)
    {
        if (address is null)
            return null;
        // Empty: the slim builder follows every directory below the working directory for an appsettings.json that we do not have.
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(address));
        var application = builder.Build();
        application.Run(async context =>
        {
            if (context.Request.Path != "/metrics")
            {
                context.Response.StatusCode = StatusCodes.Status404NotFound;
                return;
            }
            context.Response.ContentType = "text/plain; version=0.0.4; charset=utf-8";
            await context.Response.WriteAsync(MetricsPage.Of(view));
        });
        await application.StartAsync();
        return new MetricsServer(application);
    }

    public async ValueTask DisposeAsync() => await _application.DisposeAsync();
}
