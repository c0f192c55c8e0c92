using System.Diagnostics;
using System.Runtime.InteropServices;
using Mesh.TestKit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

/// <summary>The program as a process, ended with the test.</summary>
internal sealed partial class RunningProgram(Process program) : IAsyncDisposable
{
    public const int SigKill = 9;
    public const int SigTerm = 15;
    public const int SigCont = 18;
    public const int SigStop = 19;

    public static RunningProgram Start(string[] arguments) =>
        new(ChildThread.Start(Path.Combine(AppContext.BaseDirectory, "clustermesh-apiserver"), arguments));

    public void Signal(int signal)
    {
        if (Send(program.Id, signal) != 0)
            throw new InvalidOperationException($"kill({program.Id}, {signal}): errno {Marshal.GetLastPInvokeError()}");
    }

    public Task EndedAsync() => program.WaitForExitAsync();

    public async ValueTask DisposeAsync()
    {
        program.Kill();
        await program.WaitForExitAsync(CancellationToken.None);
        program.Dispose();
    }

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Send(int pid, int signal);
}
