using System.Runtime.InteropServices;
using Mesh.ClusterMesh.ApiServer.Commands;

namespace Mesh.ClusterMesh.ApiServer;

// clustermesh-apiserver: one cluster's objects into its etcd, where the other clusters' agents read them.
//
//   IObjectSource       manifests or an API server, as events                (Mesh.Kubernetes)
//     → Reflector       one converter per kind; namespace and sharing rules  (Converters/)
//     → Publication     desired keys and who wants them
//     → SyncStore       compare, write, repair; then the canary              (Mesh.KVStore)
//     → etcd            given, or a child of our own                         (Etcd/EtcdSupervisor)
//
// Beside the line: Announcements (cluster-config, heartbeat) and the readiness and metrics pages (Observability/).
public static class Program
{
    /// <summary>Runs until it is told to stop.</summary>
    /// <returns>The exit code.</returns>
    public static async Task<int> Main(string[] args)
    {
        using var stop = new CancellationTokenSource();
        using var term = PosixSignalRegistration.Create(PosixSignal.SIGTERM, OnSignal);
        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, OnSignal);
        return await CommandLine.RunAsync(args, Environment.GetEnvironmentVariable, Log.Line, stop.Token);

        // The keys stay: their leases keep them until we are back, so that no peer notices a restart.
        void OnSignal(PosixSignalContext context)
        {
            context.Cancel = true;
            stop.Cancel();
        }
    }
}
