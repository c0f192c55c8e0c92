using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>Attach types (enum bpf_attach_type) that we use and libbpf 1.1 does not know or we name for clarity.</summary>
public static class BpfAttachType
{
    public const uint CgroupInet4Connect = 10;
    public const uint CgroupInet6Connect = 11;
    public const uint CgroupUdp4SendMsg = 14;
    public const uint CgroupUdp6SendMsg = 15;
    public const uint Xdp = 37;
    public const uint TcxIngress = 46;
    public const uint TcxEgress = 47;
}

/// <summary>
/// A program's attachment as a kernel object of its own: it ends with its last descriptor and pin, survives us when pinned, and
/// its program can be exchanged without a gap. libbpf 1.1 knows no tcx, so links are made with bpf(2) itself.
/// </summary>
public sealed class BpfLink : IDisposable
{
    private const uint TypeCgroup = 3;
    private const uint TypeXdp = 6;
    private const uint TypeTcx = 11;

    /// <summary>XDP_FLAGS_DRV_MODE: in the driver or not at all.</summary>
    private const uint DriverMode = 1 << 2;

    private BpfLink(BpfFd fd) => Fd = fd;

    public BpfFd Fd { get; }

    /// <summary>Attaches a tc program to a device of the calling thread's network namespace. Kernel 6.6 and later.</summary>
    /// <exception cref="BpfException">EINVAL on a kernel without tcx, ENODEV when the device is gone.</exception>
    public static BpfLink AttachTcx(BpfProgram program, int interfaceIndex, uint attachType = BpfAttachType.TcxIngress) =>
        Create(program, (uint)interfaceIndex, attachType, $"attach {program.Name} to interface {interfaceIndex}");

    /// <summary>Attaches an XDP program to a device of the calling thread's network namespace, in its driver.</summary>
    /// <exception cref="BpfException">EOPNOTSUPP where the driver has no XDP, EBUSY where another program is attached, ERANGE or
    /// EINVAL where the device's MTU is too large for it.</exception>
    public static BpfLink AttachXdp(BpfProgram program, int interfaceIndex) =>
        Create(program, (uint)interfaceIndex, BpfAttachType.Xdp, $"attach {program.Name} to interface {interfaceIndex} by XDP", DriverMode);

    /// <summary>Attaches a cgroup program (its section says where) to a cgroup2 directory. Other programs there stay.</summary>
    public static BpfLink AttachCgroup(BpfProgram program, string cgroupPath)
    {
        using var cgroup = BpfFd.OpenDirectory(cgroupPath);
        return Create(program, (uint)cgroup.Number, program.AttachType, $"attach {program.Name} to cgroup {cgroupPath}");
    }

    /// <summary>Null when nothing is pinned there.</summary>
    public static BpfLink? TryOpenPinned(string path) => BpfFd.TryOpenPinned(path) is { } fd ? new BpfLink(fd) : null;

    public void Pin(string path) => Fd.Pin(path);

    /// <summary>Exchanges the program in one step: every packet meets the old one or the new one.</summary>
    /// <exception cref="BpfException">ENOLINK when what the link was attached to is gone.</exception>
    public void Update(BpfProgram program)
    {
        var attribute = new Syscalls.LinkUpdateAttribute { LinkFd = (uint)Fd.Number, NewProgramFd = (uint)program.Fd.Number };
        BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.LinkUpdate, ref attribute), $"put {program.Name} into a link");
        GC.KeepAlive(this);
    }

    /// <summary>What the link is attached to.</summary>
    public BpfLinkInfo Info()
    {
        var record = new Syscalls.LinkInfoRecord();
        BpfException.ThrowIfNegative(Fd.GetInfo(ref record), "link info");
        return record.Type switch
        {
            TypeTcx => new BpfLinkInfo(record.Id, record.ProgramId, (int)record.First, 0, record.Second),
            TypeXdp => new BpfLinkInfo(record.Id, record.ProgramId, (int)record.First, 0, BpfAttachType.Xdp),
            // cgroup_id is 64 bits wide and comes first.
            TypeCgroup => new BpfLinkInfo(record.Id, record.ProgramId, 0, record.First | (ulong)record.Second << 32, (uint)record.Third),
            _ => new BpfLinkInfo(record.Id, record.ProgramId, 0, 0, 0),
        };
    }

    /// <summary>Detaches at once, although pins or other descriptors may still hold the link.</summary>
    public void Detach()
    {
        var attribute = new Syscalls.LinkDetachAttribute { LinkFd = (uint)Fd.Number };
        BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.LinkDetach, ref attribute), "detach link");
        GC.KeepAlive(this);
    }

    public void Dispose() => Fd.Dispose();

    private static BpfLink Create(BpfProgram program, uint target, uint attachType, string what, uint flags = 0)
    {
        var attribute = new Syscalls.LinkCreateAttribute
        {
            ProgramFd = (uint)program.Fd.Number,
            Target = target,
            AttachType = attachType,
            Flags = flags,
        };
        var fd = BpfException.ThrowIfNegative(Syscalls.Bpf(BpfCommand.LinkCreate, ref attribute), what);
        GC.KeepAlive(program);
        return new BpfLink(new BpfFd(fd));
    }
}

/// <param name="InterfaceIndex">Of a tcx or XDP link; 0 once the device is gone, and for others.</param>
/// <param name="CgroupId">Of a cgroup link (inode of the directory); 0 once it is gone, and for others.</param>
public sealed record BpfLinkInfo(uint Id, uint ProgramId, int InterfaceIndex, ulong CgroupId, uint AttachType);
