using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text.Json;

namespace Mesh.Joining;

/// <summary>Why a file, a text or a connection could not be used, in words for whoever mends it. The exception's own text is for
/// programmers: it names their types and counts their bytes.</summary>
public static class InWords
{
    /// <summary>Half a sentence without the subject, such as "there is no such file". Names no file.</summary>
    public static string Of(Exception e) => e switch
    {
        FileNotFoundException => "there is no such file",
        DirectoryNotFoundException => "there is no such directory",
        UnauthorizedAccessException => "this user may not read or write it: run as its owner, or give it to this user",
        JsonException { LineNumber: { } line, BytePositionInLine: { } place } => $"line {line + 1}, column {place + 1} is not the JSON that it should be",
        JsonException => "it is not the JSON that it should be",
        FormatException => "it is not the text that it should be",
        CryptographicException => "it is not a certificate or key in PEM, or not a pair",
        SocketException socket => Of(socket.SocketErrorCode),
        IOException { InnerException: SocketException socket } => Of(socket.SocketErrorCode),
        OperationCanceledException => "no answer in time",
        _ => e.Message,
    };

    private static string Of(SocketError error) => error switch
    {
        SocketError.ConnectionRefused => "connection refused",
        SocketError.TimedOut => "no answer in time",
        SocketError.HostUnreachable or SocketError.NetworkUnreachable => "there is no route to it",
        SocketError.ConnectionReset or SocketError.Shutdown or SocketError.ConnectionAborted => "the other side closed the connection",
        SocketError.AddressAlreadyInUse => "the port is in use by another program",
        SocketError.AddressNotAvailable => "this host does not have that address",
        SocketError.AccessDenied => "this user may not use that port",
        _ => $"the network said {error}",
    };
}
