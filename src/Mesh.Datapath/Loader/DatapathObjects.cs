using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Loader;

/// <summary>
/// The compiled objects that travel inside this assembly, loaded onto one set of pinned maps: on the first start the maps are
/// created and pinned, later ones take what is pinned, with everything in it, and the programs too where nothing has changed that they
/// were made from. Owns the programs.
/// </summary>
internal sealed class DatapathObjects : IDisposable
{
    private static readonly string[] Names =
        ["socket.bpf.o", "pod_in.bpf.o", "vxlan_in.bpf.o", "uplink_in.bpf.o", "xdp_lb.bpf.o", "outcome.bpf.o", "close.bpf.o"];

    private readonly List<BpfProgram> _programs = [];

    /// <summary>Every map that the objects declare. Opened once: it is the same as long as the process lives.</summary>
    internal static IReadOnlyDictionary<string, MapShape> Shapes => s_shapes.Value;

    private static readonly Lazy<IReadOnlyDictionary<string, MapShape>> s_shapes = new(() => ShapesOf(null));

    /// <param name="variant">For tests: another build.</param>
    internal static IReadOnlyDictionary<string, MapShape> ShapesOf(LayoutVariant? variant)
    {
        if (variant is null && s_shapes.IsValueCreated)
            return Shapes;
        var objects = Names.Select(name => Open(name, variant)).ToList();
        try
        {
            return objects.SelectMany(one => one.MapNames.Select(map => (Name: map, Shape: MapShape.Of(one, map))))
                .DistinctBy(map => map.Name).ToDictionary(map => map.Name, map => map.Shape);
        }
        finally
        {
            foreach (var one in objects)
                one.Dispose();
        }
    }

    private DatapathObjects()
    {
    }

    /// <summary>Programs of the cgroup hooks.</summary>
    internal IEnumerable<BpfProgram> SocketPrograms =>
        _programs.Where(program => program.Section.StartsWith("cgroup/", StringComparison.Ordinal) || program.Section == "sockops");

    /// <summary>Iterators that close sockets whose backend is lost.</summary>
    internal IEnumerable<BpfProgram> ClosingPrograms =>
        _programs.Where(program => program.Section.StartsWith("iter/", StringComparison.Ordinal));

    /// <summary>On mesh_net and on every pod's device.</summary>
    internal BpfProgram PodIn => Named("pod_in");

    /// <summary>On mesh_vxlan.</summary>
    internal BpfProgram VxlanIn => Named("vxlan_in");

    /// <summary>On the uplinks, both ways, and before the first where the driver allows.</summary>
    internal BpfProgram UplinkIn => Named("uplink_in");

    internal BpfProgram UplinkOut => Named("uplink_out");

    internal BpfProgram XdpLb => Named("xdp_lb");

    /// <exception cref="InvalidDataException">Layouts differ between C and C#.</exception>
    /// <exception cref="VerifierException">The kernel refused a program.</exception>
    /// <exception cref="BpfException">A pinned map has another shape, or the kernel refused something else.</exception>
    /// <exception cref="DatapathException">A pinned ipcache holds more than it is to hold.</exception>
    internal static DatapathObjects Load(PinDirectory pins, NodeConfig config, uint ipcacheMax = DatapathOptions.IPCacheMapMaxDefault,
        LayoutVariant? variant = null)
    {
        var loaded = new DatapathObjects();
        var objects = new List<BpfObject>();
        var resize = new IPCacheResize(pins, ipcacheMax);
        var programs = new ProgramPins(pins);
        try
        {
            objects.AddRange(Names.Select(name => Open(name, variant)));
            Abi.Require([.. objects.Select(one => (one.Name, one.Types))]);
            foreach (var one in objects)
            {
                foreach (var map in one.MapNames)
                {
                    one.SetPinPath(map, resize.PinOf(map));
                    if (variant?.MaxEntries.TryGetValue(map, out var entries) == true)
                        one.SetMaxEntries(map, entries);
                    if (IPCacheResize.Sized(map))
                        one.SetMaxEntries(map, ipcacheMax);
                    KeepSize(one, map, pins);
                }
                if (one.HasConstant("config"))
                    one.SetConstant("config", config);
                if (programs.TryTake(one, config, resize.PinOf) is { } known)
                {
                    loaded._programs.AddRange(known);
                    continue;
                }
                one.Load();
                var fresh = one.ProgramNames.Select(one.Program).ToList();
                loaded._programs.AddRange(fresh);
                programs.Keep(one, config, resize.PinOf, fresh);
            }
            resize.Complete();
            return loaded;
        }
        catch
        {
            loaded.Dispose();
            throw;
        }
        finally
        {
            objects.ForEach(one => one.Dispose());
        }
    }

    /// <summary>The embedded objects, for layout checks. The caller disposes them.</summary>
    internal static IReadOnlyList<BpfObject> OpenAll() => [.. Names.Select(name => Open(name, null))];

    public void Dispose() => _programs.ForEach(program => program.Dispose());

    /// <summary>Memory of flows is shared between layouts with the size that it was made with.</summary>
    private static void KeepSize(BpfObject one, string map, PinDirectory pins)
    {
        if (!LayoutPlan.IsMemoryOfFlows(MapShape.Of(one, map)))
            return;
        using var pinned = BpfFd.TryOpenPinned(pins.Map(map), readOnly: true);
        if (pinned is not null)
            one.SetMaxEntries(map, MapInfo.Of(pinned, map).MaxEntries);
    }

    private BpfProgram Named(string name) => _programs.Find(program => program.Name == name)
        ?? throw new DatapathException($"the BPF objects have no program {name}");

    private static BpfObject Open(string name, LayoutVariant? variant)
    {
        if (variant?.Objects is { } directory)
            return BpfObject.Open(name, File.ReadAllBytes(Path.Combine(directory, name)));
        using var resource = typeof(DatapathObjects).Assembly.GetManifestResourceStream(name)
            ?? throw new DatapathException($"{name} is not in this program: it was built without `make bpf`");
        var bytes = new byte[resource.Length];
        resource.ReadExactly(bytes);
        return BpfObject.Open(name, bytes);
    }
}
