using System.Buffers.Binary;
using System.Net;
using System.Net.Security;
using Etcdserverpb;
using Google.Protobuf;
using Mesh.KVStore;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace Mesh.TestKit;

/// <summary>
/// A wire that understands gRPC, before an etcd or a door: hands every call on and every answer back, but for the watch responses
/// that a test wants lost.
/// Its own side speaks no TLS; to the server it is whatever client the test makes it. Lost
/// means what etcd's own defects mean by it: no error, no gap in the stream, later events go on.
/// </summary>
public sealed class GrpcProxy : IAsyncDisposable
{
    private const int FrameHead = 5;

    private readonly WebApplication _web;
    private readonly HttpMessageInvoker _far;
    private readonly Uri _server;
    private long _dropped;
    private long _ranges;
    private long _watches;
    private long _transactions;
    private long _provingTransactions;

    private GrpcProxy(Uri server, WebApplication web, bool asDoor, SslClientAuthenticationOptions? tls)
    {
        _server = server;
        _web = web;
        AsDoor = asDoor;
        _far = new HttpMessageInvoker(new SocketsHttpHandler { EnableMultipleHttp2Connections = true, UseProxy = false, SslOptions = tls });
    }

    public string Endpoint { get; private set; } = "";

    /// <summary>Answers carry the header by which a door of ours is known, whoever the server is.</summary>
    public bool AsDoor { get; }

    /// <summary>True for a watch event that is to be lost. Called once per event, in order.</summary>
    public Func<Mvccpb.Event, bool>? Lose { get; set; }

    /// <summary>Events that were lost.</summary>
    public long Dropped => Volatile.Read(ref _dropped);

    /// <summary>KV.Range calls seen.</summary>
    public long Ranges => Volatile.Read(ref _ranges);

    /// <summary>KV.Txn calls seen.</summary>
    public long Transactions => Volatile.Read(ref _transactions);

    /// <summary>Those of them that a server without quorum cannot answer.</summary>
    public long ProvingTransactions => Volatile.Read(ref _provingTransactions);

    /// <summary>As a server that has lost its leader: it reads from its own memory, and nothing else.</summary>
    public bool HasNoLeader { get; set; }

    /// <summary>As a server that does not grant KV.Txn to this user.</summary>
    public bool RefusesTransactions { get; set; }

    /// <summary>Watch streams seen.</summary>
    public long Watches => Volatile.Read(ref _watches);

    /// <param name="tls">How to prove to an https server who reads; null for an http one.</param>
    public static async Task<GrpcProxy> StartAsync(string server, bool asDoor, SslClientAuthenticationOptions? tls = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MinRequestBodyDataRate = null;
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Limits.MaxRequestBodySize = null;
            kestrel.Listen(IPAddress.Loopback, 0, listen => listen.Protocols = HttpProtocols.Http2);
        });
        var web = builder.Build();
        var proxy = new GrpcProxy(new Uri(server), web, asDoor, tls);
        web.Run(proxy.ForwardAsync);
        await web.StartAsync();
        proxy.Endpoint = web.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single();
        return proxy;
    }

    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await _web.StopAsync(patience.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _web.DisposeAsync();
        _far.Dispose();
    }

    private async Task ForwardAsync(HttpContext context)
    {
        if (context.Request.Path == "/etcdserverpb.KV/Range")
            Interlocked.Increment(ref _ranges);
        else if (context.Request.Path == "/etcdserverpb.Watch/Watch")
            Interlocked.Increment(ref _watches);
        else if (context.Request.Path == "/etcdserverpb.KV/Txn" && Interlocked.Increment(ref _transactions) > 0 && RefusesTransactions)
        {
            context.Response.ContentType = "application/grpc";
            context.Response.Headers["grpc-status"] = "7";
            return;
        }
        HttpContent content = new Passing(context.Request.Body);
        if (context.Request.Path.Value is "/etcdserverpb.KV/Range" or "/etcdserverpb.KV/Txn")
        {
            var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body, context.RequestAborted);
            var message = body.ToArray();
            content = new ByteArrayContent(message);
            if (NeedsQuorum(context.Request.Path, message.AsSpan(FrameHead)) && HasNoLeader)
            {
                context.Response.ContentType = "application/grpc";
                context.Response.Headers["grpc-status"] = "14";
                context.Response.Headers["grpc-message"] = "etcdserver: no leader";
                return;
            }
        }
        using var request = new HttpRequestMessage(HttpMethod.Post, new Uri(_server, context.Request.Path))
        {
            Version = HttpVersion.Version20,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = content,
        };
        request.Content.Headers.TryAddWithoutValidation("content-type", "application/grpc");
        request.Headers.TryAddWithoutValidation("te", "trailers");
        foreach (var name in (string[])["hasleader", "token"])
        {
            if (context.Request.Headers[name] is [{ } value, ..])
                request.Headers.TryAddWithoutValidation(name, value);
        }
        try
        {
            using var response = await _far.SendAsync(request, context.RequestAborted);
            context.Response.ContentType = "application/grpc";
            if (AsDoor || response.Headers.Contains(EtcdOptions.DoorHeader))
                context.Response.Headers[EtcdOptions.DoorHeader] = "1";
            var isWatch = context.Request.Path == "/etcdserverpb.Watch/Watch";
            Status(response.Headers, context.Response.Headers.Append);
            await context.Response.StartAsync(context.RequestAborted);
            await CopyAsync(await response.Content.ReadAsStreamAsync(context.RequestAborted), context, isWatch);
            Status(response.TrailingHeaders, context.Response.AppendTrailer);
        }
        catch (Exception e) when (e is HttpRequestException or IOException or OperationCanceledException)
        {
            context.Abort();
        }
    }

    private bool NeedsQuorum(string path, ReadOnlySpan<byte> message)
    {
        if (path == "/etcdserverpb.KV/Range")
            return !RangeRequest.Parser.ParseFrom(message).Serializable;
        var transaction = TxnRequest.Parser.ParseFrom(message);
        if (transaction.Compare.Count == 0 && transaction.Success.All(one => one.RequestRange is { Serializable: true }))
            return false;
        Interlocked.Increment(ref _provingTransactions);
        return true;
    }

    private static void Status(System.Net.Http.Headers.HttpResponseHeaders from, Action<string, Microsoft.Extensions.Primitives.StringValues> add)
    {
        foreach (var name in (string[])["grpc-status", "grpc-message"])
        {
            if (from.TryGetValues(name, out var values))
                add(name, values.ToArray());
        }
    }

    private async Task CopyAsync(Stream from, HttpContext context, bool isWatch)
    {
        var head = new byte[FrameHead];
        while (await from.ReadAtLeastAsync(head, FrameHead, throwOnEndOfStream: false, context.RequestAborted) == FrameHead)
        {
            var message = new byte[BinaryPrimitives.ReadInt32BigEndian(head.AsSpan(1))];
            await from.ReadExactlyAsync(message, context.RequestAborted);
            if (isWatch && Lose is { } lose)
            {
                if (Without(message, lose) is not { } left)
                    continue;
                message = left;
            }
            BinaryPrimitives.WriteInt32BigEndian(head.AsSpan(1), message.Length);
            await context.Response.Body.WriteAsync(head, context.RequestAborted);
            await context.Response.Body.WriteAsync(message, context.RequestAborted);
            await context.Response.Body.FlushAsync(context.RequestAborted);
        }
    }

    /// <summary>The message without the events that are to be lost; null when none is left.</summary>
    private byte[]? Without(byte[] message, Func<Mvccpb.Event, bool> lose)
    {
        var response = WatchResponse.Parser.ParseFrom(message);
        if (response.Events.Count == 0)
            return message;
        var kept = response.Events.Where(e => !lose(e)).ToList();
        Interlocked.Add(ref _dropped, response.Events.Count - kept.Count);
        response.Events.Clear();
        response.Events.AddRange(kept);
        return kept.Count == 0 ? null : response.ToByteArray();
    }

    private sealed class Passing(Stream from) : HttpContent
    {
        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            var buffer = new byte[16 * 1024];
            while (await from.ReadAsync(buffer) is var count and > 0)
            {
                await stream.WriteAsync(buffer.AsMemory(0, count));
                await stream.FlushAsync();
            }
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
