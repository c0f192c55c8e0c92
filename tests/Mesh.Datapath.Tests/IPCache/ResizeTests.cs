using System.Text.Json;
using Mesh.Bpf;
using Mesh.ControlPlane;
using Mesh.ControlPlane.IPCache;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Tests.Kernel;
using Mesh.Model;

namespace Mesh.Datapath.Tests.IPCache;

/// <summary>A start with another --bpf-ipcache-map-max than the one before: real programs, links and pins.</summary>
public sealed class ResizeTests : IDisposable
{
    private static readonly string[] s_addresses = ["10.2.0.1/32", "10.2.0.2/32", "10.2.0.3/32", "fd00:2::1/128", "10.3.0.0/16"];

    private readonly NetworkNamespace _space = new();
    private readonly BpfFileSystem _files = new();

    public ResizeTests() =>
        _space.Shell("sh", "-c", "ip link set lo up; ip link add eth0 type veth peer name wire; ip link set eth0 mtu 1450 up; "
            + "ip link set wire up; ip addr add 172.30.0.1/24 dev eth0");

    public void Dispose()
    {
        _files.Dispose();
        _space.Dispose();
    }

    [Theory]
    [InlineData(1024, 4096)]
    [InlineData(4096, 1024)]
    public void Another_size_makes_a_new_map_that_has_every_entry_before_a_program_uses_it(uint before, uint after)
    {
        Start(before, s_addresses);
        Assert.Equal([before, before], Sizes());
        Assert.Contains(IdOf("ipcache4"), MapsOfProgram());
        var old = IdOf("ipcache4");

        // Without rows of its own: whatever is there has been taken over.
        Start(after);

        Assert.Equal([after, after], Sizes());
        Assert.Equal(s_addresses.Select(IpPrefix.Parse).Order(), Entries());
        Assert.NotEqual(old, IdOf("ipcache4"));
        Assert.Contains(IdOf("ipcache4"), MapsOfProgram());
        Assert.DoesNotContain(old, MapsOfProgram());
        Assert.DoesNotContain(Directory.EnumerateFiles(Pins.Maps), path => path.EndsWith("_resized", StringComparison.Ordinal));

        // The same size again is no exchange.
        var kept = IdOf("ipcache4");
        Start(after);
        Assert.Equal(kept, IdOf("ipcache4"));
    }

    [Fact]
    public void A_size_that_its_entries_exceed_is_refused_and_nothing_is_touched()
    {
        Start(1024, s_addresses);
        var (map, maps) = (IdOf("ipcache4"), MapsOfProgram());

        var refused = Assert.Throws<DatapathException>(() => Start(2));

        var layout = new FileInfo(Path.Combine(_files.Path, "current")).LinkTarget;
        Assert.Equal($"map {_files.Path}/{layout}/maps/ipcache4 holds 3 addresses, more than the 2 it is to have room for: "
            + "start with --bpf-ipcache-map-max 3 or more, as it was 1024 before", refused.Message);
        Assert.Equal(map, IdOf("ipcache4"));
        Assert.Equal(maps, MapsOfProgram());
        Assert.Equal(s_addresses.Select(IpPrefix.Parse).Order(), Entries());
    }

    [Fact]
    public void A_start_that_died_before_the_exchange_leaves_nothing_behind()
    {
        Start(1024, s_addresses);
        using (var half = BpfMaps.Create("half", MapInfo.TypeHash, 8, 8, 2048, flags: 1))
            half.Pin(Pin("ipcache4_resized"));

        Start(2048);

        Assert.Equal([2048u, 2048u], Sizes());
        Assert.Equal(s_addresses.Select(IpPrefix.Parse).Order(), Entries());
    }

    private void Start(uint ipcacheMax, params string[] addresses) => _space.Run(() =>
    {
        var desired = new DesiredState();
        desired.IPCache.Write(table => addresses.Select(IpPrefix.Parse).ToList().ForEach(prefix => table.Upsert(prefix,
            new IPCacheEntry(prefix, 131073, IpAddr.Parse("172.30.0.2"), 0, IPCacheSource.ClusterMesh, "osaka", 2, "default", "pod"))));
        using var datapath = Datapath.Start(new DatapathOptions
        {
            BpfRoot = _files.Path,
            ClusterId = 1,
            IdentityNumbering = IdentityNumbering.Max255,
            NodeName = "node1",
            UnderlayAddress = IpAddr.Parse("172.30.0.1"),
            GatewayAddresses = [IpAddr.Parse("10.1.0.254")],
            IPCacheMapMax = ipcacheMax,
        }, desired);
        using var feed = desired.IPCache.Subscribe();
        datapath.Loops.IPCache.RunOnce(feed);
    });

    private PinDirectory Pins => new(_files.Path);

    private string Pin(string map) => Pins.Map(map);

    private uint[] Sizes() => [InfoOf("ipcache4").MaxEntries, InfoOf("ipcache6").MaxEntries];

    private uint IdOf(string map) => InfoOf(map).Id;

    private MapInfo InfoOf(string map)
    {
        using var fd = BpfFd.OpenPinned(Pin(map), readOnly: true);
        return MapInfo.Of(fd, map);
    }

    private List<IpPrefix> Entries()
    {
        using var maps = PinnedMaps.Open(_files.Path);
        return [.. maps.IPCache().Select(entry => entry.Prefix)];
    }

    /// <summary>The maps, by id, of the program that all packets of pods come through.</summary>
    private uint[] MapsOfProgram()
    {
        using var attached = JsonDocument.Parse(Command.Run("bpftool", "-j", "link", "show", "pinned", Pins.Link("mesh_net")));
        var program = attached.RootElement.GetProperty("prog_id").GetInt32();
        using var loaded = JsonDocument.Parse(Command.Run("bpftool", "-j", "prog", "show", "id", $"{program}"));
        return [.. loaded.RootElement.GetProperty("map_ids").EnumerateArray().Select(id => id.GetUInt32())];
    }
}
