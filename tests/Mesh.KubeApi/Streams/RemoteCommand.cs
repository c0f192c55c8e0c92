using System.IO.Pipelines;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Threading.Channels;
using Mesh.KubeApi.Objects;

namespace Mesh.KubeApi.Streams;

/// <summary>
/// The streams of one exec or attach, whatever carries them: what arrives goes into <see cref="InputPipe"/> and
/// <see cref="Resized"/>; what the command writes goes out by the carrier's senders; at the end a Status says how it went.
/// </summary>
internal abstract class RemoteCommand
{
    private readonly Channel<TerminalSize> _sizes = Channel.CreateUnbounded<TerminalSize>();

    /// <summary>Bounded: a command that does not read makes the client wait.</summary>
    protected Pipe InputPipe { get; } = new(new PipeOptions(pauseWriterThreshold: 256 * 1024, resumeWriterThreshold: 128 * 1024));

    protected void Resized(ReadOnlySpan<byte> json)
    {
        try
        {
            var size = JsonNode.Parse(json);
            _sizes.Writer.TryWrite(new TerminalSize((ushort)(size.Num("Width") ?? 0), (ushort)(size.Num("Height") ?? 0)));
        }
        catch (JsonException)
        {
            // Half a size is no size; the next one will do.
            return;
        }
    }

    protected void NoMoreSizes() => _sizes.Writer.TryComplete();

    public PodStreams Streams(bool input, bool output, bool error) =>
        new(input ? InputPipe.Reader.AsStream() : null, output ? Output : null, error ? Error : null)
        {
            Sizes = _sizes.Reader.ReadAllAsync(),
        };

    protected abstract Stream Output { get; }

    protected abstract Stream Error { get; }

    /// <summary>Takes what the client sends, until it goes.</summary>
    public abstract Task ReceiveAsync(CancellationToken stop);

    /// <summary>Says how it went and ends the connection in good order.</summary>
    public abstract Task CompleteAsync(JsonObject status, CancellationToken stop);

    public static JsonObject Succeeded() => new() { ["metadata"] = new JsonObject(), ["status"] = "Success" };

    public static JsonObject Exited(int code) => new()
    {
        ["metadata"] = new JsonObject(),
        ["status"] = "Failure",
        ["message"] = $"command terminated with non-zero exit code: exit status {code}",
        ["reason"] = "NonZeroExitCode",
        ["details"] = new JsonObject { ["causes"] = new JsonArray(new JsonObject { ["reason"] = "ExitCode", ["message"] = $"{code}" }) },
    };

    protected static byte[] Bytes(JsonObject status) => Encoding.UTF8.GetBytes(Json.Text(status));
}
