using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Mesh.Lab.Pods;

/// <summary>
/// A pod's server: answers each line (TCP) or datagram (UDP) with one line, its own name and what it was sent. On port 8080 and
/// 5353, TCP and UDP, IPv4 and IPv6. A line that is an HTTP request is answered in HTTP, so that curl works.
/// </summary>
public sealed class Echo(string name)
{
    private const int LineBytesMax = 8192;

    public async Task RunAsync(IReadOnlyList<int> ports, CancellationToken cancel)
    {
        var loops = new List<Task>();
        foreach (var port in ports)
        {
            var any = new IPEndPoint(IPAddress.IPv6Any, port);
            var listener = new Socket(AddressFamily.InterNetworkV6, SocketType.Stream, ProtocolType.Tcp) { DualMode = true };
            listener.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            listener.Bind(any);
            listener.Listen(4096);
            var datagrams = new Socket(AddressFamily.InterNetworkV6, SocketType.Dgram, ProtocolType.Udp) { DualMode = true };
            datagrams.Bind(any);
            loops.Add(AcceptAsync(listener, cancel));
            loops.Add(DatagramsAsync(datagrams, cancel));
        }
        Console.Error.WriteLine($"{name} answers on ports {string.Join(", ", ports)}");
        // Whichever loop ends first ends the process: the keeper starts a whole new one.
        await await Task.WhenAny(loops);
    }

    private async Task AcceptAsync(Socket listener, CancellationToken cancel)
    {
        var connections = new HashSet<Task>();
        while (true)
        {
            var connection = await listener.AcceptAsync(cancel);
            connections.RemoveWhere(t => t.IsCompleted);
            connections.Add(ConversationAsync(connection, cancel));
        }
    }

    private async Task ConversationAsync(Socket connection, CancellationToken cancel)
    {
        try
        {
            connection.NoDelay = true;
            await using var stream = new NetworkStream(connection, ownsSocket: true);
            using var reader = new StreamReader(stream, Encoding.UTF8, false, LineBytesMax, leaveOpen: true);
            while (await reader.ReadLineAsync(cancel) is { } line)
            {
                if (line.EndsWith(" HTTP/1.1", StringComparison.Ordinal) || line.EndsWith(" HTTP/1.0", StringComparison.Ordinal))
                {
                    await HttpAsync(stream, reader, line, cancel);
                    return;
                }
                await stream.WriteAsync(Answer(line), cancel);
            }
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException)
        {
            // The client went away, which is its right; the next connection is not concerned.
            connection.Dispose();
        }
    }

    private async Task HttpAsync(NetworkStream stream, StreamReader reader, string requestLine, CancellationToken cancel)
    {
        while (await reader.ReadLineAsync(cancel) is { Length: > 0 })
        {
            // Headers say nothing that matters here.
        }
        var body = Answer(requestLine[..requestLine.LastIndexOf(' ')]);
        var head = $"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {body.Length}\r\nConnection: close\r\n\r\n";
        await stream.WriteAsync(Encoding.ASCII.GetBytes(head), cancel);
        await stream.WriteAsync(body, cancel);
    }

    private async Task DatagramsAsync(Socket socket, CancellationToken cancel)
    {
        var buffer = new byte[65536];
        var anyone = new IPEndPoint(IPAddress.IPv6Any, 0);
        while (true)
        {
            try
            {
                var received = await socket.ReceiveFromAsync(buffer, SocketFlags.None, anyone, cancel);
                var request = Encoding.UTF8.GetString(buffer, 0, received.ReceivedBytes).TrimEnd('\r', '\n');
                await socket.SendToAsync(Answer(request), SocketFlags.None, received.RemoteEndPoint, cancel);
            }
            catch (SocketException e)
            {
                // An ICMP error of an earlier answer, reported late; it concerns that client only.
                Console.Error.WriteLine($"{name}: a datagram could not be answered: {e.Message}");
            }
        }
    }

    private byte[] Answer(string request) => Encoding.UTF8.GetBytes(request.Length == 0 ? $"{name}\n" : $"{name} {request}\n");
}
