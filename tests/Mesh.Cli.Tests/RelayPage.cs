using System.Net;
using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.Cli.Tests;

/// <summary>GET /v1/cluster as a relay serves it.</summary>
internal sealed class RelayPage : IAsyncDisposable
{
    private readonly HttpListener _listener = new();
    private readonly Task _serving;

    private RelayPage(string address, Func<IReadOnlyList<RemoteCluster>> rows)
    {
        Address = address;
        _listener.Prefixes.Add($"http://{address}/");
        _listener.Start();
        _serving = ServeAsync(rows);
    }

    public string Address { get; }

    public static Task<RelayPage> StartAsync(Func<IReadOnlyList<RemoteCluster>> rows) =>
        Task.FromResult(new RelayPage($"127.0.0.1:{Mesh.TestKit.EtcdServer.FreePort()}", rows));

    public async ValueTask DisposeAsync()
    {
        _listener.Abort();
        await _serving;
    }

    private async Task ServeAsync(Func<IReadOnlyList<RemoteCluster>> rows)
    {
        while (_listener.IsListening)
        {
            try
            {
                var context = await _listener.GetContextAsync();
                context.Response.Close(JsonSerializer.SerializeToUtf8Bytes(rows(), AgentApiJson.Wire.IReadOnlyListRemoteCluster), willBlock: false);
            }
            catch (Exception e) when (e is HttpListenerException or ObjectDisposedException)
            {
                // Closed.
            }
        }
    }
}
