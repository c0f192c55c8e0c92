using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Mesh.Agent.Endpoints;
using Mesh.Agent.Metrics;
using Mesh.AgentApi;
using Mesh.Model;
using Mesh.StateDB;
using Endpoint = Mesh.AgentApi.Endpoint;
using Row = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Api;

/// <summary>
/// The REST API on its unix socket, mode 0660, below /v1. Every body is JSON in Cilium's shapes; an error's body is its message. The
/// socket file of an agent that died is replaced, that of one that lives is not.
/// </summary>
internal sealed class AgentApiServer : IAsyncDisposable
{
    private const string BasePath = "/v1/";
    private const UnixFileMode SocketMode =
        UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite;

    private static readonly TimeSpan RestorePatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan BuildPatience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan IdentityPatience = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan BuildPoll = TimeSpan.FromMilliseconds(1);

    private readonly AgentView _view;
    private readonly WebApplication _application;

    private AgentApiServer(AgentView view, WebApplication application)
    {
        _view = view;
        _application = application;
    }

    /// <exception cref="IOException">The socket cannot be made; the message names it and the mend.</exception>
    public static async Task<AgentApiServer> StartAsync(AgentView view)
    {
        var socketPath = view.Options.SocketPath;
        await ClearWayAsync(socketPath);
        // Empty: the slim builder follows every directory below the working directory for an appsettings.json that we do not have.
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(socketPath));
        var application = builder.Build();
        var server = new AgentApiServer(view, application);
        application.Run(server.AnswerAsync);
        await application.StartAsync();
        File.SetUnixFileMode(socketPath, SocketMode);
        return server;
    }

    /// <summary>Answers what has been asked already, then closes.</summary>
    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(2));
        await _application.StopAsync(patience.Token);
        await _application.DisposeAsync();
    }

    private static async Task ClearWayAsync(string socketPath)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(socketPath))!);
        if (!File.Exists(socketPath))
            return;
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await probe.ConnectAsync(new UnixDomainSocketEndPoint(socketPath));
        }
        catch (SocketException)
        {
            // Nobody listens: left by an agent that died.
            File.Delete(socketPath);
            return;
        }
        throw new IOException($"--socket-path {socketPath}: another agent answers there: stop it, or choose another path");
    }

    private async Task AnswerAsync(HttpContext context)
    {
        try
        {
            await RouteAsync(context);
        }
        catch (Exception e) when (!context.Response.HasStarted && !context.RequestAborted.IsCancellationRequested)
        {
            await RefuseAsync(context, HttpStatusCode.InternalServerError, e.Message);
        }
    }

    private Task RouteAsync(HttpContext context)
    {
        var path = context.Request.Path.Value ?? "";
        if (!path.StartsWith(BasePath, StringComparison.Ordinal))
            return RefuseAsync(context, HttpStatusCode.NotFound, $"path {path} was not found: everything is below {BasePath}");
        var resource = path[BasePath.Length..].TrimEnd('/');
        return (context.Request.Method, resource) switch
        {
            ("GET", "healthz") => SendAsync(context, StatusBody.Of(_view), AgentApiJson.Wire.StatusResponse),
            ("GET", "config") => SendAsync(context, ConfigBody.Of(_view), AgentApiJson.Wire.DaemonConfiguration),
            ("GET", "metrics") => SendAsync(context, MetricsPage.Samples(_view), AgentApiJson.Wire.IReadOnlyListMetric),
            ("GET", "service") => SendAsync(context, ServiceBody.Of(_view), AgentApiJson.Wire.IReadOnlyListService),
            ("GET", "ip") => SendAsync(context, AddressBody.Of(_view), AgentApiJson.Wire.IEnumerableIPListEntry),
            ("GET", "identity") => SendAsync(context, AddressBody.Identities(_view), AgentApiJson.Wire.IEnumerableIdentity),
            ("GET", "cluster/nodes") => SendAsync(context, NodeBody.Of(_view), AgentApiJson.Wire.ClusterNodeStatus),
            ("GET", "node/ids") => SendAsync(context, NodeBody.Ids(_view), AgentApiJson.Wire.IReadOnlyListNodeId),
            ("GET", "endpoint") => SendAsync(context, EndpointBody.Of(_view), AgentApiJson.Wire.IReadOnlyListEndpoint),
            ("GET", "clustermesh/quarantine") => SendAsync(context, QuarantineBody.Of(_view), AgentApiJson.Wire.IReadOnlyListPeerQuarantine),
            ("POST", _) when Below(resource, "clustermesh/release/") is { } peer => ReleaseAsync(context, peer),
            ("GET", "policy") => SendAsync(context, PolicyBody.Tree(_view), AgentApiJson.Wire.PolicyTree),
            ("GET", "policy/report") => SendAsync(context, PolicyBody.Report(_view), AgentApiJson.Wire.PolicyReport),
            ("GET", "policy/trace") => TraceAsync(context),
            ("GET", "debuginfo") => SendAsync(context, ConfigBody.Debug(_view), AgentApiJson.Wire.DebugInfo),
            ("GET", _) when Below(resource, "service/") is { } id => SendOneAsync(context, Service(id), AgentApiJson.Wire.Service),
            ("GET", _) when Below(resource, "identity/") is { } id => SendOneAsync(context, Identity(id), AgentApiJson.Wire.Identity),
            ("GET", _) when Below(resource, "endpoint/") is { } id => SendOneAsync(context, Endpoint(id), AgentApiJson.Wire.Endpoint),
            ("GET", "ipam") => SendAsync(context, IpamBody.Of(_view), AgentApiJson.Wire.IpamStatus),
            ("POST", "ipam") => ReserveAsync(context, null),
            ("POST", _) when Below(resource, "ipam/") is { } address => ReserveAsync(context, address),
            ("DELETE", _) when Below(resource, "ipam/") is { } address => ReleaseAddressAsync(context, address),
            ("POST", "cni/gc") => CollectAsync(context),
            ("PUT", _) when Below(resource, "endpoint/") is not null => RegisterAsync(context),
            ("DELETE", _) when Below(resource, "endpoint/") is { } id => RemoveAsync(context, id),
            _ => RefuseAsync(context, HttpStatusCode.NotFound, $"{context.Request.Method} {path} was not found"),
        };
    }

    /// <summary>What follows the prefix, unescaped; null when the resource is another one.</summary>
    private static string? Below(string resource, string prefix) =>
        resource.StartsWith(prefix, StringComparison.Ordinal) ? Uri.UnescapeDataString(resource[prefix.Length..]) : null;

    private Service? Service(string id) =>
        ServiceBody.Of(_view).FirstOrDefault(service => service.Spec!.Id.ToString(CultureInfo.InvariantCulture) == id);

    private Identity? Identity(string id) =>
        uint.TryParse(id, NumberStyles.None, CultureInfo.InvariantCulture, out var number) ? AddressBody.Identity(_view, number) : null;

    private Endpoint? Endpoint(string reference) =>
        _view.Endpoints.Resolve(reference) is { } id ? EndpointBody.Of(_view, id) : null;

    private Task RegisterAsync(HttpContext context) => DoAsync(context, "an endpoint", AgentApiJson.Wire.EndpointChangeRequest, async request =>
    {
        var row = _view.Endpoints.Register(request);
        if (request.SyncBuildEndpoint)
            await BuiltAsync(row, context.RequestAborted);
        await SendAsync(context, EndpointBody.Of(_view, row.Id)!, AgentApiJson.Wire.Endpoint, HttpStatusCode.Created);
    });

    /// <summary>Waits until the kernel forwards for the pod; what it refuses is not registered.</summary>
    private async Task BuiltAsync(Row row, CancellationToken aborted)
    {
        var clock = Stopwatch.StartNew();
        // A row's status changes without a word: the reconciler's own work takes about as long as one of these rests.
        using var rest = new PeriodicTimer(BuildPoll);
        while (true)
        {
            var status = _view.State.Endpoints.Find(row.Id)?.Status;
            if (status is { State: RowState.Done } && (HasIdentity(row.Id) || clock.Elapsed > IdentityPatience))
                return;
            if (status is null or { State: RowState.Error } || clock.Elapsed > BuildPatience)
            {
                _view.Endpoints.Remove(row.Id.ToString(CultureInfo.InvariantCulture));
                throw new EndpointRefusedException(HttpStatusCode.InternalServerError, $"the kernel does not forward for {row.Namespace}/{row.PodName}: "
                    + (status?.Error ?? (status is null ? "it was removed meanwhile" : $"not programmed after {BuildPatience.TotalSeconds:0} s")));
            }
            await rest.WaitForNextTickAsync(aborted);
        }
    }

    /// <summary>Where this agent gives identities itself, a pod should not begin without: others would not know it yet. But it begins.</summary>
    private bool HasIdentity(ushort id) =>
        _view.Publishing is null || !_view.State.Endpoints.TryGet(id, out var row) || row.Identity != 0;

    private Task RemoveAsync(HttpContext context, string reference) => DoAsync(context, () =>
    {
        // A plugin that gave up between reservation and registration ends both by this.
        const string attachment = "cni-attachment-id:";
        if (reference.StartsWith(attachment, StringComparison.Ordinal))
            _view.Addresses.ReleaseAll(reference[attachment.Length..]);
        return _view.Endpoints.Remove(reference)
            ? SendAsync(context, "", AgentApiJson.Wire.String)
            : RefuseAsync(context, HttpStatusCode.NotFound, $"endpoint {reference} is not registered");
    });

    private Task ReserveAsync(HttpContext context, string? address) => DoAsync(context, () =>
    {
        string Asked(string name) => context.Request.Query[name].ToString();
        return SendAsync(context, IpamBody.Reserve(_view, address, Asked("family"), Asked("owner"), Asked("attachment")),
            AgentApiJson.Wire.IpamResponse, HttpStatusCode.Created);
    });

    private Task ReleaseAddressAsync(HttpContext context, string address) => DoAsync(context, () =>
        IpAddr.TryParse(address, out var parsed) && _view.Addresses.Release(parsed)
            ? SendAsync(context, "", AgentApiJson.Wire.String)
            : RefuseAsync(context, HttpStatusCode.NotFound, $"{address} is not reserved"));

    private Task CollectAsync(HttpContext context) => DoAsync(context, "a list of attachments", AgentApiJson.Wire.CniAttachments, asked =>
    {
        var removed = _view.Endpoints.RemoveAllBut(asked.Network, asked.Attachments.ToHashSet(StringComparer.Ordinal));
        return SendAsync(context, removed, AgentApiJson.Wire.IReadOnlyListString);
    });

    /// <summary>What changes the pods waits until those of earlier runs have been taken up, which an early change would be undone by.</summary>
    private async Task DoAsync(HttpContext context, Func<Task> work)
    {
        try
        {
            await _view.Endpoints.Restored.WaitAsync(RestorePatience, context.RequestAborted);
            await work();
        }
        catch (TimeoutException)
        {
            await RefuseAsync(context, HttpStatusCode.ServiceUnavailable, $"the agent is not ready: {StatusBody.WaitingFor(_view)}");
        }
        catch (EndpointRefusedException e)
        {
            await RefuseAsync(context, e.Status, e.Message);
        }
    }

    private async Task DoAsync<T>(HttpContext context, string what, JsonTypeInfo<T> type, Func<T, Task> work)
        where T : class, new()
    {
        T? request;
        try
        {
            request = await JsonSerializer.DeserializeAsync(context.Request.Body, type, context.RequestAborted);
        }
        catch (JsonException e)
        {
            await RefuseAsync(context, HttpStatusCode.BadRequest, $"the body is not {what}: {e.Message}");
            return;
        }
        await DoAsync(context, () => work(request ?? new T()));
    }

    private async Task TraceAsync(HttpContext context)
    {
        string Asked(string name) => context.Request.Query[name].ToString();
        try
        {
            await SendAsync(context, PolicyBody.Trace(_view, Asked("src"), Asked("dst"), Asked("dport")), AgentApiJson.Wire.PolicyTraceReport);
        }
        catch (FormatException e)
        {
            await RefuseAsync(context, HttpStatusCode.BadRequest, e.Message);
        }
    }

    private Task ReleaseAsync(HttpContext context, string peer) => QuarantineBody.Release(_view, peer)
        ? SendAsync(context, "", AgentApiJson.Wire.String)
        : RefuseAsync(context, HttpStatusCode.NotFound, $"no peer named {peer} is connected here: see GET {BasePath}healthz");

    private static Task SendOneAsync<T>(HttpContext context, T? body, JsonTypeInfo<T> type)
        where T : class =>
        body is null
            ? RefuseAsync(context, HttpStatusCode.NotFound, $"{context.Request.Path} was not found")
            : SendAsync(context, body, type);

    private static Task RefuseAsync(HttpContext context, HttpStatusCode status, string message) =>
        SendAsync(context, message, AgentApiJson.Wire.String, status);

    private static Task SendAsync<T>(HttpContext context, T body, JsonTypeInfo<T> type, HttpStatusCode status = HttpStatusCode.OK)
    {
        context.Response.StatusCode = (int)status;
        // Real clients refuse to decode anything without it.
        context.Response.ContentType = "application/json";
        return JsonSerializer.SerializeAsync(context.Response.Body, body, type, context.RequestAborted);
    }
}
