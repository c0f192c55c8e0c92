using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// Waits until every BPF program that was running has finished: updating a map of maps does so before it returns to user space
/// (kernel/bpf/syscall.c, maybe_wait_bpf_programs). About 8 to 10 ms; one wait serves everything retired before it began.
/// </summary>
public sealed unsafe class RcuBarrier : IDisposable
{
    private readonly BpfFd _inner;
    private readonly BpfFd _outer;

    public RcuBarrier()
    {
        _inner = BpfMaps.Create("mesh_rcu_inner", MapInfo.TypeArray, 4, 4, 1);
        _outer = BpfMaps.Create("mesh_rcu", MapInfo.TypeArrayOfMaps, 4, 4, 1, innerMap: _inner);
    }

    public void Wait()
    {
        uint key = 0;
        var value = (uint)_inner.Number;
        var attribute = new Syscalls.ElementAttribute { MapFd = (uint)_outer.Number, Key = (ulong)&key, ValueOrNext = (ulong)&value };
        BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.MapUpdate, ref attribute), "RCU barrier");
        GC.KeepAlive(this);
    }

    public void Dispose()
    {
        _outer.Dispose();
        _inner.Dispose();
    }
}
