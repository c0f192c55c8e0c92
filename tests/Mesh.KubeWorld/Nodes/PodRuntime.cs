using System.Diagnostics;
using System.Net.Sockets;
using Mesh.KubeApi;
using Mesh.TestKit;

namespace Mesh.KubeWorld.Nodes;

/// <summary>Exec and logs of a cluster's pods, for its API server.</summary>
internal sealed class PodRuntime(Func<string, Kubelet?> kubelet) : IPodRuntime
{
    public async Task<int> ExecAsync(PodExec exec, PodStreams streams, CancellationToken stop)
    {
        var container = kubelet(exec.Node)?.Find(exec.Namespace, exec.Pod)?.Running(exec.Container)
            ?? throw KubeApiException.BadRequest($"container {exec.Container} of pod {exec.Pod} is not running");
        var words = container.Enter(exec.Command);
        var start = new ProcessStartInfo(words[0], words.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment.Clear();
        start.Environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        using var process = ChildThread.Start(start);
        var input = streams.Input is null ? Task.CompletedTask : PumpAsync(streams.Input, process.StandardInput.BaseStream, stop);
        if (streams.Input is null)
            process.StandardInput.Close();
        var output = process.StandardOutput.BaseStream.CopyToAsync(streams.Output ?? Stream.Null, stop);
        var error = process.StandardError.BaseStream.CopyToAsync(streams.Error ?? Stream.Null, stop);
        try
        {
            await Task.WhenAll(output, error);
            await process.WaitForExitAsync(stop);
            return process.ExitCode;
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(entireProcessTree: true);
            // Ends when the client closes its side, or now that nobody reads.
            _ = input;
        }
    }

    public Task AttachAsync(PodExec attach, PodStreams streams, CancellationToken stop) =>
        throw KubeApiException.BadRequest("attach is not done by this runtime");

    public async Task LogAsync(PodLog log, Stream output, CancellationToken stop)
    {
        var run = kubelet(log.Node)?.Find(log.Namespace, log.Pod) ?? throw KubeApiException.BadRequest($"pod {log.Pod} is not on a node");
        var file = run.LogOf(log.Container);
        if (!File.Exists(file))
            return;
        var lines = await File.ReadAllLinesAsync(file, stop);
        foreach (var line in log.TailLines is { } tail ? lines.TakeLast((int)tail) : lines)
            await output.WriteAsync(System.Text.Encoding.UTF8.GetBytes(line + "\n"), stop);
        if (!log.Follow)
            return;
        using var stream = new FileStream(file, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        stream.Seek(0, SeekOrigin.End);
        using var tick = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        while (run.Running(log.Container) is not null)
        {
            await stream.CopyToAsync(output, stop);
            await output.FlushAsync(stop);
            await tick.WaitForNextTickAsync(stop);
        }
    }

    public Task<Stream> ConnectAsync(string @namespace, string pod, int port, CancellationToken stop) =>
        throw KubeApiException.BadRequest("port-forward is not done by this runtime");

    private static async Task PumpAsync(Stream from, Stream to, CancellationToken stop)
    {
        try
        {
            await from.CopyToAsync(to, stop);
            to.Close();
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or ObjectDisposedException or SocketException)
        {
            // The command ended before its input did.
        }
    }
}
