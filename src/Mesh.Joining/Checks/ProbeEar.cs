using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Mesh.Joining.Listening;

namespace Mesh.Joining.Checks;

/// <summary>Hears probes at the tunnel's port of one address. It can do so only where no tunnel has the port.</summary>
internal sealed class ProbeEar : IAsyncDisposable
{
    private const int ProbesMax = 64;
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(5);
    private readonly Socket _socket;
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _loop;
    private readonly ConcurrentDictionary<ulong, ConcurrentDictionary<int, bool>> _heard = new();

    private ProbeEar(Socket socket)
    {
        _socket = socket;
        _loop = Task.Run(ListenAsync);
    }

    /// <returns>The ear, or why there is none.</returns>
    public static (ProbeEar? Ear, string? Reason) Open(OpenSocket open, IPEndPoint address)
    {
        var socket = open(address.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
        try
        {
            socket.Bind(address);
            return (new ProbeEar(socket), null);
        }
        catch (SocketException e)
        {
            socket.Dispose();
            return (null, e.SocketErrorCode == SocketError.AddressAlreadyInUse
                ? $"UDP {address.Port} of {address.Address} is in use, by a tunnel most likely" : $"UDP {address} cannot be heard: {InWords.Of(e)}");
        }
    }

    public static ulong ParseNonce(string text) => ulong.TryParse(text, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var nonce)
        ? nonce : throw JoinException.Malformed("the probe's nonce is not a number of 16 hexadecimal digits");

    public void Expect(ulong nonce)
    {
        if (_heard.Count >= ProbesMax)
            _heard.Clear();
        _heard.TryAdd(nonce, new ConcurrentDictionary<int, bool>());
    }

    public void Forget(ulong nonce) => _heard.TryRemove(nonce, out _);

    /// <summary>The sizes heard, once all that were sent are there or the time is up; largest first.</summary>
    public async Task<IReadOnlyList<int>> HeardAsync(ulong nonce, IReadOnlyList<int> sent, TimeSpan patience, CancellationToken cancellation)
    {
        if (!_heard.TryGetValue(nonce, out var sizes))
            return [];
        var end = TimeProvider.System.GetTimestamp();
        while (sent.Any(size => !sizes.ContainsKey(size)) && TimeProvider.System.GetElapsedTime(end) < patience)
            await Task.Delay(Pause, cancellation);
        return [.. sizes.Keys.OrderDescending()];
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _socket.Dispose();
        await _loop.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        _stop.Dispose();
    }

    private async Task ListenAsync()
    {
        var buffer = new byte[64 << 10];
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                var length = await _socket.ReceiveAsync(buffer, _stop.Token);
                if (ProbeDatagram.Read(buffer.AsSpan(0, length), _socket.AddressFamily, out var nonce) is > 0 and var size
                    && _heard.TryGetValue(nonce, out var sizes))
                    sizes[size] = true;
            }
            catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
            catch (SocketException)
            {
                // An ICMP error of some other datagram: the next one is awaited.
            }
        }
    }
}
