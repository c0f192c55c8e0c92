using System.Globalization;
using System.Runtime.InteropServices;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>What another process uses, as the kernel tells it.</summary>
internal static partial class ProcessFacts
{
    /// <summary>VmRSS, VmHWM, RssAnon or RssFile, in bytes.</summary>
    public static long Memory(int process, string field) => 1024 * long.Parse(
        File.ReadLines($"/proc/{process}/status").First(line => line.StartsWith(field + ":", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);

    /// <summary>Times that it wrote into files: sockets are not counted where they are sent to.</summary>
    public static long Writes(int process) => long.Parse(
        File.ReadLines($"/proc/{process}/io").First(line => line.StartsWith("syscw:", StringComparison.Ordinal)).Split(' ')[1], CultureInfo.InvariantCulture);

    /// <summary>Processor time of all its threads, user and system, to the microsecond.</summary>
    public static TimeSpan Cpu(int process)
    {
        // CLOCK_PROCESS_CPUTIME_ID of another process: clock_getcpuclockid(3).
        if (GetTime((~process << 3) | 2, out var time) != 0)
            throw Native.Failure($"processor time of process {process}");
        return TimeSpan.FromSeconds(time.Seconds) + TimeSpan.FromMicroseconds(time.Nanoseconds / 1000.0);
    }

    private struct Time
    {
        public nint Seconds;
        public nint Nanoseconds;
    }

    [LibraryImport("libc", EntryPoint = "clock_gettime", SetLastError = true)]
    private static partial int GetTime(int clock, out Time time);
}
