using Mesh.Datapath.Maps;

namespace Mesh.Datapath;

/// <summary>One drop reason (or "forwarded") in one direction, summed over CPUs, since the maps were made.</summary>
public sealed record PacketCounter(DropReason Reason, TrafficDirection Direction, ulong Packets, ulong Bytes);

/// <summary>How full a map is.</summary>
/// <param name="Used">Elements in use, those waiting for a grace period included; -1 where the kernel would have to be asked for each.</param>
/// <param name="MemoryBytes">Kernel memory charged to the map.</param>
public sealed record MapUsage(string Name, long Used, long Capacity, long MemoryBytes);

/// <summary>How one table's reconciler is doing.</summary>
/// <param name="Failing">Rows whose last attempt failed.</param>
/// <param name="Failures">Failed operations since the start.</param>
/// <param name="Pruned">Leftovers removed since the start.</param>
public sealed record ReconcilerStatus(string Table, int Failing, long Failures, long Pruned);

/// <summary>A moment's view for status and metrics.</summary>
/// <param name="Generation">Agent starts since the maps were made; 1 for the first.</param>
/// <param name="SocketHooks">Number of attached cgroup programs; 0 = socket load-balancing is off.</param>
/// <param name="Links">"tcx" or "clsact".</param>
public sealed record DatapathStatus(
    ulong Generation,
    int SocketHooks,
    string Links,
    uint PodMtu,
    int Services,
    int Nodes,
    int GracePeriodPending,
    IReadOnlyList<ReconcilerStatus> Reconcilers);
