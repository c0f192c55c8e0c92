using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>What this kernel can do, found by trying.</summary>
/// <param name="Tcx">tc programs attach by links (6.6 and later).</param>
public sealed unsafe record BpfFeatures(bool Tcx)
{
    private const uint SchedCls = 3;

    public static BpfFeatures Probe()
    {
        using var program = LoadAccept();
        // No device has this index, so a kernel that knows tcx answers ENODEV; one that does not, EINVAL.
        var attribute = new Syscalls.LinkCreateAttribute
        {
            ProgramFd = (uint)program.Number,
            Target = int.MaxValue,
            AttachType = BpfAttachType.TcxIngress,
        };
        var result = Syscalls.Bpf(BpfCommand.LinkCreate, ref attribute);
        return new BpfFeatures(Tcx: result == -Syscalls.ENODEV);
    }

    /// <summary>mov r0, 0; exit.</summary>
    private static BpfFd LoadAccept()
    {
        var instructions = stackalloc ulong[] { 0xb7, 0x95 };
        fixed (byte* license = "GPL\0"u8)
        {
            var attribute = new Syscalls.ProgramLoadAttribute
            {
                Type = SchedCls,
                InstructionCount = 2,
                Instructions = (ulong)instructions,
                License = (ulong)license,
            };
            return new BpfFd(BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.ProgramLoad, ref attribute), "probe: load a program"));
        }
    }
}
