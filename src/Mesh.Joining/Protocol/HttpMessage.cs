using System.Globalization;
using System.Text;

namespace Mesh.Joining.Protocol;

/// <summary>
/// The little of HTTP/1.1 that a join needs: a start line, headers, a body of a told length, one after the other on a connection. Both
/// ends are ours, so everything else is refused; every size is bounded before it is read.
/// </summary>
/// <param name="StartLine">POST /v1/join/begin HTTP/1.1, or HTTP/1.1 200 OK.</param>
internal sealed record HttpMessage(string StartLine, IReadOnlyDictionary<string, string> Headers, byte[] Body)
{
    private const int HeadMax = 8 << 10;

    public string? Header(string name) => Headers.GetValueOrDefault(name);

    /// <returns>Null when the other side closed between two messages.</returns>
    /// <exception cref="JoinException">Not such a message, or too large.</exception>
    public static async Task<HttpMessage?> ReadAsync(Stream stream, int bodyMax, CancellationToken cancellation)
    {
        var head = new byte[HeadMax];
        var length = 0;
        while (true)
        {
            // Byte by byte would be slow on a bare socket, but TLS hands out of its own buffer, and nothing behind the head may be taken.
            if (length == HeadMax)
                throw JoinException.Malformed($"the head of the message is longer than {HeadMax} bytes");
            var read = await stream.ReadAsync(head.AsMemory(length, 1), cancellation);
            if (read == 0)
                return length == 0 ? null : throw JoinException.Malformed("the connection was closed within a message");
            length++;
            if (length >= 4 && head.AsSpan(length - 4, 4).SequenceEqual("\r\n\r\n"u8))
                break;
        }
        var lines = Encoding.ASCII.GetString(head, 0, length - 4).Split("\r\n");
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        foreach (var line in lines.Skip(1))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon <= 0 || !headers.TryAdd(line[..colon], line[(colon + 1)..].Trim()))
                throw JoinException.Malformed("a header of the message is not one, or is there twice");
        }
        return new HttpMessage(lines[0], headers, await ReadBodyAsync(stream, headers, bodyMax, cancellation));
    }

    private static async Task<byte[]> ReadBodyAsync(
        Stream stream, Dictionary<string, string> headers, int bodyMax, CancellationToken cancellation)
    {
        if (headers.ContainsKey("transfer-encoding"))
            throw JoinException.Malformed("a body without a told length is not read");
        if (!headers.TryGetValue("content-length", out var text))
            return [];
        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var length))
            throw JoinException.Malformed("content-length is not a number");
        if (length > bodyMax)
            throw new JoinException("oversize", $"a body of {length} bytes: at most {bodyMax} are read");
        var body = new byte[length];
        var read = await stream.ReadAtLeastAsync(body, length, throwOnEndOfStream: false, cancellation);
        return read == length ? body : throw JoinException.Malformed("the connection was closed within a message");
    }

    public static async Task WriteAsync(
        Stream stream, string startLine, byte[] body, CancellationToken cancellation, params (string Name, string Value)[] headers)
    {
        var head = new StringBuilder(startLine).Append("\r\nContent-Type: application/json\r\nContent-Length: ").Append(body.Length).Append("\r\n");
        foreach (var (name, value) in headers)
            head.Append(name).Append(": ").Append(value).Append("\r\n");
        var bytes = Encoding.ASCII.GetBytes(head.Append("\r\n").ToString());
        await stream.WriteAsync((byte[])[.. bytes, .. body], cancellation);
        await stream.FlushAsync(cancellation);
    }
}
