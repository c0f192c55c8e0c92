using System.Globalization;
using System.Net.Sockets;
using System.Text.Json;

namespace Mesh.Agent.HealthChecks;

/// <summary>One healthCheckNodePort on all addresses of the node: 200 while it has ready backends, otherwise 503. Path and method do not matter, as
/// with kube-proxy.</summary>
internal sealed class HealthCheckServer : IAsyncDisposable
{
    /// <summary>Load balancers ask with a connection each, and are few.</summary>
    private const int ConnectionsMax = 128;

    private static readonly TimeSpan Idle = TimeSpan.FromSeconds(10);

    private readonly WebApplication _application;
    private readonly Func<bool> _programs;
    private volatile NodeHealth _health;

    private HealthCheckServer(WebApplication application, NodeHealth health, Func<bool> programs)
    {
        _application = application;
        _health = health;
        _programs = programs;
    }

    /// <summary>What the next who asks is told.</summary>
    public NodeHealth Health
    {
        get => _health;
        set => _health = value;
    }

    /// <exception cref="IOException">The port is taken, or may not be opened.</exception>
    public static async Task<HealthCheckServer> StartAsync(ushort port, NodeHealth health, Func<bool> programs)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxConcurrentConnections = ConnectionsMax;
            kestrel.Limits.KeepAliveTimeout = Idle;
            kestrel.Limits.RequestHeadersTimeout = Idle;
            kestrel.ListenAnyIP(port);
        });
        var application = builder.Build();
        var server = new HealthCheckServer(application, health, programs);
        application.Run(server.AnswerAsync);
        try
        {
            await application.StartAsync();
        }
        catch (Exception e)
        {
            await application.DisposeAsync();
            // Permission to open a low port is refused with the socket's own exception.
            if (e is SocketException)
                throw new IOException(e.Message, e);
            throw;
        }
        return server;
    }

    private async Task AnswerAsync(HttpContext context)
    {
        var health = _health;
        var programs = _programs();
        var response = context.Response;
        response.StatusCode = programs && health.LocalEndpoints > 0 ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable;
        response.ContentType = "application/json";
        response.Headers.XContentTypeOptions = "nosniff";
        response.Headers["X-Load-Balancing-Endpoint-Weight"] = health.LocalEndpoints.ToString(CultureInfo.InvariantCulture);
        // Whoever asks next shall find a closed port closed.
        response.Headers.Connection = "close";
        using var body = new MemoryStream();
        await using (var json = new Utf8JsonWriter(body))
        {
            json.WriteStartObject();
            json.WriteStartObject("service");
            json.WriteString("namespace", health.Service.Namespace);
            json.WriteString("name", health.Service.Name);
            json.WriteEndObject();
            json.WriteNumber("localEndpoints", health.LocalEndpoints);
            json.WriteBoolean("serviceProxyHealthy", programs);
            json.WriteEndObject();
        }
        response.ContentLength = body.Length;
        await response.Body.WriteAsync(body.GetBuffer().AsMemory(0, (int)body.Length), context.RequestAborted);
    }

    /// <summary>At once: an answer is a moment's work, and whoever holds a connection open has nothing coming.</summary>
    public ValueTask DisposeAsync() => _application.DisposeAsync();
}
