namespace Mesh.KubeApi;

/// <summary>
/// The node's side of a pod's streams: what a kube-apiserver asks of the kubelet. The server has looked up the pod, chosen and checked
/// the container and allowed the request before it calls.
/// <para>A failure that the client is to see is a <see cref="KubeApiException"/>; any other becomes 500 InternalError.</para>
/// </summary>
public interface IPodRuntime
{
    /// <summary>Runs a command in a container until it ends; reads and writes the streams given and gives its exit code.</summary>
    Task<int> ExecAsync(PodExec exec, PodStreams streams, CancellationToken stop);

    /// <summary>Joins the streams of the container's main process until it ends or the client goes.</summary>
    Task AttachAsync(PodExec attach, PodStreams streams, CancellationToken stop);

    /// <summary>Writes a container's log; with <see cref="PodLog.Follow"/> until the container ends or the client goes.</summary>
    Task LogAsync(PodLog log, Stream output, CancellationToken stop);

    /// <summary>A connection to a TCP port in the pod's network namespace; the caller disposes it.</summary>
    Task<Stream> ConnectAsync(string @namespace, string pod, int port, CancellationToken stop);
}

/// <summary>A command to run in a container: the argument vector as given, no shell.</summary>
public sealed record PodExec(string Namespace, string Pod, string Container, IReadOnlyList<string> Command, bool Tty)
{
    /// <summary>Name of the node that the pod is bound to.</summary>
    public string Node { get; init; } = "";
}

/// <summary>
/// Streams of one exec or attach. Null = not asked for. Standard input ends (reads 0) when the client closes it. Writes may be made
/// from several tasks at once and are sent at once.
/// </summary>
public sealed record PodStreams(Stream? Input, Stream? Output, Stream? Error)
{
    /// <summary>Sizes of the client's terminal, the first one at once; empty without a tty.</summary>
    public IAsyncEnumerable<TerminalSize> Sizes { get; init; } = AsyncEnumerable.Empty<TerminalSize>();
}

/// <summary>Columns and rows of a terminal.</summary>
public readonly record struct TerminalSize(ushort Width, ushort Height);

/// <summary>Which part of a container's log is wanted.</summary>
public sealed record PodLog(string Namespace, string Pod, string Container)
{
    public string Node { get; init; } = "";

    public bool Follow { get; init; }

    /// <summary>The log of the container's previous life.</summary>
    public bool Previous { get; init; }

    /// <summary>Each line begins with its time (RFC 3339, nanoseconds) and a space.</summary>
    public bool Timestamps { get; init; }

    /// <summary>Only that many lines of the end; null = all.</summary>
    public long? TailLines { get; init; }

    /// <summary>Only lines of this time or later.</summary>
    public DateTimeOffset? Since { get; init; }

    /// <summary>At most that many bytes.</summary>
    public long? LimitBytes { get; init; }
}
