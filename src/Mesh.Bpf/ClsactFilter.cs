using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// The tc attach of kernels before 6.6: a clsact qdisc with one direct-action filter. It stays until removed, whoever made it;
/// attaching again replaces the program in one step.
/// </summary>
public static unsafe class ClsactFilter
{
    private const uint Ingress = 1;
    private const uint Replace = 1;

    /// <summary>Handle and priority of our filter; another tool's filters on the device are left alone.</summary>
    private const uint OurHandle = 1;
    private const uint OurPriority = 1;

    public static void AttachIngress(BpfProgram program, int interfaceIndex)
    {
        var hook = new Libbpf.TcHook { Size = (nuint)sizeof(Libbpf.TcHook), InterfaceIndex = interfaceIndex, AttachPoint = Ingress };
        var what = $"attach {program.Name} to interface {interfaceIndex} by clsact";
        var (created, log) = LibbpfLog.Capture(() =>
        {
            var fresh = new Libbpf.TcHook { Size = (nuint)sizeof(Libbpf.TcHook), InterfaceIndex = interfaceIndex, AttachPoint = Ingress };
            return Libbpf.TcHookCreate(&fresh);
        });
        if (created < 0 && created != -Syscalls.EEXIST)
            throw new BpfException(-created, log.Length == 0 ? what : $"{what}: {log.Trim()}");
        var options = new Libbpf.TcOptions
        {
            Size = (nuint)sizeof(Libbpf.TcOptions),
            ProgramFd = program.Fd.Number,
            Flags = Replace,
            Handle = OurHandle,
            Priority = OurPriority,
        };
        BpfException.ThrowIfNegative(Libbpf.TcAttach(&hook, &options), what);
        GC.KeepAlive(program);
    }

    /// <summary>An absent filter or device is no error.</summary>
    public static void DetachIngress(int interfaceIndex)
    {
        var hook = new Libbpf.TcHook { Size = (nuint)sizeof(Libbpf.TcHook), InterfaceIndex = interfaceIndex, AttachPoint = Ingress };
        var options = new Libbpf.TcOptions { Size = (nuint)sizeof(Libbpf.TcOptions), Handle = OurHandle, Priority = OurPriority };
        var result = Libbpf.TcDetach(&hook, &options);
        if (result is not (0 or -Syscalls.ENOENT or -Syscalls.ENODEV or -Syscalls.EINVAL))
            throw new BpfException(-result, $"detach from interface {interfaceIndex} by clsact");
    }
}
