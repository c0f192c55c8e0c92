using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Mesh.Bpf;

/// <summary>
/// struct __sk_buff, the context of tc programs (linux/bpf.h). A test run accepts only mark, priority, ingress_ifindex, ifindex,
/// cb, tstamp, wire_len, gso_segs, gso_size and hwtstamp set to non-zero; ifindex must then be a device of the caller's namespace.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 192)]
public struct SkBuff
{
    [FieldOffset(0)] public uint Length;
    [FieldOffset(4)] public uint PacketType;
    [FieldOffset(8)] public uint Mark;
    [FieldOffset(12)] public uint QueueMapping;

    /// <summary>EtherType in network order.</summary>
    [FieldOffset(16)] public uint Protocol;
    [FieldOffset(32)] public uint Priority;
    [FieldOffset(36)] public uint IngressInterfaceIndex;
    [FieldOffset(40)] public uint InterfaceIndex;
    [FieldOffset(44)] public uint TcIndex;
    [FieldOffset(48)] public ControlBlock Cb;
    [FieldOffset(68)] public uint Hash;
    [FieldOffset(72)] public uint TcClassId;
    [FieldOffset(152)] public ulong Timestamp;
    [FieldOffset(160)] public uint WireLength;
    [FieldOffset(164)] public uint GsoSegments;
    [FieldOffset(176)] public uint GsoSize;

    /// <summary>The five words of scratch memory.</summary>
    [InlineArray(5)]
    public struct ControlBlock
    {
        private uint _word;
    }
}

/// <summary>struct xdp_md, the context of XDP programs. A test run wants <see cref="DataEnd"/> to be the length of the frame, and a
/// device of the caller's namespace.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct XdpBuff
{
    public uint Data;
    public uint DataEnd;
    public uint DataMeta;
    public uint IngressInterfaceIndex;
    public uint ReceiveQueue;
    public uint EgressInterfaceIndex;
}

/// <summary>enum xdp_action.</summary>
public static class XdpAction
{
    public const int Aborted = 0;
    public const int Drop = 1;
    public const int Pass = 2;
    public const int Transmit = 3;
    public const int Redirect = 4;
}
