using Mesh.Bpf;
using Mesh.ControlPlane.Endpoints;
using Mesh.Datapath.Devices;
using Mesh.Datapath.Endpoints;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.Hitless;

/// <summary>As <see cref="KilledWriterTests"/>, of the pods: their addresses in the map and the program on their devices.</summary>
public sealed class KilledEndpointTests : IDisposable
{
    private readonly NetworkNamespace _space = new();
    private readonly BpfFileSystem _files = new();
    private readonly PinDirectory _pins;

    public KilledEndpointTests()
    {
        _pins = new PinDirectory(_files.Path);
        _pins.Create();
        _space.Shell("sh", "-c", "for i in 1 2 3; do ip link add lxc$i type veth peer name pod$i; ip link set lxc$i up; done");
    }

    public void Dispose()
    {
        _files.Dispose();
        _space.Dispose();
    }

    [Fact]
    public void Killed_before_any_step_each_address_is_old_or_new_and_no_pod_has_a_program_before_its_address() => _space.Run(() =>
    {
        using var objects = DatapathObjects.Load(_pins, new NodeConfig { ClusterId = 1 });
        using var netlink = new Rtnetlink();
        using var map = BpfMaps.OpenPinned<EndpointKey, EndpointValue>(_pins.Map("endpoints"));
        // Another identity and address; a pod that goes, and one that comes.
        var from = Of(netlink, (7, "lxc1", 65537, "10.1.0.7 fd00:1::7"), (8, "lxc2", 65538, "10.1.0.8"));
        var to = Of(netlink, (7, "lxc1", 65540, "10.1.0.7 10.1.0.17"), (9, "lxc3", 65539, "10.1.0.9 fd00:1::9"));
        Follow(null, from);
        var old = View(map);
        Follow(null, to);
        var now = View(map);

        var deaths = 0;
        for (; ; deaths++)
        {
            Follow(null, from);
            Assert.Equal(old, View(map));
            if (!Dies(deaths))
                break;
            var seen = View(map);
            foreach (var thing in seen.Keys.Union(old.Keys).Union(now.Keys))
                Assert.True(seen.GetValueOrDefault(thing) == old.GetValueOrDefault(thing) || seen.GetValueOrDefault(thing) == now.GetValueOrDefault(thing),
                    $"death {deaths}: {thing} is <{seen.GetValueOrDefault(thing)}>");
            foreach (var pod in to.Values.Where(pod => _pins.LinkNames().Contains($"endpoint_{pod.InterfaceIndex}")))
                Assert.Contains(map.Dump(), entry => entry.Value.InterfaceIndex == pod.InterfaceIndex);
            Follow(null, to);
            Assert.Equal(now, View(map));
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{deaths} deaths");
        Assert.True(deaths > 8, $"only {deaths} steps");

        void Follow(Action<string>? failpoint, Dictionary<ushort, Endpoint> rows)
        {
            var operations = new EndpointOperations(map, new Attachments(_pins, BpfFeatures.Probe(), failpoint), objects.PodIn, netlink, enforcePolicy: true);
            operations.Adopt();
            operations.Update([.. rows], (_, fault) => Assert.Fail(fault.Cause));
            operations.Prune(rows);
        }

        bool Dies(int after)
        {
            var steps = 0;
            void Step(string what)
            {
                if (steps++ == after)
                    throw new KilledException(what);
            }
            WriteFailpoint.Before = Step;
            try
            {
                Follow(Step, to);
                return false;
            }
            catch (KilledException)
            {
                return true;
            }
            finally
            {
                WriteFailpoint.Before = null;
            }
        }
    });

    private static SortedDictionary<string, string> View(BpfMap<EndpointKey, EndpointValue> map) => new(map.Dump().ToDictionary(
        entry => $"{entry.Key.ToIpAddr()}",
        entry => $"{entry.Value.Id} on {entry.Value.InterfaceIndex} as {entry.Value.Identity} {entry.Value.Mac} {entry.Value.HostMac} {entry.Value.Flags}"));

    private static Dictionary<ushort, Endpoint> Of(Rtnetlink netlink, params (ushort Id, string Device, uint Identity, string Addresses)[] pods) =>
        pods.ToDictionary(pod => pod.Id, pod => new Endpoint(pod.Id, "default", $"pod-{pod.Id}", pod.Device, netlink.Link(pod.Device)!.Index, 0x020000000001,
            0x020000000002, new([.. pod.Addresses.Split(' ').Select(IpAddr.Parse)]), pod.Identity));

    private sealed class KilledException(string step) : Exception(step);
}
