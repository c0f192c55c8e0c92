using System.Net;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;

namespace Mesh.Kubernetes.Api;

/// <param name="ExitCode">0 for success.</param>
public sealed record ExecResult(int ExitCode, string Output, string Errors);

/// <summary>Programs run in containers, over a WebSocket.</summary>
public sealed partial class KubeClient
{
    private const int ExecBufferBytes = 32 * 1024;

    private enum Channel : byte
    {
        Input = 0,
        Output = 1,
        Errors = 2,
        Status = 3,

        /// <summary>v5: the channel named in the next byte ends.</summary>
        Close = 255,
    }

    /// <summary>Runs a program and waits for its end.</summary>
    /// <param name="container">Null when the pod has but one.</param>
    public async Task<ExecResult> ExecAsync(string ns, string pod, string? container, IReadOnlyList<string> command, CancellationToken cancellation,
        string? input = null)
    {
        using var output = new MemoryStream();
        using var errors = new MemoryStream();
        using var given = input is null ? null : new MemoryStream(Encoding.UTF8.GetBytes(input));
        var code = await ExecAsync(ns, pod, container, command, given, output, errors, cancellation).ConfigureAwait(false);
        return new ExecResult(code, Encoding.UTF8.GetString(output.ToArray()), Encoding.UTF8.GetString(errors.ToArray()));
    }

    /// <summary>Runs a program, and passes on what it reads and writes while it runs.</summary>
    /// <param name="input">Null for none. Its end is told to the program when the server speaks version 5 of the protocol.</param>
    /// <returns>The program's exit code.</returns>
    /// <exception cref="KubeApiException">No such pod or container, not allowed, or it broke off.</exception>
    public async Task<int> ExecAsync(string ns, string pod, string? container, IReadOnlyList<string> command, Stream? input, Stream output,
        Stream errors, CancellationToken cancellation)
    {
        var query = Query(("container", container), ("stdin", input is null ? null : "true"), ("stdout", "true"), ("stderr", "true"));
        var path = KubeResources.Pods.PathOf(ns, pod, "exec") + query + string.Concat(command.Select(word => $"&command={Uri.EscapeDataString(word)}"));
        using var socket = new ClientWebSocket();
        try
        {
            await ConnectAsync(socket, path, cancellation).ConfigureAwait(false);
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            var sending = input is null ? Task.CompletedTask : SendInputAsync(socket, input, stop.Token);
            try
            {
                return await ReceiveAsync(socket, output, errors, $"exec {ns}/{pod}", cancellation).ConfigureAwait(false);
            }
            finally
            {
                await stop.CancelAsync().ConfigureAwait(false);
                // The program has ended: what it did not read is nobody's.
                await sending.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
        catch (Exception e) when (_transport.Translate(e, HttpMethod.Get, path, late: false, cancellation) is { } fault)
        {
            throw fault;
        }
    }

    private async Task ConnectAsync(ClientWebSocket socket, string path, CancellationToken cancellation)
    {
        socket.Options.AddSubProtocol("v5.channel.k8s.io");
        socket.Options.AddSubProtocol("v4.channel.k8s.io");
        socket.Options.CollectHttpResponseDetails = true;
        if (await _transport.AuthorizationAsync(cancellation).ConfigureAwait(false) is { } authorization)
            socket.Options.SetRequestHeader("Authorization", authorization.ToString());
        var http = _transport.AddressOf(path);
        using var handler = new SocketsHttpHandler { SslOptions = _transport.Ssl, ConnectTimeout = _options.ConnectTimeout };
        // The socket outlives the invoker: the connection is its own once it has been upgraded.
        using var invoker = new HttpMessageInvoker(handler, disposeHandler: false);
        var address = new UriBuilder(http) { Scheme = http.Scheme == "https" ? "wss" : "ws" }.Uri;
        try
        {
            await socket.ConnectAsync(address, invoker, cancellation).ConfigureAwait(false);
        }
        catch (WebSocketException e) when (socket.HttpStatusCode is >= HttpStatusCode.BadRequest)
        {
            throw KubeTransport.Refusal($"GET {http.GetLeftPart(UriPartial.Path)}", socket.HttpStatusCode, null, e.Message, null);
        }
    }

    private static async Task SendInputAsync(ClientWebSocket socket, Stream input, CancellationToken cancellation)
    {
        var buffer = new byte[ExecBufferBytes];
        buffer[0] = (byte)Channel.Input;
        int read;
        while ((read = await input.ReadAsync(buffer.AsMemory(1), cancellation).ConfigureAwait(false)) > 0)
            await socket.SendAsync(buffer.AsMemory(0, read + 1), WebSocketMessageType.Binary, true, cancellation).ConfigureAwait(false);
        if (socket.SubProtocol == "v5.channel.k8s.io")
            await socket.SendAsync(new byte[] { (byte)Channel.Close, (byte)Channel.Input }, WebSocketMessageType.Binary, true, cancellation)
                .ConfigureAwait(false);
    }

    private static async Task<int> ReceiveAsync(ClientWebSocket socket, Stream output, Stream errors, string what, CancellationToken cancellation)
    {
        var buffer = new byte[ExecBufferBytes];
        using var status = new MemoryStream();
        Channel? channel = null;
        while (true)
        {
            var received = await socket.ReceiveAsync(buffer.AsMemory(), cancellation).ConfigureAwait(false);
            if (received.MessageType == WebSocketMessageType.Close)
                break;
            var part = buffer.AsMemory(0, received.Count);
            if (channel is null && part.Length > 0)
            {
                channel = (Channel)part.Span[0];
                part = part[1..];
            }
            var target = channel switch { Channel.Output => output, Channel.Errors => errors, Channel.Status => status, _ => null };
            if (target is not null)
                await target.WriteAsync(part, cancellation).ConfigureAwait(false);
            if (!received.EndOfMessage)
                continue;
            if (channel == Channel.Status)
                return ExitCode(status.ToArray(), what);
            channel = null;
        }
        throw new KubeApiException(KubeFault.Unreachable, $"{what}: the connection ended before the program did: {socket.CloseStatusDescription}");
    }

    /// <summary>The last message says how it ended: {"status":"Success"}, or the exit code among the causes.</summary>
    private static int ExitCode(byte[] message, string what)
    {
        KubeStatus? status = null;
        try
        {
            status = JsonSerializer.Deserialize(message, KubeJson.Default.KubeStatus);
        }
        catch (JsonException e)
        {
            throw new KubeApiException(KubeFault.BadAnswer, $"{what}: how it ended cannot be read: {e.Message}", e);
        }
        if (status?.Status == "Success")
            return 0;
        var cause = status?.Details?.Causes?.FirstOrDefault(one => one.Reason == "ExitCode");
        return int.TryParse(cause?.Message, out var code)
            ? code
            : throw new KubeApiException(KubeFault.ServerError, $"{what}: {status?.Message}") { Reason = status?.Reason ?? "" };
    }
}
