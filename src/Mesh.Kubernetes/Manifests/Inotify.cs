using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading.Channels;
using Microsoft.Win32.SafeHandles;

namespace Mesh.Kubernetes.Manifests;

/// <summary>
/// Linux inotify on a set of directories. FileSystemWatcher hides IN_CLOSE_WRITE, and that is the very event wanted here: a file is
/// read when its writer has closed it or moved it into place, never in between. One thread sleeps in poll(2) and hands paths over;
/// the channel is unbounded, but its reader takes all there is at once and the kernel's own queue merges and bounds repeats.
/// </summary>
internal sealed partial class Inotify : IDisposable
{
    private const uint Modify = 0x2;
    private const uint CloseWrite = 0x8;
    private const uint MovedFrom = 0x40;
    private const uint MovedTo = 0x80;
    private const uint Create = 0x100;
    private const uint Delete = 0x200;
    private const uint DeleteSelf = 0x400;
    private const uint MoveSelf = 0x800;
    private const uint Overflow = 0x4000;
    private const uint Ignored = 0x8000;
    private const uint OnlyDirectory = 0x0100_0000;
    private const uint IsDirectory = 0x4000_0000;
    private const uint Wanted = Modify | CloseWrite | MovedFrom | MovedTo | Create | Delete | DeleteSelf | MoveSelf;

    /// <summary>struct inotify_event: wd, mask, cookie, len, each 32 bits in host order, then the name padded with NUL.</summary>
    private const int EventHeader = 16;

    private readonly SafeFileHandle _inotify;
    private readonly SafeFileHandle _stop;
    private readonly Thread _thread;
    private readonly Channel<FileNotice> _notices = Channel.CreateUnbounded<FileNotice>(new() { SingleReader = true });
    private readonly Lock _gate = new();
    private readonly Dictionary<int, string> _directories = [];

    public Inotify()
    {
        _inotify = Checked(InotifyInit(0x80000 /* IN_CLOEXEC */ | 0x800 /* IN_NONBLOCK */), "inotify_init1");
        _stop = Checked(EventFd(0, 0x80000 /* EFD_CLOEXEC */), "eventfd");
        _thread = new Thread(Listen) { IsBackground = true, Name = "inotify" };
        _thread.Start();
    }

    public ChannelReader<FileNotice> Notices => _notices.Reader;

    /// <summary>Begins to watch a directory; watching one twice is one watch. False when it is not there (any more).</summary>
    public bool Watch(string directory)
    {
        lock (_gate)
        {
            var descriptor = InotifyAddWatch(_inotify, directory, Wanted | OnlyDirectory);
            if (descriptor < 0)
                return false;
            _directories[descriptor] = directory;
            return true;
        }
    }

    public void Dispose()
    {
        // Any eight non-zero bytes wake the eventfd.
        Span<byte> one = [1, 0, 0, 0, 0, 0, 0, 0];
        Write(_stop, one, one.Length);
        _thread.Join();
        _inotify.Dispose();
        _stop.Dispose();
    }

    private void Listen()
    {
        Span<byte> buffer = new byte[64 << 10];
        Span<PollFd> waited = stackalloc PollFd[2];
        while (true)
        {
            waited[0] = new PollFd { Fd = (int)_inotify.DangerousGetHandle(), Events = 1 };
            waited[1] = new PollFd { Fd = (int)_stop.DangerousGetHandle(), Events = 1 };
            if (Poll(waited, 2, -1) < 0 && Marshal.GetLastPInvokeError() != 4 /* EINTR */)
                break;
            if (waited[1].Returned != 0)
                break;
            var read = (int)Read(_inotify, buffer, buffer.Length);
            for (var at = 0; at + EventHeader <= read;)
                at += Report(buffer[at..read]);
        }
        _notices.Writer.Complete();
    }

    private int Report(ReadOnlySpan<byte> bytes)
    {
        var descriptor = BinaryPrimitives.ReadInt32LittleEndian(bytes);
        var mask = BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
        var length = (int)BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]);
        var name = Encoding.UTF8.GetString(bytes.Slice(EventHeader, length)).TrimEnd('\0');
        _notices.Writer.TryWrite(Notice(descriptor, mask, name));
        return EventHeader + length;
    }

    private FileNotice Notice(int descriptor, uint mask, string name)
    {
        lock (_gate)
        {
            if ((mask & Overflow) != 0 || !_directories.TryGetValue(descriptor, out var directory))
                return new FileNotice(FileChange.Directory, "");
            if ((mask & Ignored) != 0)
                _directories.Remove(descriptor);
            if ((mask & (Ignored | IsDirectory | DeleteSelf | MoveSelf)) != 0)
                return new FileNotice(FileChange.Directory, directory);
            var writing = (mask & (Create | Modify)) != 0 && (mask & CloseWrite) == 0;
            return new FileNotice(writing ? FileChange.Writing : FileChange.Settled, Path.Combine(directory, name));
        }
    }

    private static SafeFileHandle Checked(int descriptor, string call) => descriptor >= 0
        ? new SafeFileHandle(descriptor, ownsHandle: true)
        : throw new IOException($"{call} failed: {Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError())}"
            + " (raise fs.inotify.max_user_instances)");

    [StructLayout(LayoutKind.Sequential)]
    private struct PollFd
    {
        public int Fd;
        public short Events;
        public short Returned;
    }

    [LibraryImport("libc", EntryPoint = "inotify_init1", SetLastError = true)]
    private static partial int InotifyInit(int flags);

    [LibraryImport("libc", EntryPoint = "inotify_add_watch", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int InotifyAddWatch(SafeFileHandle inotify, string path, uint mask);

    [LibraryImport("libc", EntryPoint = "eventfd", SetLastError = true)]
    private static partial int EventFd(uint initial, int flags);

    [LibraryImport("libc", EntryPoint = "poll", SetLastError = true)]
    private static partial int Poll(Span<PollFd> descriptors, nuint count, int timeoutMilliseconds);

    [LibraryImport("libc", EntryPoint = "read", SetLastError = true)]
    private static partial nint Read(SafeFileHandle descriptor, Span<byte> buffer, nint count);

    [LibraryImport("libc", EntryPoint = "write", SetLastError = true)]
    private static partial nint Write(SafeFileHandle descriptor, ReadOnlySpan<byte> buffer, nint count);
}

internal enum FileChange
{
    /// <summary>Somebody has it open and writes: hands off.</summary>
    Writing,

    /// <summary>Closed after writing, moved, or deleted: its present state counts.</summary>
    Settled,

    /// <summary>A directory came, went or moved, or events were lost: look at everything again.</summary>
    Directory,
}

internal readonly record struct FileNotice(FileChange Change, string Path);
