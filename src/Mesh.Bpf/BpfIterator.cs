using System.Runtime.InteropServices;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>A program that the kernel runs once for each of its objects of a kind (section "iter/…"), such as the TCP sockets of a
/// network namespace.</summary>
public sealed unsafe class BpfIterator : IDisposable
{
    private const uint TraceIterator = 28;
    private readonly string _name;
    private readonly BpfFd _link;

    /// <exception cref="BpfException">The kernel refused.</exception>
    public BpfIterator(BpfProgram program)
    {
        _name = program.Name;
        var attribute = new Syscalls.LinkCreateAttribute { ProgramFd = (uint)program.Fd.Number, AttachType = TraceIterator };
        _link = new BpfFd(BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.LinkCreate, ref attribute), $"link iterator {_name}"));
        GC.KeepAlive(program);
    }

    /// <summary>Runs it over everything that the calling thread's namespaces have; what it writes is thrown away.</summary>
    /// <exception cref="BpfException">The kernel refused, or a read failed.</exception>
    public void Run()
    {
        var attribute = new Syscalls.IteratorCreateAttribute { LinkFd = (uint)_link.Number };
        using var iterator = new BpfFd(BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.IteratorCreate, ref attribute), $"run {_name}"));
        var buffer = stackalloc byte[256];
        nint read;
        do
        {
            read = Syscalls.Read(iterator.Number, buffer, 256);
            // EAGAIN: the kernel makes a pause in a long walk.
        }
        while (read > 0 || (read < 0 && Marshal.GetLastPInvokeError() == Syscalls.EAGAIN));
        if (read < 0)
            throw new BpfException(Marshal.GetLastPInvokeError(), $"run {_name}");
        GC.KeepAlive(this);
    }

    public void Dispose() => _link.Dispose();
}
