using System.Net.Sockets;
using System.Text;

namespace Mesh.Cli.Tests;

/// <summary>An agent's socket that answers each path below /v1/ with a text of the test's.</summary>
internal sealed class StubAgent : IAsyncDisposable
{
    private readonly DirectoryInfo _directory = Directory.CreateTempSubdirectory("stub-agent");
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly IReadOnlyDictionary<string, string> _answers;
    private readonly Task _serving;

    public StubAgent(IReadOnlyDictionary<string, string> answers)
    {
        _answers = answers;
        _listener.Bind(new UnixDomainSocketEndPoint(Socket));
        _listener.Listen();
        _serving = ServeAsync();
    }

    public string Socket => Path.Combine(_directory.FullName, "cilium.sock");

    public async ValueTask DisposeAsync()
    {
        _listener.Dispose();
        await _serving;
        _directory.Delete(recursive: true);
    }

    private async Task ServeAsync()
    {
        while (true)
        {
            try
            {
                using var one = await _listener.AcceptAsync();
                var request = "";
                var buffer = new byte[4096];
                while (!request.Contains("\r\n\r\n", StringComparison.Ordinal) && await one.ReceiveAsync(buffer) is > 0 and var count)
                    request += Encoding.ASCII.GetString(buffer, 0, count);
                var known = _answers.TryGetValue(request.Split(' ')[1]["/v1/".Length..], out var body);
                await one.SendAsync(Encoding.UTF8.GetBytes($"HTTP/1.1 {(known ? "200 OK" : "404 Not Found")}\r\nContent-Type: application/json\r\n"
                    + $"Content-Length: {Encoding.UTF8.GetByteCount(body ?? "")}\r\nConnection: close\r\n\r\n{body}"));
            }
            catch (Exception e) when (e is ObjectDisposedException or SocketException)
            {
                // Closed.
                return;
            }
        }
    }
}
