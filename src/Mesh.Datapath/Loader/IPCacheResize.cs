using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Loader;

/// <summary>
/// Exchanges pinned ipcache maps whose size is no longer the wanted one. The kernel cannot resize a map, so the programs are loaded
/// onto new maps, pinned beside the old ones; before any program is attached, the new maps take every entry of the old ones and
/// then, by a rename, their names. Until its hook is given the new program, each old program goes on with the old map, which
/// lives as long as a program uses it: no packet finds an empty map. A start that dies on the way leaves the old maps in their
/// places, or the new ones filled. Nobody else writes meanwhile: an agent is the only writer of its maps.
/// </summary>
internal sealed class IPCacheResize
{
    /// <summary>A pinned name has no dots in a bpffs.</summary>
    private const string NewSuffix = "_resized";

    private static readonly string[] Maps = ["ipcache4", "ipcache6"];

    private readonly PinDirectory _pins;
    private readonly HashSet<string> _exchanged = [];

    /// <exception cref="DatapathException">A pinned map holds more entries than <paramref name="maxEntries"/>.</exception>
    internal IPCacheResize(PinDirectory pins, uint maxEntries)
    {
        _pins = pins;
        foreach (var map in Maps)
        {
            // Left by a start that did not come to the rename.
            File.Delete(New(map));
            using var pinned = BpfFd.TryOpenPinned(pins.Map(map));
            if (pinned is null || MapInfo.Of(pinned, map).MaxEntries is var present && present == maxEntries)
                continue;
            if (present > maxEntries && Entries(map) is var held && held > maxEntries)
                throw new DatapathException($"map {pins.Map(map)} holds {held} addresses, more than the {maxEntries} it is to have room for: "
                    + $"start with --bpf-ipcache-map-max {held} or more, as it was {present} before");
            _exchanged.Add(map);
        }
    }

    /// <summary>True for a map whose size is an option.</summary>
    internal static bool Sized(string map) => Maps.Contains(map);

    /// <summary>Where the programs' map is pinned while they are loaded.</summary>
    internal string PinOf(string map) => _exchanged.Contains(map) ? New(map) : _pins.Map(map);

    /// <summary>Called when the programs are loaded and not yet attached.</summary>
    /// <exception cref="BpfException">The kernel has no memory for an entry; the old maps stay in their places.</exception>
    internal void Complete()
    {
        foreach (var map in _exchanged)
        {
            if (map == "ipcache4")
                Copy<IPCache4Key>(map);
            else
                Copy<IPCache6Key>(map);
        }
        foreach (var map in _exchanged)
            File.Move(New(map), _pins.Map(map), overwrite: true);
    }

    private void Copy<TKey>(string map)
        where TKey : unmanaged
    {
        using var old = BpfMaps.OpenPinned<TKey, IPCacheValue>(_pins.Map(map), readOnly: true);
        using var fresh = BpfMaps.OpenPinned<TKey, IPCacheValue>(New(map));
        var entries = old.Dump();
        fresh.SetBatch([.. entries.Select(entry => entry.Key)], [.. entries.Select(entry => entry.Value)], (_, refused) => throw refused);
    }

    private int Entries(string map)
    {
        if (map == "ipcache4")
        {
            using var hosts4 = BpfMaps.OpenPinned<IPCache4Key, IPCacheValue>(_pins.Map(map), readOnly: true);
            return hosts4.Dump().Count;
        }
        using var hosts6 = BpfMaps.OpenPinned<IPCache6Key, IPCacheValue>(_pins.Map(map), readOnly: true);
        return hosts6.Dump().Count;
    }

    private string New(string map) => _pins.Map(map + NewSuffix);
}
