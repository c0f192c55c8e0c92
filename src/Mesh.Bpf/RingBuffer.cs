using System.Runtime.InteropServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>Gets one record. The bytes are the ring's own and are overwritten after the call.</summary>
public delegate void RingRecord(ReadOnlySpan<byte> record);

/// <summary>
/// The reading end of a BPF ring buffer (BPF_MAP_TYPE_RINGBUF): the position of the reader is one page that we write, that of the
/// writers and the data, mapped twice in a row so that no record is ever split, are pages that we read. There is one reader's position
/// a map: whoever reads beside us takes our records. Never waits; bounded by the ring's size, which the kernel keeps.
/// </summary>
public sealed unsafe class RingBuffer : IDisposable
{
    private const int HeaderBytes = 8;
    private const uint BusyBit = 1u << 31;
    private const uint DiscardBit = 1u << 30;

    private readonly BpfFd _fd;
    private readonly nuint _page = (nuint)Environment.SystemPageSize;
    private readonly nuint _size;
    private nint _consumer;
    private nint _producer;

    /// <summary>Takes over <paramref name="fd"/>, also when it throws.</summary>
    /// <exception cref="BpfException">It is no ring buffer, or cannot be mapped.</exception>
    public RingBuffer(string name, BpfFd fd)
    {
        _fd = fd;
        try
        {
            var info = MapInfo.Of(fd, name);
            if (info.Type != MapInfo.TypeRingBuffer)
                throw new BpfException(Syscalls.EINVAL, $"map {name} is not a ring buffer");
            _size = info.MaxEntries;
            _consumer = Map(_page, Syscalls.ProtRead | Syscalls.ProtWrite, 0, name);
            _producer = Map(_page + (2 * _size), Syscalls.ProtRead, (nint)_page, name);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <exception cref="BpfException">It is not there, or it is no ring buffer.</exception>
    public static RingBuffer OpenPinned(string path) => new(Path.GetFileName(path), BpfFd.OpenPinned(path));

    /// <summary>Hands on what is there.</summary>
    /// <param name="most">Records at the most.</param>
    /// <returns>Records handed on.</returns>
    public int Read(RingRecord take, int most)
    {
        ObjectDisposedException.ThrowIf(_consumer == 0, this);
        ref var consumed = ref *(ulong*)_consumer;
        var data = (byte*)_producer + _page;
        var read = 0;
        while (read < most)
        {
            var position = consumed;
            if (position >= Volatile.Read(ref *(ulong*)_producer))
                break;
            var record = data + (position & (_size - 1));
            var header = Volatile.Read(ref *(uint*)record);
            if ((header & BusyBit) != 0)
                break;
            var length = header & ~(BusyBit | DiscardBit);
            if ((header & DiscardBit) == 0)
            {
                take(new ReadOnlySpan<byte>(record + HeaderBytes, (int)length));
                read++;
            }
            Volatile.Write(ref consumed, position + ((length + HeaderBytes + 7) & ~7u));
        }
        return read;
    }

    /// <summary>Forgets what is there.</summary>
    public void Skip()
    {
        ObjectDisposedException.ThrowIf(_consumer == 0, this);
        while (Read(static _ => { }, int.MaxValue) > 0)
        {
        }
    }

    public void Dispose()
    {
        if (_consumer != 0)
            Syscalls.MemoryUnmap(_consumer, _page);
        if (_producer != 0)
            Syscalls.MemoryUnmap(_producer, _page + (2 * _size));
        _consumer = _producer = 0;
        _fd.Dispose();
    }

    private nint Map(nuint bytes, int protection, nint offset, string name)
    {
        var address = Syscalls.MemoryMap(0, bytes, protection, Syscalls.MapShared, _fd.Number, offset);
        return address != -1 ? address : throw new BpfException(Marshal.GetLastPInvokeError(), $"map {name}: mmap");
    }
}
