using System.Net;
using Mesh.ClusterMesh.Door.Access;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>One listening port: Kestrel, TLS, the connections' book, and the requests. The self-test's port and the real one differ
/// only in address and in one more trusted authority.</summary>
internal sealed class DoorListener : IAsyncDisposable
{
    private static readonly TimeSpan PingDelay = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan PingTimeout = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan HandshakeTimeout = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(2);

    private readonly WebApplication _web;

    private DoorListener(WebApplication web) => _web = web;

    /// <summary>The bound port.</summary>
    public IPEndPoint Address { get; private set; } = new(IPAddress.None, 0);

    /// <exception cref="IOException">The address is in use or not ours.</exception>
    public static async Task<DoorListener> OpenAsync(
        IPEndPoint address, TlsMaterial tls, DoorConnections connections, DoorRequests requests, DoorLimits limits, CancellationToken cancellation)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        // A change goes out on the thread that has written it: handing it to another costs more than sending it.
        builder.WebHost.UseKestrelCore().UseSockets(sockets => sockets.UnsafePreferInlineScheduling = true)
            .UseKestrelHttpsConfiguration().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            Limit(kestrel.Limits, limits);
            kestrel.Listen(address, listen =>
            {
                listen.Protocols = HttpProtocols.Http1AndHttp2;
                listen.UseHttps(new TlsHandshakeCallbackOptions
                {
                    HandshakeTimeout = HandshakeTimeout,
                    OnConnection = _ => ValueTask.FromResult(tls.ForHandshake()),
                });
                listen.Use(connections.Wrap);
            });
        });
        var web = builder.Build();
        web.Run(requests.ServeAsync);
        var listener = new DoorListener(web);
        try
        {
            await web.StartAsync(cancellation);
        }
        catch
        {
            await web.DisposeAsync();
            throw;
        }
        var bound = new Uri(web.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single());
        listener.Address = new IPEndPoint(address.Address, bound.Port);
        return listener;
    }

    public async ValueTask DisposeAsync()
    {
        using var patience = new CancellationTokenSource(StopTimeout);
        await _web.StopAsync(patience.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await _web.DisposeAsync();
    }

    private static void Limit(KestrelServerLimits kestrel, DoorLimits limits)
    {
        kestrel.MaxConcurrentConnections = limits.Connections;
        // Watches have no end and may be silent for days; their own bounds are in WatchStream.
        kestrel.MinRequestBodyDataRate = null;
        kestrel.MinResponseDataRate = null;
        kestrel.MaxRequestBodySize = null;
        kestrel.MaxResponseBufferSize = limits.ResponseBytes;
        kestrel.RequestHeadersTimeout = HandshakeTimeout;
        kestrel.MaxRequestHeadersTotalSize = 16 << 10;
        kestrel.MaxRequestHeaderCount = 50;
        kestrel.Http2.MaxStreamsPerConnection = limits.StreamsPerConnection;
        kestrel.Http2.KeepAlivePingDelay = PingDelay;
        kestrel.Http2.KeepAlivePingTimeout = PingTimeout;
    }
}
