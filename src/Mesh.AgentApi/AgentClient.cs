using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Mesh.AgentApi;

/// <summary>
/// Asks one agent over its unix socket. Every failure is an <see cref="AgentException"/> whose message names node and socket and
/// says what to look at; the caller prints it as it is.
/// </summary>
public sealed class AgentClient : IDisposable
{
    /// <summary>Where an agent listens unless told otherwise.</summary>
    public const string DefaultSocketPath = "/var/run/cilium/cilium.sock";

    public static readonly TimeSpan DefaultTimeout = TimeSpan.FromSeconds(30);

    private readonly HttpClient _http;
    private readonly string _node;
    private readonly string _socketPath;
    private readonly TimeSpan _timeout;

    /// <param name="node">Name for messages, such as tokyo/tokyo-1; "" when unknown.</param>
    /// <param name="timeout">For each call as a whole.</param>
    public AgentClient(string socketPath, string node = "", TimeSpan? timeout = null)
    {
        _socketPath = socketPath;
        _node = node.Length == 0 ? "agent" : $"agent of node {node}";
        _timeout = timeout ?? DefaultTimeout;
        _http = new HttpClient(new SocketsHttpHandler { ConnectCallback = ConnectAsync, UseProxy = false })
        {
            BaseAddress = new Uri("http://localhost/v1/"),
            Timeout = Timeout.InfiniteTimeSpan,
        };
    }

    public Task<StatusResponse> GetStatusAsync(CancellationToken cancellation = default) =>
        GetAsync("healthz", AgentApiJson.Wire.StatusResponse, cancellation);

    public Task<DaemonConfiguration> GetConfigurationAsync(CancellationToken cancellation = default) =>
        GetAsync("config", AgentApiJson.Wire.DaemonConfiguration, cancellation);

    public Task<IReadOnlyList<Service>> GetServicesAsync(CancellationToken cancellation = default) =>
        GetAsync("service", AgentApiJson.Wire.IReadOnlyListService, cancellation);

    public Task<ClusterNodeStatus> GetNodesAsync(CancellationToken cancellation = default) =>
        GetAsync("cluster/nodes", AgentApiJson.Wire.ClusterNodeStatus, cancellation);

    public Task<IReadOnlyList<NodeId>> GetNodeIdsAsync(CancellationToken cancellation = default) =>
        GetAsync("node/ids", AgentApiJson.Wire.IReadOnlyListNodeId, cancellation);

    public Task<IReadOnlyList<IPListEntry>> GetIPsAsync(CancellationToken cancellation = default) =>
        GetAsync("ip", AgentApiJson.Wire.IReadOnlyListIPListEntry, cancellation);

    public Task<IReadOnlyList<Identity>> GetIdentitiesAsync(CancellationToken cancellation = default) =>
        GetAsync("identity", AgentApiJson.Wire.IReadOnlyListIdentity, cancellation);

    public Task<IReadOnlyList<Endpoint>> GetEndpointsAsync(CancellationToken cancellation = default) =>
        GetAsync("endpoint", AgentApiJson.Wire.IReadOnlyListEndpoint, cancellation);

    /// <summary>What this agent refused of its peers, and what it holds.</summary>
    public Task<IReadOnlyList<PeerQuarantine>> GetQuarantineAsync(CancellationToken cancellation = default) =>
        GetAsync("clustermesh/quarantine", AgentApiJson.Wire.IReadOnlyListPeerQuarantine, cancellation);

    /// <summary>Makes the agent believe at once whatever it holds of this peer's withdrawals.</summary>
    public async Task ReleaseHeldAsync(string peer, CancellationToken cancellation = default)
    {
        using var message = new HttpRequestMessage(HttpMethod.Post, $"clustermesh/release/{Uri.EscapeDataString(peer)}");
        await SendAsync(message, cancellation);
    }

    public Task<PolicyTree> GetPolicyAsync(CancellationToken cancellation = default) =>
        GetAsync("policy", AgentApiJson.Wire.PolicyTree, cancellation);

    /// <summary>Which policies hold, for whom, and what each rule has decided.</summary>
    public Task<PolicyReport> GetPolicyReportAsync(CancellationToken cancellation = default) =>
        GetAsync("policy/report", AgentApiJson.Wire.PolicyReport, cancellation);

    /// <param name="source">NAMESPACE/POD, CLUSTER/NAMESPACE/POD, an address, an identity's number or a reserved word.</param>
    /// <param name="port">80/TCP.</param>
    public Task<PolicyTraceReport> TracePolicyAsync(string source, string destination, string port, CancellationToken cancellation = default) =>
        GetAsync($"policy/trace?src={Uri.EscapeDataString(source)}&dst={Uri.EscapeDataString(destination)}&dport={Uri.EscapeDataString(port)}",
            AgentApiJson.Wire.PolicyTraceReport, cancellation);

    public Task<DebugInfo> GetDebugInfoAsync(CancellationToken cancellation = default) =>
        GetAsync("debuginfo", AgentApiJson.Wire.DebugInfo, cancellation);

    /// <summary>Registers a pod's interface; registering the same pod again replaces what was known of it and keeps its id.</summary>
    public async Task<Endpoint> PutEndpointAsync(EndpointChangeRequest request, CancellationToken cancellation = default)
    {
        using var message = new HttpRequestMessage(HttpMethod.Put, "endpoint/0")
        {
            Content = new ByteArrayContent(JsonSerializer.SerializeToUtf8Bytes(request, AgentApiJson.Wire.EndpointChangeRequest)),
        };
        message.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        return Decode(await SendAsync(message, cancellation), "endpoint/0", AgentApiJson.Wire.Endpoint);
    }

    /// <summary>False when the agent did not know the pod.</summary>
    public async Task<bool> DeleteEndpointAsync(string @namespace, string pod, CancellationToken cancellation = default)
    {
        using var message = new HttpRequestMessage(HttpMethod.Delete, $"endpoint/pod-name:{@namespace}/{pod}");
        try
        {
            await SendAsync(message, cancellation);
            return true;
        }
        catch (AgentException exception) when (exception.StatusCode == HttpStatusCode.NotFound)
        {
            return false;
        }
    }

    /// <summary>The answer's bytes as they are, for -o json.</summary>
    /// <param name="path">Below /v1/.</param>
    public async Task<byte[]> GetBytesAsync(string path, CancellationToken cancellation = default)
    {
        using var message = new HttpRequestMessage(HttpMethod.Get, path);
        return await SendAsync(message, cancellation);
    }

    public void Dispose() => _http.Dispose();

    private async Task<T> GetAsync<T>(string path, JsonTypeInfo<T> type, CancellationToken cancellation) =>
        Decode(await GetBytesAsync(path, cancellation), path, type);

    private T Decode<T>(byte[] body, string path, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(body, type) ?? throw new JsonException("it is null");
        }
        catch (JsonException exception)
        {
            throw new AgentException(
                $"{_node} answered GET /v1/{path} on {_socketPath} with something else than expected ({exception.Message}): " +
                "is it another version, or another program?", null, exception);
        }
    }

    private async Task<byte[]> SendAsync(HttpRequestMessage message, CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(_timeout);
        try
        {
            using var response = await _http.SendAsync(message, deadline.Token);
            var body = await response.Content.ReadAsByteArrayAsync(deadline.Token);
            return response.IsSuccessStatusCode ? body : throw Refused(message, response.StatusCode, body);
        }
        catch (OperationCanceledException exception) when (!cancellation.IsCancellationRequested)
        {
            throw new AgentException(
                $"{_node} did not answer on {_socketPath} within {_timeout.TotalSeconds:0.#} s: it may be overloaded or stopped; see its log",
                null, exception);
        }
        catch (HttpRequestException exception)
        {
            throw new AgentException(Unreachable(exception), null, exception);
        }
    }

    private string Unreachable(HttpRequestException exception)
    {
        if (exception.InnerException is not SocketException socket)
            return $"{_node} broke off its answer on {_socketPath} ({exception.Message}): see its log";
        var cause = socket.SocketErrorCode switch
        {
            SocketError.AccessDenied => "permission denied: run as root",
            SocketError.ConnectionRefused => "the socket is a leftover, nobody listens: is it running?",
            _ when !File.Exists(_socketPath) => "there is no such socket: is it running?",
            _ => socket.Message,
        };
        return $"{_node} does not answer on {_socketPath}: {cause}";
    }

    private AgentException Refused(HttpRequestMessage message, HttpStatusCode status, byte[] body)
    {
        var reason = System.Text.Encoding.UTF8.GetString(body).Trim();
        try
        {
            reason = JsonSerializer.Deserialize(body, AgentApiJson.Wire.String) ?? reason;
        }
        catch (JsonException)
        {
            // Not one of ours: the text as it is says most.
        }
        var what = $"{message.Method} {message.RequestUri}";
        return new AgentException($"{_node} refused {what}: {(reason.Length == 0 ? status.ToString() : reason)}", status);
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellation)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(_socketPath), cancellation);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}

/// <summary>An agent that could not be asked, or refused. The message is complete and for people.</summary>
public sealed class AgentException : Exception
{
    public AgentException(string message, HttpStatusCode? statusCode = null, Exception? inner = null)
        : base(message, inner) => StatusCode = statusCode;

    /// <summary>Null when there was no answer.</summary>
    public HttpStatusCode? StatusCode { get; }
}
