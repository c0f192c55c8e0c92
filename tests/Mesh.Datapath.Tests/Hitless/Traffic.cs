using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>
/// Clients of a service that never rest: one thread that connects anew so many times a second, one that goes round long connections.
/// Whatever is refused, reset, late, or had to be asked twice is kept. Threads are in the namespaces that they are made in.
/// </summary>
internal sealed class Traffic : IDisposable
{
    /// <summary>Each long connection is used about so often.</summary>
    private static readonly TimeSpan Round = TimeSpan.FromMilliseconds(50);

    /// <summary>Getting there at all.</summary>
    private static readonly TimeSpan Late = TimeSpan.FromSeconds(5);

    /// <summary>TCP_SYNCNT: asked twice, it is given up, after three seconds.</summary>
    private const int TcpSynCount = 7;

    /// <summary>IPPROTO_TCP, TCP_INFO, and where tcpi_total_retrans is in it.</summary>
    private const int TcpLevel = 6;
    private const int TcpInfo = 11;
    private const int TotalRetransmits = 100;

    private readonly IPEndPoint _service;
    private readonly List<Thread> _threads = [];
    private readonly List<Socket> _long = [];
    private readonly int _perSecond;
    private readonly CancellationTokenSource _stop = new();
    private int _connections;
    private int _exchanges;
    private long _slowest;

    /// <param name="client">Runs what it is given where the clients are.</param>
    internal Traffic(IPEndPoint service, Action<Action> client, int longOnes, int perSecond)
    {
        _service = service;
        _perSecond = perSecond;
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

    private Socket Connect()
    {
        var socket = new Socket(_service.AddressFamily, SocketType.Stream, ProtocolType.Tcp)
        { ReceiveTimeout = 5000, SendTimeout = 5000, NoDelay = true };
        // No ports wait in TIME_WAIT.
        socket.LingerState = new LingerOption(true, 0);
        socket.SetRawSocketOption(TcpLevel, TcpSynCount, BitConverter.GetBytes(1));
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
            if (number > Stopwatch.GetElapsedTime(begun).TotalSeconds * _perSecond && _stop.Token.WaitHandle.WaitOne(1))
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
