using System.Collections.Concurrent;
using System.Globalization;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Api;
using Mesh.KubeApi.Objects;
using Mesh.KubeApi.Store;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Mesh.KubeApi.Streams;

/// <summary>exec, attach, log and portforward of pods: finds the container, takes the client's kind of connection, calls the node.</summary>
internal sealed class PodConnections(KubeApiServer server, KubeApiOptions options)
{
    public async Task HandleAsync(ApiRequest request, StoredObject pod, CancellationToken serverStops)
    {
        var runtime = server.Pods ?? throw KubeApiException.Unavailable("no node serves the streams of pods here");
        if (pod.Node.Obj("spec").Str("nodeName") is not { Length: > 0 } node)
            throw KubeApiException.BadRequest($"pod {pod.Name} does not have a host assigned");
        using var ends = CancellationTokenSource.CreateLinkedTokenSource(request.Http.RequestAborted, serverStops);
        switch (request.Sub)
        {
            case "log":
                await LogAsync(request, pod, node, runtime, ends.Token);
                break;
            case "portforward":
                await ForwardAsync(request, pod, runtime, ends.Token);
                break;
            default:
                await CommandAsync(request, pod, node, runtime, ends.Token);
                break;
        }
    }

    private static string Container(ApiRequest request, StoredObject pod)
    {
        string[] Names(string list) => [.. pod.Node.Obj("spec").Arr(list).Objects().Select(one => one.Str("name")!)];
        var (containers, initial) = (Names("containers"), Names("initContainers"));
        var asked = request.Query("container");
        if (asked == "")
            return containers.Length == 1 ? containers[0]
                : (pod.Node["metadata"].Obj("annotations").Str("kubectl.kubernetes.io/default-container") is { } chosen && request.Sub != "log" ? chosen : null)
                ?? throw KubeApiException.BadRequest($"a container name must be specified for pod {pod.Name}, choose one of: [{string.Join(' ', containers)}]"
                    + (initial.Length > 0 ? $" or one of the init containers: [{string.Join(' ', initial)}]" : ""));
        return containers.Concat(initial).Concat(Names("ephemeralContainers")).Contains(asked) ? asked
            : throw KubeApiException.BadRequest($"container {asked} is not valid for pod {pod.Name}");
    }

    private async Task LogAsync(ApiRequest request, StoredObject pod, string node, IPodRuntime runtime, CancellationToken stop)
    {
        DateTimeOffset? since = request.Number("sinceSeconds") is { } seconds ? options.Time.GetUtcNow().AddSeconds(-seconds)
            : request.Query("sinceTime") is { Length: > 0 } text ? DateTimeOffset.Parse(text, CultureInfo.InvariantCulture) : null;
        var log = new PodLog(pod.Namespace, pod.Name, Container(request, pod))
        {
            Node = node,
            Follow = request.Flag("follow"),
            Previous = request.Flag("previous"),
            Timestamps = request.Flag("timestamps"),
            TailLines = request.Number("tailLines"),
            LimitBytes = request.Number("limitBytes"),
            Since = since,
        };
        var http = request.Http;
        http.Response.ContentType = "text/plain";
        // Nothing is sent before the first byte, so that a failure can still be a Status.
        await runtime.LogAsync(log, new SendingStream(async (bytes, cancel) =>
        {
            await http.Response.Body.WriteAsync(bytes, cancel);
            await http.Response.Body.FlushAsync(cancel);
        }), stop);
    }

    private static async Task CommandAsync(ApiRequest request, StoredObject pod, string node, IPodRuntime runtime, CancellationToken stop)
    {
        var phase = pod.Node.Obj("status").Str("phase");
        if (phase is "Succeeded" or "Failed")
            throw KubeApiException.BadRequest($"cannot exec into a container in a completed pod; current phase is {phase}");
        var (input, output, error, tty) = (request.Flag("stdin"), request.Flag("stdout"), request.Flag("stderr"), request.Flag("tty"));
        if (!input && !output && !error)
            throw KubeApiException.BadRequest("you must specify at least 1 of stdin, stdout, stderr");
        error &= !tty;
        string[] command = [.. request.Http.Request.Query["command"].OfType<string>()];
        if (request.Sub == "exec" && command.Length == 0)
            throw KubeApiException.BadRequest("you must specify at least one command for the container");
        var exec = new PodExec(pod.Namespace, pod.Name, Container(request, pod), command, tty) { Node = node };
        var attach = request.Sub == "attach";
        if (request.Http.WebSockets.IsWebSocketRequest)
        {
            var protocol = new[] { WebSocketCommand.V5, WebSocketCommand.V4 }.FirstOrDefault(request.Http.WebSockets.WebSocketRequestedProtocols.Contains)
                ?? throw KubeApiException.BadRequest($"no common WebSocket protocol: this server speaks {WebSocketCommand.V5} and {WebSocketCommand.V4}");
            using var carrier = new WebSocketCommand(await request.Http.WebSockets.AcceptWebSocketAsync(protocol));
            await carrier.GreetAsync((byte)(output ? 1 : error ? 2 : 3), stop);
            await RunAsync(carrier, Task.CompletedTask, exec, attach, runtime, (input, output, error), stop);
            return;
        }
        var offered = request.Http.Request.Headers["X-Stream-Protocol-Version"].SelectMany(one => one!.Split(',', StringSplitOptions.TrimEntries)).ToList();
        var spoken = SpdyCommand.Protocols.FirstOrDefault(offered.Contains);
        if (spoken is null && offered.Count > 0)
            throw new KubeApiException(403, "Forbidden", $"unable to negotiate protocol: client supports [{string.Join(' ', offered)}], "
                + $"server accepts [{string.Join(' ', SpdyCommand.Protocols)}]");
        await using var wire = await UpgradeAsync(request.Http, spoken ?? throw KubeApiException.BadRequest("Upgrade request required"));
        string[] wanted = ["error", .. input ? ["stdin"] : Array.Empty<string>(), .. output ? ["stdout"] : Array.Empty<string>(),
            .. error ? ["stderr"] : Array.Empty<string>(), .. tty ? ["resize"] : Array.Empty<string>()];
        using var spdy = new SpdyCommand(wire, wanted);
        await RunAsync(spdy, spdy.Opened, exec, attach, runtime, (input, output, error), stop);
    }

    private static async Task<Stream> UpgradeAsync(HttpContext http, string protocol)
    {
        var feature = http.Features.Get<IHttpUpgradeFeature>();
        if (feature is not { IsUpgradableRequest: true } || !http.Request.Headers.Upgrade.ToString().Equals("SPDY/3.1", StringComparison.OrdinalIgnoreCase))
            throw KubeApiException.BadRequest("Upgrade request required");
        http.Response.Headers.Upgrade = "SPDY/3.1";
        http.Response.Headers.Connection = "Upgrade";
        http.Response.Headers["X-Stream-Protocol-Version"] = protocol;
        return await feature.UpgradeAsync();
    }

    /// <summary>Runs the command while the client's bytes are taken; ends both, whichever ends first.</summary>
    private static async Task RunAsync(RemoteCommand carrier, Task opened, PodExec exec, bool attach, IPodRuntime runtime,
        (bool Input, bool Output, bool Error) wants, CancellationToken stop)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(stop);
        var receiving = carrier.ReceiveAsync(over.Token);
        var streams = carrier.Streams(wants.Input, wants.Output, wants.Error);
        try
        {
            await opened.WaitAsync(TimeSpan.FromSeconds(30), stop);
            using var clientGone = CancellationTokenSource.CreateLinkedTokenSource(stop);
            var running = attach ? AttachAsync() : runtime.ExecAsync(exec, streams, clientGone.Token);
            async Task<int> AttachAsync()
            {
                await runtime.AttachAsync(exec, streams, clientGone.Token);
                return 0;
            }
            if (await Task.WhenAny(running, receiving) == receiving && !running.IsCompleted)
                await clientGone.CancelAsync();
            JsonObject status;
            try
            {
                status = await running is var code && code == 0 ? RemoteCommand.Succeeded() : RemoteCommand.Exited(code);
            }
            catch (KubeApiException told)
            {
                status = told.ToStatus();
            }
            catch (Exception failure) when (!clientGone.IsCancellationRequested)
            {
                status = KubeApiException.Internal($"error executing command in container: {failure.Message}").ToStatus();
            }
            await carrier.CompleteAsync(status, stop);
            // The client closes when it has read all; one that does not is left after a while.
            await receiving.WaitAsync(TimeSpan.FromSeconds(2), stop);
        }
        catch (Exception failure) when (failure is OperationCanceledException or TimeoutException or IOException or WebSocketException)
        {
            // The client has gone in the middle: nobody is left to tell.
        }
        finally
        {
            await over.CancelAsync();
            await receiving.ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        }
    }

    private static async Task ForwardAsync(ApiRequest request, StoredObject pod, IPodRuntime runtime, CancellationToken stop)
    {
        await using var wire = await UpgradeAsync(request.Http, "portforward.k8s.io");
        using var connection = new SpdyConnection(wire);
        using var over = CancellationTokenSource.CreateLinkedTokenSource(stop);
        var halves = new ConcurrentDictionary<string, SpdyStream>();
        var pumps = new ConcurrentBag<Task>();
        try
        {
            await connection.ReceiveAsync(stream =>
            {
                // Two streams make a connection: one for what goes wrong, one for the bytes.
                var id = stream.Header("requestID");
                if (!halves.TryRemove(id, out var other))
                    halves[id] = stream;
                else
                    pumps.Add(stream.Header("streamType") == "data" ? ForwardAsync(stream, other, pod, runtime, over.Token)
                        : ForwardAsync(other, stream, pod, runtime, over.Token));
                return ValueTask.CompletedTask;
            }, over.Token);
        }
        catch (Exception failure) when (failure is OperationCanceledException or IOException)
        {
            // The client has gone.
        }
        await over.CancelAsync();
        await Task.WhenAll(pumps);
    }

    private static async Task ForwardAsync(SpdyStream data, SpdyStream error, StoredObject pod, IPodRuntime runtime, CancellationToken stop)
    {
        try
        {
            var port = int.Parse(data.Header("port"), CultureInfo.InvariantCulture);
            try
            {
                await using var there = await runtime.ConnectAsync(pod.Namespace, pod.Name, port, stop);
                var to = data.Incoming.Reader.AsStream().CopyToAsync(there, stop);
                await there.CopyToAsync(data.Outgoing, stop);
                await data.FinishAsync(stop);
                await to;
            }
            catch (Exception failure) when (failure is IOException or System.Net.Sockets.SocketException or KubeApiException)
            {
                await error.Outgoing.WriteAsync(Encoding.UTF8.GetBytes(
                    $"an error occurred forwarding {port} -> {port}: {failure.Message}"), stop);
                await data.FinishAsync(stop);
            }
            await error.FinishAsync(stop);
        }
        catch (Exception failure) when (failure is OperationCanceledException or IOException)
        {
            // The client has gone.
        }
    }
}
