using System.Net;
using System.Net.Sockets;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>A client that asks again and again for what a policy denies it, and counts how often it is let in.</summary>
internal sealed class Forbidden : IDisposable
{
    private const int PatienceMicroseconds = 50_000;
    private readonly Thread _thread;
    private volatile bool _stop;
    private int _attempts;
    private int _letIn;

    /// <param name="client">Runs what it is given where the client is.</param>
    internal Forbidden(IPEndPoint service, Action<Action> client)
    {
        _thread = new Thread(() => client(() =>
        {
            while (!_stop)
            {
                if (IsLetIn(service))
                    Interlocked.Increment(ref _letIn);
                Interlocked.Increment(ref _attempts);
            }
        }))
        { IsBackground = true };
        _thread.Start();
    }

    internal int Attempts => Volatile.Read(ref _attempts);

    internal int LetIn => Volatile.Read(ref _letIn);

    public void Dispose()
    {
        _stop = true;
        _thread.Join();
    }

    private static bool IsLetIn(IPEndPoint service)
    {
        using var socket = new Socket(service.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false, LingerState = new LingerOption(true, 0) };
        try
        {
            socket.Connect(service);
        }
        catch (SocketException exception) when (exception.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
        {
            // It is on its way.
        }
        return socket.Poll(PatienceMicroseconds, SelectMode.SelectWrite)
            && (int)socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.Error)! == 0;
    }
}
