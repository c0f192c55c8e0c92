using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Mesh.KubeApi.Tests;

/// <summary>A node that runs a pod's commands as plain processes of this machine, and has one text as every log.</summary>
internal sealed class ProcessRuntime : IPodRuntime
{
    public const string LogText = "one\ntwo\nthree\n";

    /// <summary>Further lines of a log that is followed.</summary>
    public TaskCompletionSource<string> More { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public List<PodExec> Executed { get; } = [];

    /// <summary>Local port that every pod's ports lead to.</summary>
    public int Port { get; set; }

    public async Task<int> ExecAsync(PodExec exec, PodStreams streams, CancellationToken stop)
    {
        lock (Executed)
            Executed.Add(exec);
        using var process = Process.Start(new ProcessStartInfo(exec.Command[0], exec.Command.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        }) ?? throw new InvalidOperationException($"cannot start {exec.Command[0]}");
        using var over = CancellationTokenSource.CreateLinkedTokenSource(stop);
        var input = InputAsync(process, streams.Input, over.Token);
        var outputs = Task.WhenAll(
            process.StandardOutput.BaseStream.CopyToAsync(streams.Output ?? Stream.Null, stop),
            process.StandardError.BaseStream.CopyToAsync(streams.Error ?? streams.Output ?? Stream.Null, stop));
        try
        {
            await process.WaitForExitAsync(stop);
            await outputs;
            return process.ExitCode;
        }
        finally
        {
            if (!process.HasExited)
                process.Kill(true);
            await over.CancelAsync();
            await input;
        }
    }

    private static async Task InputAsync(Process process, Stream? input, CancellationToken stop)
    {
        try
        {
            if (input is not null)
                await input.CopyToAsync(process.StandardInput.BaseStream, stop);
            process.StandardInput.Close();
        }
        catch (Exception failure) when (failure is OperationCanceledException or IOException)
        {
            // The process no longer reads.
        }
    }

    public async Task AttachAsync(PodExec attach, PodStreams streams, CancellationToken stop)
    {
        await streams.Output!.WriteAsync(Encoding.UTF8.GetBytes($"attached to {attach.Container}\n"), stop);
    }

    public async Task LogAsync(PodLog log, Stream output, CancellationToken stop)
    {
        var lines = LogText.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        foreach (var line in lines.Skip(log.TailLines is { } tail ? Math.Max(0, lines.Length - (int)tail) : 0))
            await output.WriteAsync(Encoding.UTF8.GetBytes($"{line}\n"), stop);
        if (log.Follow)
            await output.WriteAsync(Encoding.UTF8.GetBytes($"{await More.Task.WaitAsync(stop)}\n"), stop);
    }

    public async Task<Stream> ConnectAsync(string @namespace, string pod, int port, CancellationToken stop)
    {
        var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, Port, stop);
        return client.GetStream();
    }
}
