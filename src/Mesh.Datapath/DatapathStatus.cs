using Mesh.Bpf;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Datapath.Uplinks;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath;

/// <summary>One drop reason (or "forwarded") in one direction, summed over CPUs, since the maps were made.</summary>
public sealed record PacketCounter(DropReason Reason, TrafficDirection Direction, ulong Packets, ulong Bytes)
{
    internal static IReadOnlyList<PacketCounter> Read(BpfMap<uint, CounterValue> map)
    {
        var counters = new List<PacketCounter>();
        foreach (var reason in Enum.GetValues<DropReason>())
            foreach (var direction in Enum.GetValues<TrafficDirection>())
            {
                var perCpu = map.GetPerCpu((uint)reason * 2 + (uint)direction) ?? [];
                var packets = perCpu.Aggregate(0ul, (sum, value) => sum + value.Packets);
                if (packets > 0)
                    counters.Add(new PacketCounter(reason, direction, packets, perCpu.Aggregate(0ul, (sum, value) => sum + value.Bytes)));
            }
        return counters;
    }
}

/// <summary>How full a map is.</summary>
/// <param name="Used">Elements in use, those waiting for a grace period included; -1 where only a dump could tell.</param>
/// <param name="MemoryBytes">Kernel memory charged to the map.</param>
public sealed record MapUsage(string Name, long Used, long Capacity, long MemoryBytes)
{
    /// <summary>Every pinned map, by name; Used is -1.</summary>
    internal static IReadOnlyList<MapUsage> Of(PinDirectory pins)
    {
        var usage = new List<MapUsage>();
        foreach (var path in Directory.EnumerateFiles(pins.Maps).Order(StringComparer.Ordinal))
        {
            var name = Path.GetFileName(path);
            using var fd = BpfFd.OpenPinned(path, readOnly: true);
            usage.Add(new MapUsage(name, -1, MapInfo.Of(fd, name).MaxEntries, MapInfo.MemoryOf(fd)));
        }
        return usage;
    }
}

/// <summary>How one table's reconciler is doing.</summary>
/// <param name="Failing">Rows whose last attempt failed.</param>
/// <param name="Failures">Failed operations since the start.</param>
/// <param name="Pruned">Leftovers removed since the start.</param>
/// <param name="Full">Maps that have no room for rows of this table.</param>
public sealed record ReconcilerStatus(string Table, int Failing, long Failures, long Pruned, IReadOnlyList<FullTarget> Full);

/// <summary>A moment's view for status and metrics.</summary>
/// <param name="Generation">Agent starts since the maps were made; 1 for the first.</param>
/// <param name="SocketHooks">Number of attached cgroup programs; 0 = socket load-balancing is off.</param>
/// <param name="Links">"tcx" or "clsact".</param>
/// <param name="Uplinks">Devices that clients outside come in by; empty when none was found.</param>
/// <param name="ResolvedNodes">Nodes whose outer frames our programs write themselves.</param>
public sealed record DatapathStatus(
    ulong Generation,
    int SocketHooks,
    string Links,
    uint PodMtu,
    int Services,
    int Nodes,
    int GracePeriodPending,
    IReadOnlyList<UplinkStatus> Uplinks,
    int ResolvedNodes,
    IReadOnlyList<ReconcilerStatus> Reconcilers)
{
    /// <summary>Why programs of an earlier layout of the maps still serve, in words; null when ours do.</summary>
    public string? Switching { get; init; }
}
