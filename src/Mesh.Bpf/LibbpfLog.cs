using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// libbpf's print callback, collected per thread: libbpf calls it on the thread that called libbpf, so a capture around one call
/// gets that call's words and nobody else's. Outside a capture the words are discarded: every failure is also an error code.
/// </summary>
internal static unsafe class LibbpfLog
{
    private const int WarnLevel = 0;
    private const int InfoLevel = 1;

    [ThreadStatic]
    private static StringBuilder? t_capture;

    static LibbpfLog() => Libbpf.SetPrint(&OnPrint);

    /// <summary>Runs <paramref name="call"/> and returns its result with everything libbpf said of level info or above.</summary>
    internal static (TResult Result, string Log) Capture<TResult>(Func<TResult> call)
    {
        var before = t_capture;
        var capture = new StringBuilder();
        t_capture = capture;
        try
        {
            return (call(), capture.ToString());
        }
        finally
        {
            t_capture = before;
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnPrint(int level, byte* format, nint arguments)
    {
        if (t_capture is not { } capture || level is not (WarnLevel or InfoLevel))
            return 0;
        // One pass only: a va_list may not be read twice. libbpf lets a verifier log grow to 16 MiB; pages not written cost nothing.
        const int size = 24 * 1024 * 1024;
        var buffer = (byte*)NativeMemory.Alloc(size);
        var length = Syscalls.VsnPrintf(buffer, size, format, arguments);
        if (length > 0)
            capture.Append(Encoding.UTF8.GetString(buffer, Math.Min(length, size - 1)));
        NativeMemory.Free(buffer);
        return length;
    }
}
