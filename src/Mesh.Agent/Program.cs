using System.Runtime.InteropServices;

namespace Mesh.Agent;

// mesh-agent: one node. Objects and peers in, kernel maps out.
//
//   manifests or API server ─► LocalSource ──┐   this cluster                      (Mesh.Kubernetes → Mesh.ControlPlane)
//   ConfigDirectory ─► RemoteClusters ─► RemoteClusterSource   the others          (Mesh.ClusterMesh → Mesh.ControlPlane)
//     ─► DesiredState                        tables                                (Mesh.ControlPlane)
//     ─► Datapath                            a reconciler per table ─► BPF maps    (Mesh.Datapath)
//   AgentApiServer, MetricsServer            read the tables; PUT/DELETE endpoint  (Api/, Metrics/)
//
// The stages are put together in NodeAgent.cs.
public static class Program
{
    /// <summary>Runs until it is told to stop.</summary>
    /// <returns>The exit code.</returns>
    public static async Task<int> Main(string[] args)
    {
        var (options, exitCode) = CommandLine.Parse(args, Console.Error);
        if (options is null)
            return exitCode;
        using var stop = new CancellationTokenSource();
        using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        return await NodeAgent.RunAsync(options, Log.Line, stop.Token);

        // The datapath stays: the kernel forwards with what it has, and the next start takes over.
        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Cancel();
        }
    }
}
