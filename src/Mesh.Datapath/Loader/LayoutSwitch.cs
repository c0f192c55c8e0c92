using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Loader;

/// <summary>
/// From the layout of maps that serves to that of this build, newer or older, without a packet that finds an empty map. Maps of the same
/// shape are pinned in the new directory too: both layouts' programs use them. Of the others new ones are made and filled while the old
/// programs go on with the old ones: with a copy, where only the room differs, else from the tables. Then each link is given its new
/// program, the name `current` is turned, and later the old directory goes. Until the name is turned the old layout is the one that
/// serves: a start that dies on the way is begun again by the next, of either build, which takes all links, whatever program they have.
/// </summary>
internal sealed partial class LayoutSwitch
{
    private const string Shapes = "layouts";
    private const uint MaxMaps = 256;

    /// <summary>How long the old layout stays pinned.</summary>
    internal static readonly TimeSpan Grace = TimeSpan.FromSeconds(30);

    private readonly string _root;
    private readonly IReadOnlyDictionary<string, MapShape> _shapes;
    private readonly PinDirectory? _from;
    private readonly Action<string> _failpoint;
    private readonly bool _hasty;
    private readonly LayoutPlan? _plan;

    private LayoutSwitch(string root, IReadOnlyDictionary<string, MapShape> compiled, LayoutVariant? variant)
    {
        _root = root;
        _shapes = variant?.Of(compiled) ?? compiled;
        _failpoint = variant?.Failpoint ?? (_ => { });
        _hasty = variant?.Hasty == true;
        Pins = new PinDirectory(root, MapShape.LayoutName(_shapes));
        var serving = Serving(root);
        _from = serving is null || serving == Pins.Layout ? null : new PinDirectory(root, serving);
        if (_from is not null)
            Empty(Pins);
        Pins.Create();
        WriteShapes();
        if (_from is null)
            return;
        var recorded = Recorded(_from);
        _plan = LayoutPlan.Between(recorded.Where(map => File.Exists(_from.Map(map.Key))).ToDictionary(), _shapes);
        foreach (var map in With(MapFate.Shared))
        {
            _failpoint($"share {map}");
            using var fd = BpfFd.OpenPinned(_from.Map(map));
            fd.Pin(Pins.Map(map));
        }
    }

    /// <summary>Makes the directory of this build's layout, with the maps in it that can be shared.</summary>
    /// <exception cref="DatapathException">The root is not on a bpffs, or may not be written.</exception>
    internal static LayoutSwitch Prepare(string root, LayoutVariant? variant) =>
        new(root, DatapathObjects.ShapesOf(variant), variant);

    internal PinDirectory Pins { get; }

    /// <summary>Tables that must be in the maps before a program looks into them; empty when all is there.</summary>
    internal IReadOnlySet<string> Tables => _hasty ? new HashSet<string>() : _plan?.Tables ?? new HashSet<string>();

    /// <summary>The layout that serves until <see cref="Complete"/>; null when it is this one.</summary>
    internal string? From => _from?.Layout;

    /// <summary>When the programs are loaded, and with them the new maps made: fills those that can be copied.</summary>
    /// <exception cref="BpfException">No memory for an entry.</exception>
    internal void Fill()
    {
        _failpoint("fill");
        if (_from is null)
            return;
        foreach (var map in With(MapFate.Copied))
        {
            _failpoint($"copy {map}");
            using var old = BpfFd.OpenPinned(_from.Map(map));
            using var fresh = BpfFd.OpenPinned(Pins.Map(map));
            BpfMaps.Copy(old, fresh, map);
        }
        if (!Recorded(_from).TryGetValue("agent_state", out var shape) || shape != _shapes["agent_state"])
            return;
        using var before = BpfMaps.OpenPinnedArray<AgentStateValue>(_from.Map("agent_state"), readOnly: true);
        using var state = BpfMaps.OpenPinnedArray<AgentStateValue>(Pins.Map("agent_state"));
        state.Write(0).Generation = before[0].Generation;
        state.Write(0).SendersKnown = _plan!.Fates["tunnel_senders"] == MapFate.New ? 0 : before[0].SendersKnown;
    }

    /// <summary>Pins every link of the other layouts here too, so that it can be given its program and outlives them.</summary>
    internal void TakeLinks()
    {
        foreach (var other in Others().OrderByDescending(other => other.Layout == From))
            foreach (var name in other.LinkNames())
            {
                using var link = BpfFd.TryOpenPinned(other.Link(name));
                if (link is null)
                    continue;
                _failpoint($"take {name}");
                if (File.Exists(Pins.Link(name)))
                {
                    // Of an earlier attempt; what serves knows better.
                    if (other.Layout != From)
                        continue;
                    Pins.RemoveLink(name);
                }
                link.Pin(Pins.Link(name));
            }
    }

    /// <summary>When every link has its program: this is the layout that serves.</summary>
    internal void Complete()
    {
        var name = Path.Combine(_root, PinDirectory.Current);
        if (Serving(_root) == Pins.Layout && new FileInfo(name).LinkTarget is not null)
            return;
        _failpoint("turn");
        var turned = name + "_next";
        File.Delete(turned);
        File.CreateSymbolicLink(turned, Pins.Layout);
        if (Rename(turned, name) != 0)
            throw new DatapathException($"{name}: {Marshal.GetLastPInvokeErrorMessage()}");
    }

    /// <summary>After the grace: unpins the other layouts. What they alone had attached has been detached or taken over.</summary>
    internal void RemoveOthers()
    {
        foreach (var other in Others())
        {
            _failpoint($"remove {other.Layout}");
            Empty(other);
            foreach (var link in other.LinkNames().ToList())
                other.RemoveLink(link);
            Directory.Delete(Path.Combine(_root, other.Layout), recursive: true);
        }
    }

    private static string? Serving(string root)
    {
        var current = Path.Combine(root, PinDirectory.Current);
        if (new FileInfo(current).LinkTarget is { } target && Directory.Exists(Path.Combine(root, target)))
            return target;
        // Before layouts had directories of their own.
        return Directory.Exists(Path.Combine(root, $"v{Abi.Version}", "links")) ? $"v{Abi.Version}" : null;
    }

    private List<PinDirectory> Others() => Directory.EnumerateDirectories(_root).Select(path => Path.GetFileName(path)!)
        .Where(name => name.StartsWith('v') && name != Pins.Layout && Directory.Exists(Path.Combine(_root, name, "links")))
        .Select(name => new PinDirectory(_root, name)).ToList();

    /// <summary>Links stay: they may be all that holds a pod's program.</summary>
    private static void Empty(PinDirectory pins)
    {
        if (!pins.Exists)
            return;
        foreach (var map in Directory.EnumerateFiles(pins.Maps).ToList())
            File.Delete(map);
        File.Delete(PathOfShapes(pins));
    }

    private static string PathOfShapes(PinDirectory pins) => Path.Combine(pins.Root, pins.Layout, Shapes);

    /// <summary>Before any map is there: a directory with maps says what they are.</summary>
    private void WriteShapes()
    {
        if (File.Exists(PathOfShapes(Pins)))
            return;
        using var map = new BpfMap<MapNameKey, MapShape>(Shapes, BpfMaps.Create(Shapes, MapInfo.TypeHash, (uint)Unsafe.SizeOf<MapNameKey>(),
            (uint)Unsafe.SizeOf<MapShape>(), MaxMaps));
        foreach (var (name, shape) in _shapes)
            map.Set(MapNameKey.From(name), shape);
        map.Fd.Pin(PathOfShapes(Pins));
    }

    /// <summary>Empty for a layout that has not said.</summary>
    private static Dictionary<string, MapShape> Recorded(PinDirectory pins)
    {
        if (!File.Exists(PathOfShapes(pins)))
            return [];
        using var map = BpfMaps.OpenPinned<MapNameKey, MapShape>(PathOfShapes(pins), readOnly: true);
        return map.Dump().ToDictionary(pair => pair.Key.ToString(), pair => pair.Value);
    }

    /// <summary>Of maps alone; the order is of no account.</summary>
    private IEnumerable<string> With(MapFate fate) => _plan is null ? [] : _plan.Fates.Where(map => map.Value == fate).Select(map => map.Key);

    [LibraryImport("libc", EntryPoint = "rename", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Rename(string from, string to);
}
