using System.Runtime.InteropServices;

namespace Mesh.Benchmarks.Surroundings;

/// <summary>System calls that .NET does not offer, or would wrap in more work than what is measured.</summary>
internal static unsafe partial class Native
{
    private const int ScheduleFifo = 1;
    private const short PollIn = 1;

    /// <summary>Puts the calling thread into SCHED_FIFO: it runs as soon as it wakes, whoever else wants the CPU. It must sleep.</summary>
    public static void RunAtOnce()
    {
        var priority = 1;
        if (SetScheduler(0, ScheduleFifo, &priority) != 0)
            throw Failure("sched_setscheduler");
    }

    /// <summary>To the microsecond in a thread of <see cref="RunAtOnce"/>; others are woken up to 50 µs late.</summary>
    public static void SleepMicroseconds(int microseconds)
    {
        var time = new TimeSpecification { Nanoseconds = microseconds * 1000 };
        _ = NanoSleep(&time, null);
    }

    /// <summary>Reads what is there, without waiting. 0 when nothing is.</summary>
    public static int ReadPresent(int descriptor, Span<byte> buffer)
    {
        var poll = new PollDescriptor { Descriptor = descriptor, Events = PollIn };
        if (Poll(&poll, 1, 0) <= 0)
            return 0;
        fixed (byte* pointer = buffer)
        {
            var read = (int)Read(descriptor, pointer, (nuint)buffer.Length);
            return read > 0 ? read : throw new InvalidOperationException("the pipe was closed at its other end");
        }
    }

    /// <summary>Index of a device of this network namespace.</summary>
    public static int InterfaceIndex(string device) => (int)NameToIndex(device) is > 0 and var index ? index : throw Failure(device);

    [LibraryImport("libc", EntryPoint = "socket", SetLastError = true)]
    public static partial int Socket(int family, int type, int protocol);

    [LibraryImport("libc", EntryPoint = "bind", SetLastError = true)]
    public static partial int Bind(int socket, byte* address, uint length);

    [LibraryImport("libc", EntryPoint = "listen", SetLastError = true)]
    public static partial int Listen(int socket, int backlog);

    [LibraryImport("libc", EntryPoint = "connect", SetLastError = true)]
    public static partial int Connect(int socket, byte* address, uint length);

    [LibraryImport("libc", EntryPoint = "accept", SetLastError = true)]
    public static partial int Accept(int socket, byte* address, uint* length);

    [LibraryImport("libc", EntryPoint = "setsockopt", SetLastError = true)]
    public static partial int SetOption(int socket, int level, int option, void* value, uint length);

    [LibraryImport("libc", EntryPoint = "close", SetLastError = true)]
    public static partial int Close(int descriptor);

    public static InvalidOperationException Failure(string what) => new($"{what}: {Marshal.GetLastPInvokeErrorMessage()}");

    private struct PollDescriptor
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    private struct TimeSpecification
    {
        public nint Seconds;
        public nint Nanoseconds;
    }

    [LibraryImport("libc", EntryPoint = "nanosleep")]
    private static partial int NanoSleep(TimeSpecification* time, TimeSpecification* rest);

    [LibraryImport("libc", EntryPoint = "sched_setscheduler", SetLastError = true)]
    private static partial int SetScheduler(int thread, int policy, int* priority);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int Poll(PollDescriptor* descriptors, ulong count, int timeout);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static partial nint Read(int descriptor, byte* buffer, nuint length);

    [LibraryImport("libc", EntryPoint = "if_nametoindex", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial uint NameToIndex(string name);
}
