using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>A loaded program.</summary>
public sealed unsafe class BpfProgram : IDisposable
{
    internal BpfProgram(string name, string section, uint attachType, BpfFd fd)
    {
        Name = name;
        Section = section;
        AttachType = attachType;
        Fd = fd;
    }

    public string Name { get; }

    /// <summary>ELF section, such as "tc" or "cgroup/connect4".</summary>
    public string Section { get; }

    /// <summary>Expected attach type from the section name (enum bpf_attach_type); 0 when the section does not say.</summary>
    public uint AttachType { get; }

    public BpfFd Fd { get; }

    public void Pin(string path) => Fd.Pin(path);

    /// <summary>
    /// Runs the program on a packet without sending it. <paramref name="repeat"/> runs give their mean time; the returned packet is
    /// the last run's. The kernel wants at least 14 bytes for tc and XDP programs.
    /// </summary>
    /// <param name="packet">Frame from its Ethernet header on.</param>
    /// <param name="context">Context (see <see cref="SkBuff"/>), written back with what the program left in it; empty for none.</param>
    /// <exception cref="BpfException">EINVAL for a context field that may not be set, ENOTSUPP for hooks without test run.</exception>
    public TestRunResult TestRun(ReadOnlySpan<byte> packet, int repeat = 1, Span<byte> context = default)
    {
        var output = new byte[packet.Length + 512];
        fixed (byte* input = packet, outputPointer = output, contextPointer = context)
        {
            var options = new Libbpf.TestRunOptions
            {
                Size = (nuint)sizeof(Libbpf.TestRunOptions),
                DataIn = input,
                DataSizeIn = (uint)packet.Length,
                DataOut = packet.IsEmpty ? null : outputPointer,
                DataSizeOut = packet.IsEmpty ? 0 : (uint)output.Length,
                ContextIn = context.IsEmpty ? null : contextPointer,
                ContextSizeIn = (uint)context.Length,
                ContextOut = context.IsEmpty ? null : contextPointer,
                ContextSizeOut = (uint)context.Length,
                Repeat = repeat,
            };
            BpfException.ThrowIfNegative(Libbpf.TestRun(Fd.Number, &options), $"test run of {Name}");
            GC.KeepAlive(this);
            return new TestRunResult((int)options.ReturnValue, output[..(int)options.DataSizeOut], options.Duration);
        }
    }

    /// <summary>As above, with a tc context.</summary>
    public TestRunResult TestRun(ReadOnlySpan<byte> packet, ref SkBuff context, int repeat = 1)
    {
        fixed (SkBuff* pointer = &context)
            return TestRun(packet, repeat, new Span<byte>(pointer, sizeof(SkBuff)));
    }

    /// <summary>As above, for an XDP program, as if the frame had arrived on this device.</summary>
    public TestRunResult TestRunXdp(ReadOnlySpan<byte> packet, uint interfaceIndex, int repeat = 1)
    {
        var context = new XdpBuff { DataEnd = (uint)packet.Length, IngressInterfaceIndex = interfaceIndex };
        return TestRun(packet, repeat, new Span<byte>(&context, sizeof(XdpBuff)));
    }

    /// <summary>Runs an XDP program on frames that are real: what it sends or redirects leaves by a device.</summary>
    /// <param name="packet">Each frame, before the program.</param>
    /// <param name="interfaceIndex">The device they seem to have come by; an XDP_TX leaves by it.</param>
    /// <param name="frames">How many.</param>
    public void RunLive(ReadOnlySpan<byte> packet, uint interfaceIndex, int frames)
    {
        const uint liveFrames = 1 << 1;
        const uint batch = 64;
        var context = new XdpBuff { DataEnd = (uint)packet.Length, IngressInterfaceIndex = interfaceIndex };
        fixed (byte* input = packet)
        {
            var options = new Libbpf.TestRunOptions
            {
                Size = (nuint)sizeof(Libbpf.TestRunOptions),
                DataIn = input,
                DataSizeIn = (uint)packet.Length,
                ContextIn = (byte*)&context,
                ContextSizeIn = (uint)sizeof(XdpBuff),
                Repeat = frames,
                Flags = liveFrames,
                BatchSize = batch,
            };
            BpfException.ThrowIfNegative(Libbpf.TestRun(Fd.Number, &options), $"live frames through {Name}");
            GC.KeepAlive(this);
        }
    }

    /// <summary>What the kernel says about it.</summary>
    public ProgramInfo Info()
    {
        var record = new Syscalls.ProgramInfoRecord();
        BpfException.ThrowIfNegative(Fd.GetInfo(ref record), $"program {Name}: info");
        GC.KeepAlive(this);
        return new ProgramInfo(record.Id, (int)record.TranslatedBytes / 8, (int)record.VerifiedInstructions);
    }

    public void Dispose() => Fd.Dispose();
}

/// <param name="Instructions">After the kernel's rewriting, without what it has found dead.</param>
/// <param name="Verified">Instructions that the verifier went through, along every way that it could not prove equal to another; it gives up
/// at a million.</param>
public sealed record ProgramInfo(uint Id, int Instructions, int Verified);

/// <summary>What a test run gave.</summary>
/// <param name="ReturnValue">The program's return value, for example a TC_ACT_* or XDP_* verdict.</param>
/// <param name="Packet">The frame as the program left it.</param>
/// <param name="NanosecondsPerRun">Mean of the repeated runs; includes about 20 ns of the kernel's loop.</param>
public sealed record TestRunResult(int ReturnValue, byte[] Packet, uint NanosecondsPerRun);
