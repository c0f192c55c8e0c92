using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Observing;

/// <summary>What became of a packet, or of a flow for a second.</summary>
/// <param name="Age">How long ago, when it was read.</param>
/// <param name="Source">Null when it was no IP packet.</param>
/// <param name="Identity">Of the sender, when the tunnel said it; else 0.</param>
/// <param name="Packets">Of this flow since it was last told, this one included.</param>
/// <param name="Length">Bytes of this frame.</param>
/// <param name="Interface">It arrived on.</param>
public sealed record FlowEvent(
    TimeSpan Age, DropReason Reason, TrafficDirection Direction, byte Protocol, IpAddr? Source, ushort SourcePort, IpAddr? Destination,
    ushort DestinationPort, uint Identity, ulong Packets, uint Length, uint Interface, byte TcpFlags)
{
    public bool IsDrop => Reason is not (DropReason.Forwarded or DropReason.PolicyAudited);

    internal static FlowEvent Of(in EventValue value, ulong nowNs) => new(
        TimeSpan.FromTicks((long)(nowNs - Math.Min(nowNs, value.TimeNs)) / 100),
        (DropReason)value.Flow.Reason,
        (TrafficDirection)value.Flow.Direction,
        value.Flow.Protocol,
        value.Flow.Source.ToIpAddr(value.Flow.Family),
        value.Flow.SourcePort.Host,
        value.Flow.Destination.ToIpAddr(value.Flow.Family),
        value.Flow.DestinationPort.Host,
        value.Flow.Identity,
        value.Packets,
        value.Length,
        value.Interface,
        value.TcpFlags);
}
