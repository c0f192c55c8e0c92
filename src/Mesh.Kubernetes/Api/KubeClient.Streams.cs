using System.Buffers;
using System.Globalization;
using System.IO.Pipelines;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.Json;

namespace Mesh.Kubernetes.Api;

/// <summary>Answers that come bit by bit: watches and logs.</summary>
public sealed partial class KubeClient
{
    /// <summary>An object of 1.5 MiB, etcd's bound, is larger as JSON with its managed fields; beyond this a line is no event.</summary>
    private const int LineMaxBytes = 64 << 20;

    /// <summary>What the server may be late with ending a watch.</summary>
    private static readonly TimeSpan WatchGrace = TimeSpan.FromSeconds(15);

    /// <summary>Changes after a resource version, until the server ends the watch (as it does after <paramref name="life"/>) or it breaks.</summary>
    /// <exception cref="KubeApiException">Gone when the version is too old: list anew. Unreachable when the connection broke.</exception>
    public async IAsyncEnumerable<KubeEvent<T>> WatchAsync<T>(KubeResource<T> resource, string? ns, string resourceVersion, TimeSpan life,
        KubeSelection? selection, [EnumeratorCancellation] CancellationToken cancellation)
        where T : class
    {
        var path = resource.PathOf(ns) + Query(("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", resourceVersion),
            ("timeoutSeconds", ((int)Math.Max(1, life.TotalSeconds)).ToString(CultureInfo.InvariantCulture)),
            ("labelSelector", selection?.LabelSelector), ("fieldSelector", selection?.FieldSelector));
        using var response = await _transport.OpenAsync(path, cancellation).ConfigureAwait(false);
        using var deadline = new CancellationTokenSource(life + WatchGrace, _options.Time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation, deadline.Token);
        var reader = PipeReader.Create(await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false),
            new StreamPipeReaderOptions(bufferSize: 64 * 1024));
        try
        {
            while (await NextLineAsync(reader, path, deadline, either.Token, cancellation).ConfigureAwait(false) is { } line)
                yield return ReadEvent(line, resource);
        }
        finally
        {
            await reader.CompleteAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Lines of a container's log.</summary>
    /// <param name="container">Null when the pod has but one.</param>
    /// <param name="follow">Go on with what it writes from now on, until it ends.</param>
    /// <param name="previous">The container before the last restart.</param>
    public async IAsyncEnumerable<string> LogsAsync(string ns, string pod, string? container, [EnumeratorCancellation] CancellationToken cancellation,
        bool follow = false, int? tailLines = null, bool previous = false)
    {
        var path = KubeResources.Pods.PathOf(ns, pod, "log") + Query(("container", container), ("follow", follow ? "true" : null),
            ("tailLines", tailLines?.ToString(CultureInfo.InvariantCulture)), ("previous", previous ? "true" : null));
        using var response = await _transport.OpenAsync(path, cancellation).ConfigureAwait(false);
        var reader = PipeReader.Create(await response.Content.ReadAsStreamAsync(cancellation).ConfigureAwait(false));
        try
        {
            while (await NextLineAsync(reader, path, null, cancellation, cancellation).ConfigureAwait(false) is { } line)
                yield return Encoding.UTF8.GetString(line).TrimEnd('\r');
        }
        finally
        {
            await reader.CompleteAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Null at the end. A last line without its end is one that broke off, and counts for a log but for no event.</summary>
    private async Task<byte[]?> NextLineAsync(PipeReader reader, string path, CancellationTokenSource? deadline, CancellationToken either,
        CancellationToken cancellation)
    {
        try
        {
            while (true)
            {
                var read = await reader.ReadAsync(either).ConfigureAwait(false);
                var buffer = read.Buffer;
                if (buffer.PositionOf((byte)'\n') is { } end)
                {
                    var line = buffer.Slice(0, end).ToArray();
                    reader.AdvanceTo(buffer.GetPosition(1, end));
                    if (line.Length > 0)
                        return line;
                    continue;
                }
                if (read.IsCompleted)
                {
                    var rest = buffer.ToArray();
                    reader.AdvanceTo(buffer.End);
                    return rest.Length == 0 ? null : rest;
                }
                if (buffer.Length > LineMaxBytes)
                    throw new KubeApiException(KubeFault.BadAnswer, $"GET {path.Split('?')[0]}: a line longer than {LineMaxBytes >> 20} MiB");
                reader.AdvanceTo(buffer.Start, buffer.End);
            }
        }
        catch (Exception e) when (_transport.Translate(e, HttpMethod.Get, path, deadline?.IsCancellationRequested == true, cancellation) is { } fault)
        {
            throw fault;
        }
    }

    private static KubeEvent<T> ReadEvent<T>(byte[] line, KubeResource<T> resource)
        where T : class
    {
        try
        {
            using var parsed = JsonDocument.Parse(line);
            var root = parsed.RootElement;
            var type = root.ValueKind == JsonValueKind.Object ? ItemReading.Text(root, "type") : "";
            if (!root.TryGetProperty("object", out var subject))
                throw new JsonException("an event without an object");
            switch (type)
            {
                case "ADDED":
                    return new KubeEvent<T>(KubeEventType.Added, ItemReading.Item(subject, resource.Type));
                case "MODIFIED":
                    return new KubeEvent<T>(KubeEventType.Modified, ItemReading.Item(subject, resource.Type));
                case "DELETED":
                    return new KubeEvent<T>(KubeEventType.Deleted, ItemReading.Item(subject, resource.Type));
                case "BOOKMARK":
                    var version = subject.TryGetProperty("metadata", out var metadata) ? ItemReading.Text(metadata, "resourceVersion") : "";
                    return new KubeEvent<T>(KubeEventType.Bookmark, new KubeItem<T>(default, version, null, null));
                case "ERROR":
                    var status = subject.Deserialize(KubeJson.Default.KubeStatus);
                    throw KubeTransport.Refusal($"watch of {resource}", (HttpStatusCode)(status?.Code ?? 500), status, status?.Message ?? "", null);
                default:
                    throw new JsonException($"an event of the unknown type '{Objects.ObjectRules.Shown(type)}'");
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new KubeApiException(KubeFault.BadAnswer, $"watch of {resource}: {KubeConfiguration.OneLine(e.Message)}", e);
        }
    }
}
