using System.Net;
using System.Net.Sockets;

namespace Mesh.TestKit;

/// <summary>A TCP forwarder on a loopback port whose wire can be cut, frozen, and led elsewhere.</summary>
public sealed class TcpProxy : IAsyncDisposable
{
    private readonly TcpListener _listener;
    private readonly CancellationTokenSource _stop = new();
    private readonly Lock _lock = new();
    private readonly List<Socket> _open = [];
    private readonly List<Task> _pumps = [];
    private readonly Task _accepting;
    private int _target;
    private bool _cut;

    /// <param name="listen">Where it answers; 127.0.0.1 when null.</param>
    public TcpProxy(int targetPort, IPAddress? listen = null)
    {
        _listener = new TcpListener(listen ?? IPAddress.Loopback, 0);
        _target = targetPort;
        _listener.Start();
        _accepting = Task.Run(AcceptAsync);
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    public string Endpoint => $"http://127.0.0.1:{Port}";

    /// <summary>Resets every connection, and each new one until <see cref="Heal"/>.</summary>
    public void Cut()
    {
        lock (_lock)
        {
            _cut = true;
            Reset_NeedsLock();
        }
    }

    /// <summary>Forwards again, to another port if one is given.</summary>
    public void Heal(int? targetPort = null)
    {
        lock (_lock)
        {
            _target = targetPort ?? _target;
            _cut = false;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        lock (_lock)
            Reset_NeedsLock();
        _listener.Stop();
        await _accepting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await Task.WhenAll(_pumps).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private void Reset_NeedsLock()
    {
        foreach (var socket in _open)
            socket.Close(0);
        _open.Clear();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            var near = await _listener.AcceptSocketAsync(_stop.Token);
            var far = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            near.NoDelay = true;
            lock (_lock)
            {
                _open.Add(near);
                _open.Add(far);
                if (_cut)
                {
                    Reset_NeedsLock();
                    continue;
                }
                _pumps.Add(ForwardAsync(near, far, _target));
            }
        }
    }

    private async Task ForwardAsync(Socket near, Socket far, int target)
    {
        try
        {
            await far.ConnectAsync(new IPEndPoint(IPAddress.Loopback, target), _stop.Token);
            await Task.WhenAny(PumpAsync(near, far), PumpAsync(far, near));
        }
        catch (SocketException)
        {
            // The target refuses: the near side sees its connection end, as it would without us.
        }
        finally
        {
            near.Dispose();
            far.Dispose();
        }
    }

    private async Task PumpAsync(Socket from, Socket to)
    {
        var buffer = new byte[64 * 1024];
        while (await from.ReceiveAsync(buffer, _stop.Token) is var count and > 0)
        {
            for (var sent = 0; sent < count;)
                sent += await to.SendAsync(buffer.AsMemory(sent, count - sent), _stop.Token);
        }
    }
}
