using System.Runtime.InteropServices;
using Mesh.Liveness.Native;

namespace Mesh.Liveness;

/// <summary>Asks the kernel to run the calling thread before all ordinary ones: a prober that waits for a processor behind a busy
/// machine sees losses that are its own.</summary>
internal static unsafe class RealTimeThread
{
    private const int Priority = 10;

    /// <returns>Null when granted, else why not and what may be done.</returns>
    public static string? Request()
    {
        var priority = Priority;
        if (Libc.SetScheduler(0, Libc.SchedFifo, &priority) == 0)
            return null;
        var error = Marshal.GetLastPInvokeError();
        return $"SCHED_FIFO: {Marshal.GetPInvokeErrorMessage(error)}: "
            + (error == Libc.EPERM ? "grant the agent CAP_SYS_NICE; " : "") + "until then a busy machine delays the detection of losses";
    }
}
