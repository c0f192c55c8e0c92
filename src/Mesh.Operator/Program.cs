using System.Runtime.InteropServices;
using Mesh.Kubernetes.Api;

namespace Mesh.Operator;

// mesh-operator: what one of a cluster does for all.
//
//   lease ─► who leads ─► definitions ─► CiliumNodes ─► pod ranges        (Ipam/)
//                                     └► identities, endpoints ─► unused ones go   (Collecting/)
public static class Program
{
    /// <summary>Runs until it is told to stop.</summary>
    /// <returns>The exit code.</returns>
    public static async Task<int> Main(string[] args)
    {
        var (options, exitCode) = CommandLine.Parse(args, Console.Out, Console.Error);
        if (options is null)
            return exitCode;
        using var stop = new CancellationTokenSource();
        using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        var log = new OperatorLog(Console.Error, TimeProvider.System);
        try
        {
            using var client = new KubeClient(options.Source.Configuration(), new KubeClientOptions { UserAgent = "mesh-operator" });
            await using var running = new ClusterOperator(options, client, TimeProvider.System, log);
            await running.RunAsync(stop.Token);
            return 0;
        }
        catch (OperationCanceledException) when (stop.IsCancellationRequested)
        {
            return 0;
        }
        catch (Exception e) when (e is KubeConfigurationException or IOException)
        {
            log.Line($"mesh-operator: {e.Message}");
            return 1;
        }

        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Cancel();
        }
    }
}
