using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>
/// Clients of a service that never rest: one thread that connects anew a thousand times a second, one that goes round long connections.
/// Whatever is refused, reset, late, or had to be asked twice is kept. Threads are in the namespaces that they are made in.
/// </summary>
internal sealed class Traffic : IDisposable
{
    private const int PerSecond = 1000;

    /// <summary>Each long connection is used about so often.</summary>
    private static readonly TimeSpan Round = TimeSpan.FromMilliseconds(50);

    /// <summary>Getting there at all.</summary>
    private static readonly TimeSpan Late = TimeSpan.FromSeconds(5);

    /// <summary>IPPROTO_TCP, TCP_INFO, and where tcpi_total_retrans is in it.</summary>
    private const int TcpLevel = 6;
    private const int TcpInfo = 11;
    private const int TotalRetransmits = 100;

    private readonly IPEndPoint _service;
    private readonly List<Thread> _threads = [];
    private readonly List<Socket> _long = [];
    private readonly Socket _listener;
    private readonly CancellationTokenSource _stop = new();
    private int _connections;
    private int _exchanges;
    private long _slowest;

    /// <param name="server">Runs what it is given where the backend is.</param>
    /// <param name="client">Runs what it is given where the clients are.</param>
    internal Traffic(IPEndPoint service, IPEndPoint backend, Action<Action> server, Action<Action> client, int longOnes)
    {
        _service = service;
        Socket? listener = null;
        server(() =>
        {
            listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            listener.Bind(backend);
            listener.Listen(512);
        });
        _listener = listener!;
        Start(Serve);
        client(() =>
        {
            for (var i = 0; i < longOnes; i++)
                _long.Add(Connect());
        });
        Start(() => client(ConnectForEver));
        Start(GoRound);
    }

    internal ConcurrentQueue<string> Faults { get; } = [];

    internal int Connections => Volatile.Read(ref _connections);

    internal int Exchanges => Volatile.Read(ref _exchanges);

    internal TimeSpan Slowest => TimeSpan.FromTicks(Volatile.Read(ref _slowest));

    public void Dispose()
    {
        _stop.Cancel();
        _listener.Dispose();
        foreach (var thread in _threads)
            thread.Join();
        foreach (var socket in _long)
            socket.Dispose();
        _stop.Dispose();
    }

    private void Start(Action work)
    {
        var thread = new Thread(() =>
        {
            try
            {
                work();
            }
            catch (Exception exception) when (exception is SocketException or ObjectDisposedException)
            {
                if (!_stop.IsCancellationRequested)
                    Faults.Enqueue($"thread ended: {exception.Message}");
            }
        })
        { IsBackground = true };
        thread.Start();
        _threads.Add(thread);
    }

    /// <summary>Gives back what it gets, each connection on the pool.</summary>
    private void Serve()
    {
        while (!_stop.IsCancellationRequested)
        {
            var socket = _listener.Accept();
            _ = EchoAsync(socket);
        }
    }

    private static async Task EchoAsync(Socket socket)
    {
        using var _ = socket;
        var buffer = new byte[16];
        try
        {
            while (await socket.ReceiveAsync(buffer) is var count and > 0)
                await socket.SendAsync(buffer.AsMemory(0, count));
        }
        catch (SocketException)
        {
            // The client has said what is wrong.
        }
    }

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
        { ReceiveTimeout = 5000, SendTimeout = 5000, NoDelay = true };
        // No ports wait in TIME_WAIT.
        socket.LingerState = new LingerOption(true, 0);
        socket.Connect(_service);
        return socket;
    }

    private static void Exchange(Socket socket)
    {
        var buffer = new byte[] { 42 };
        socket.Send(buffer);
        if (socket.Receive(buffer) != 1)
            throw new SocketException((int)SocketError.ConnectionReset);
    }

    /// <summary>Segments sent again: of a connection that was just opened, its first question.</summary>
    private static int Repeated(Socket socket)
    {
        Span<byte> info = stackalloc byte[TotalRetransmits + sizeof(int)];
        return socket.GetRawSocketOption(TcpLevel, TcpInfo, info) < info.Length ? 0 : BitConverter.ToInt32(info[TotalRetransmits..]);
    }

    private void ConnectForEver()
    {
        var begun = Stopwatch.GetTimestamp();
        for (var number = 0L; !_stop.IsCancellationRequested; number++)
        {
            // When behind, it catches up.
            if (number > Stopwatch.GetElapsedTime(begun).TotalSeconds * PerSecond && _stop.Token.WaitHandle.WaitOne(1))
                return;
            var start = Stopwatch.GetTimestamp();
            try
            {
                using var socket = Connect();
                if (Repeated(socket) > 0)
                    Faults.Enqueue("new connection: asked twice");
                Exchange(socket);
                Interlocked.Increment(ref _connections);
            }
            catch (SocketException exception)
            {
                if (!_stop.IsCancellationRequested)
                    Faults.Enqueue($"new connection: {exception.SocketErrorCode}");
            }
            var took = Stopwatch.GetElapsedTime(start);
            if (took.Ticks > _slowest)
                Volatile.Write(ref _slowest, took.Ticks);
            if (took > Late)
                Faults.Enqueue($"new connection took {took.TotalMilliseconds:F0} ms");
        }
    }

    private void GoRound()
    {
        while (!_stop.Token.WaitHandle.WaitOne(Round))
            foreach (var socket in _long)
            {
                try
                {
                    Exchange(socket);
                    Interlocked.Increment(ref _exchanges);
                }
                catch (SocketException exception)
                {
                    if (!_stop.IsCancellationRequested)
                        Faults.Enqueue($"long connection: {exception.SocketErrorCode}");
                    return;
                }
                if (_stop.IsCancellationRequested)
                    return;
            }
    }
}
