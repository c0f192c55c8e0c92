using Mesh.Agent.Endpoints;
using Mesh.Agent.Ipam;

namespace Mesh.Agent.Cni;

/// <summary>What has to be looked after for the container runtime as long as the agent runs: its network configuration, notes of pods that
/// ended without us, and pods whose device has gone without a word.</summary>
internal sealed class CniStage(NetworkConfiguration configuration, DeleteNotes notes, EndpointRegistry endpoints, PodAddresses addresses,
    TimeProvider time, Action<string> log)
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(5);

    public NetworkConfiguration Configuration => configuration;

    /// <summary>Called when the kernel is programmed; runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Interval, time);
        do
        {
            Look();
        }
        while (await timer.WaitForNextTickAsync(cancellation));
    }

    /// <summary>Once.</summary>
    public void Look()
    {
        notes.Work(endpoints, addresses, log);
        foreach (var pod in endpoints.RemoveVanished())
            log($"the device of pod {pod} has gone with its namespace: removed");
        configuration.Ensure();
    }
}
