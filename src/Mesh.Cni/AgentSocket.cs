using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;

namespace Mesh.Cni;

/// <summary>
/// Asks the agent over its unix socket: one connection and one HTTP/1.0 question each, which the server answers without chunks and by closing.
/// An HTTP client of the framework would take longer to start than the whole plugin may.
/// </summary>
internal sealed class AgentSocket(string path)
{
    /// <summary>The agent may wait for the kernel for ten seconds, and for its own start as long.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private const int LongestAnswer = 16 * 1024 * 1024;

    public string Path => path;

    /// <exception cref="AgentAwayException">Nobody answered, or it said that it is not ready.</exception>
    /// <exception cref="CniException">It refused.</exception>
    public byte[] Ask(string method, string resource, byte[]? body = null)
    {
        var (status, answer) = Exchange(method, resource, body ?? []);
        return status switch
        {
            >= 200 and < 300 => answer,
            503 => throw new AgentAwayException($"the agent on {path} cannot do it yet: {Message(answer)}"),
            404 => throw new NotKnownException(Message(answer)),
            _ => throw new CniException(CniCode.Refused, $"the agent on {path} refused: {Message(answer)}"),
        };
    }

    private (int Status, byte[] Body) Exchange(string method, string resource, byte[] body)
    {
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            {
                SendTimeout = (int)Patience.TotalMilliseconds,
                ReceiveTimeout = (int)Patience.TotalMilliseconds,
            };
            socket.Connect(new UnixDomainSocketEndPoint(path));
            var head = string.Create(CultureInfo.InvariantCulture,
                $"{method} /v1/{resource} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {body.Length}\r\n\r\n");
            Send(socket, [.. Encoding.ASCII.GetBytes(head), .. body]);
            return Parse(ReceiveAll(socket));
        }
        catch (Exception e) when (e is SocketException or IOException or ArgumentException)
        {
            var cause = e is SocketException { SocketErrorCode: SocketError.TimedOut or SocketError.WouldBlock }
                ? $"no answer within {Patience.TotalSeconds:0} s"
                : !File.Exists(path) ? "there is no such socket" : e.Message;
            throw new AgentAwayException($"the agent does not answer on {path}: {cause}: is it running on this node?");
        }
    }

    private static void Send(Socket socket, byte[] bytes)
    {
        for (var sent = 0; sent < bytes.Length;)
            sent += socket.Send(bytes.AsSpan(sent));
    }

    private static byte[] ReceiveAll(Socket socket)
    {
        var bytes = new byte[16 * 1024];
        for (var length = 0; ;)
        {
            var received = socket.Receive(bytes.AsSpan(length));
            if (received == 0)
                return bytes[..length];
            length += received;
            if (length > LongestAnswer)
                throw new IOException($"the answer is longer than {LongestAnswer} bytes");
            if (length == bytes.Length)
                Array.Resize(ref bytes, bytes.Length * 2);
        }
    }

    private static (int Status, byte[] Body) Parse(byte[] answer)
    {
        var end = answer.AsSpan().IndexOf("\r\n\r\n"u8);
        // "HTTP/1.1 200 OK"
        if (end < 0 || !int.TryParse(Encoding.ASCII.GetString(answer, 0, Math.Min(end, 12)).Split(' ') is [_, var word, ..] ? word : "",
            NumberStyles.None, CultureInfo.InvariantCulture, out var status))
            throw new IOException("the answer was cut off");
        return (status, answer[(end + 4)..]);
    }

    private static string Message(byte[] body)
    {
        try
        {
            return JsonSerializer.Deserialize(body, CniJson.Default.String) ?? "";
        }
        catch (JsonException)
        {
            // Not one of ours: the text as it is says most.
            return Encoding.UTF8.GetString(body).Trim();
        }
    }
}

/// <summary>Nobody who could do it answers now.</summary>
internal sealed class AgentAwayException(string message) : Exception(message);

/// <summary>The agent does not know what it was asked about.</summary>
internal sealed class NotKnownException(string message) : Exception(message);
