using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>A backend that gives back what it gets.</summary>
internal sealed class Echo : IDisposable
{
    private readonly Socket _listener;
    private readonly ConcurrentDictionary<Socket, bool> _sockets = [];
    private readonly Task _serving;

    /// <param name="server">Runs what it is given where the backend is.</param>
    internal Echo(IPEndPoint backend, Action<Action> server)
    {
        Socket? listener = null;
        server(() =>
        {
            listener = new Socket(backend.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(backend);
            listener.Listen(512);
        });
        _listener = listener!;
        _serving = Task.Run(ServeAsync);
    }

    public void Dispose()
    {
        _listener.Dispose();
        // A client's end may never have got here.
        foreach (var socket in _sockets.Keys)
            socket.Dispose();
        _serving.Wait();
    }

    private async Task ServeAsync()
    {
        var conversations = new List<Task>();
        try
        {
            while (true)
            {
                conversations.Add(TalkAsync(await _listener.AcceptAsync()));
                if (conversations.Count > 1000)
                    conversations.RemoveAll(one => one.IsCompleted);
            }
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The listener is closed, while it waited or between two clients.
        }
        await Task.WhenAll(conversations);
    }

    private async Task TalkAsync(Socket socket)
    {
        using var _ = socket;
        _sockets[socket] = true;
        var buffer = new byte[16];
        try
        {
            while (await socket.ReceiveAsync(buffer) is var count and > 0)
                await socket.SendAsync(buffer.AsMemory(0, count));
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
        {
            // The client has said what is wrong.
        }
        _sockets.TryRemove(socket, out bool _);
    }
}
