using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Threading.Channels;

namespace Mesh.Lab.Pods;

/// <summary>What became of one request.</summary>
/// <param name="At">When it began, in milliseconds since the Unix epoch.</param>
/// <param name="Target">Address it was sent to.</param>
/// <param name="From">Name of the pod that answered; null when none did.</param>
/// <param name="Milliseconds">From connect to the end of the answer, or to the failure.</param>
/// <param name="Error">Null when it was answered.</param>
public sealed record LoadResult(double At, string Target, string? From, double Milliseconds, string? Error)
{
    /// <summary>The cluster that answered; null when none did.</summary>
    [JsonIgnore]
    public string? Cluster => From?.Split('/')[0];

    public static LoadResult? Parse(string line) => JsonSerializer.Deserialize(line, LoadJson.Default.LoadResult);

    public string ToJson() => JsonSerializer.Serialize(this, LoadJson.Default.LoadResult);
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(LoadResult))]
internal sealed partial class LoadJson : JsonSerializerContext;

/// <summary>
/// Asks at a steady rate, a new connection (or socket) per request, and prints one JSON line per request. Requests begin by the
/// clock whether or not earlier ones have been answered, so that a stall shows as failures and not as silence.
/// </summary>
public sealed class Load(IReadOnlyList<IPEndPoint> targets, bool udp, int perSecond, TimeSpan timeout, TextWriter output)
{
    public const int PerSecondMax = 5000;

    /// <summary>Requests waiting for their answer; when so many do, the clock waits too.</summary>
    private const int InFlightMax = 2000;

    private static readonly byte[] Request = "load\n"u8.ToArray();

    /// <param name="count">How many requests; null until <paramref name="stop"/>.</param>
    public async Task RunAsync(int? count, CancellationToken stop)
    {
        var results = Channel.CreateUnbounded<LoadResult>();
        var printer = PrintAsync(results.Reader);
        using var slots = new SemaphoreSlim(InFlightMax);
        var asked = new List<Task>();
        var clock = Stopwatch.StartNew();
        for (var i = 0; (count is null || i < count) && !stop.IsCancellationRequested; i++)
        {
            var due = TimeSpan.FromSeconds((double)i / perSecond) - clock.Elapsed;
            if (due > TimeSpan.FromMilliseconds(1))
                await Task.Delay(due, stop).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            await slots.WaitAsync(CancellationToken.None);
            asked.RemoveAll(t => t.IsCompleted);
            asked.Add(AskAsync(targets[i % targets.Count], results.Writer, slots));
        }
        await Task.WhenAll(asked);
        results.Writer.Complete();
        await printer;
    }

    private async Task PrintAsync(ChannelReader<LoadResult> results)
    {
        while (await results.WaitToReadAsync())
        {
            while (results.TryRead(out var result))
                await output.WriteLineAsync(result.ToJson());
            await output.FlushAsync();
        }
    }

    private async Task AskAsync(IPEndPoint target, ChannelWriter<LoadResult> results, SemaphoreSlim slots)
    {
        await Task.Yield();
        var at = (DateTime.UtcNow - DateTime.UnixEpoch).TotalMilliseconds;
        var clock = Stopwatch.StartNew();
        string? from = null, error = null;
        using var deadline = new CancellationTokenSource(timeout);
        try
        {
            from = (await (udp ? DatagramAsync(target, deadline.Token) : ConnectionAsync(target, deadline.Token))).Split(' ')[0];
        }
        catch (OperationCanceledException)
        {
            error = string.Create(CultureInfo.InvariantCulture, $"no answer within {timeout.TotalMilliseconds:0} ms");
        }
        catch (Exception e) when (e is SocketException or IOException)
        {
            error = e.Message;
        }
        results.TryWrite(new LoadResult(at, target.ToString(), from, clock.Elapsed.TotalMilliseconds, error));
        slots.Release();
    }

    private static async Task<string> ConnectionAsync(IPEndPoint target, CancellationToken cancel)
    {
        using var socket = new Socket(target.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        await socket.ConnectAsync(target, cancel);
        await socket.SendAsync(Request, SocketFlags.None, cancel);
        return await LineAsync(socket, cancel);
    }

    private static async Task<string> DatagramAsync(IPEndPoint target, CancellationToken cancel)
    {
        using var socket = new Socket(target.AddressFamily, SocketType.Dgram, ProtocolType.Udp);
        await socket.ConnectAsync(target, cancel);
        await socket.SendAsync(Request, SocketFlags.None, cancel);
        return await LineAsync(socket, cancel);
    }

    private static async Task<string> LineAsync(Socket socket, CancellationToken cancel)
    {
        var buffer = new byte[512];
        var used = 0;
        while (used < buffer.Length)
        {
            var read = await socket.ReceiveAsync(buffer.AsMemory(used), SocketFlags.None, cancel);
            if (read == 0)
                throw new IOException("the connection was closed before the answer");
            used += read;
            if (buffer.AsSpan(0, used).Contains((byte)'\n'))
                return Encoding.UTF8.GetString(buffer, 0, used).TrimEnd('\n');
        }
        throw new IOException($"the answer is longer than {buffer.Length} bytes");
    }
}
