using System.Globalization;
using Mesh.Bpf;
using Mesh.ControlPlane.Endpoints;
using Mesh.Datapath.Devices;
using Mesh.Datapath.Loader;
using Mesh.Datapath.Maps;
using Mesh.Model;
using Mesh.StateDB.Reconciler;

namespace Mesh.Datapath.Endpoints;

/// <summary>
/// Pods of this node → kernel: their addresses into the endpoints map, then pod_in onto their device. The node's own addresses
/// stand in the same map, put there at start; rows and prune never touch them. Driven by one thread at a time.
/// </summary>
internal sealed class EndpointOperations : IOperations<ushort, Endpoint>
{
    private const string LinkPrefix = "endpoint_";

    private readonly BpfMap<EndpointKey, EndpointValue> _map;
    private readonly Attachments _attachments;
    private readonly BpfProgram _podIn;
    private readonly Rtnetlink _netlink;
    private readonly HashSet<int> _attached = [];
    private readonly Lock _lock = new();
    private bool _waits;
    private readonly EndpointFlags _flags;

    /// <param name="enforcePolicy">Packets of pods are judged by policy.</param>
    internal EndpointOperations(
        BpfMap<EndpointKey, EndpointValue> map, Attachments attachments, BpfProgram podIn, Rtnetlink netlink, bool enforcePolicy)
    {
        _flags = enforcePolicy ? EndpointFlags.Policy : EndpointFlags.None;
        _map = map;
        _attachments = attachments;
        _podIn = podIn;
        _netlink = netlink;
    }

    /// <summary>Until <see cref="Adopt"/> every device keeps the program it has; one that has none waits.</summary>
    internal void WaitForSwitch() => _waits = true;

    /// <summary>Gives every device that was attached before the new program, at once: a pod must not wait for its row.</summary>
    internal void Adopt()
    {
        using var _ = _lock.EnterScope();
        _waits = false;
        foreach (var link in _attachments.Names.Where(name => name.StartsWith(LinkPrefix, StringComparison.Ordinal)).ToList())
            if (_attachments.Renew(link, _podIn))
                _attached.Add(int.Parse(link.AsSpan(LinkPrefix.Length), CultureInfo.InvariantCulture));
    }

    /// <summary>The node's own addresses: packets for them go up to the stack through <paramref name="hostDevice"/>.</summary>
    internal void SetHostAddresses(IReadOnlyCollection<IpAddr> addresses, int hostDevice, MacAddress stackMac, MacAddress hostMac)
    {
        var wanted = addresses.Select(EndpointKey.From).ToHashSet();
        foreach (var (key, value) in _map.Dump())
            if ((value.Flags & EndpointFlags.Host) != 0 && !wanted.Contains(key))
                _map.Remove(key);
        foreach (var key in wanted)
            _map.Set(key, new EndpointValue
            {
                InterfaceIndex = (uint)hostDevice,
                Identity = NumericIdentity.Host,
                Mac = stackMac,
                HostMac = hostMac,
                Flags = EndpointFlags.Host,
            });
    }

    public void Update(IReadOnlyList<KeyValuePair<ushort, Endpoint>> rows, Action<int, RowFault> fail)
    {
        using var _ = _lock.EnterScope();
        for (var i = 0; i < rows.Count; i++)
        {
            var row = rows[i].Value;
            try
            {
                Apply(row);
            }
            catch (Exception exception) when (exception is BpfException or DatapathException)
            {
                var fault = exception as DatapathException ?? new DatapathException(exception.Message, exception);
                fail(i, fault.Of($"endpoint {row.Id} ({row.Namespace}/{row.PodName})"));
            }
        }
    }

    public void Delete(IReadOnlyList<ushort> keys, Action<int, RowFault> fail)
    {
        using var _ = _lock.EnterScope();
        var gone = keys.ToHashSet();
        RemoveWhere((address, value) => gone.Contains(value.Id));
    }

    public int Prune(IReadOnlyDictionary<ushort, Endpoint> desired)
    {
        using var scope = _lock.EnterScope();
        var removed = RemoveWhere((key, value) => !desired.TryGetValue(value.Id, out var row)
            || !row.Addresses.Items.Any(address => EndpointKey.From(address) == key));
        var wanted = desired.Values.Select(row => LinkName(row.InterfaceIndex)).ToHashSet();
        foreach (var link in _attachments.Names.Where(name => name.StartsWith(LinkPrefix, StringComparison.Ordinal)).ToList())
        {
            if (wanted.Contains(link))
                continue;
            Detach(int.Parse(link.AsSpan(LinkPrefix.Length), CultureInfo.InvariantCulture));
            removed++;
        }
        return removed;
    }

    private void Apply(Endpoint row)
    {
        if (_netlink.Link(row.InterfaceIndex) is not { } device)
        {
            _attached.Remove(row.InterfaceIndex);
            throw new DatapathException($"interface {row.InterfaceName} (index {row.InterfaceIndex}) is gone from this network namespace");
        }
        if (device.Name != row.InterfaceName)
            throw new DatapathException($"interface {row.InterfaceIndex} is now {device.Name}, not {row.InterfaceName}");
        // Entries first: a device with the program but without entries would drop the pod's packets.
        var keys = row.Addresses.Items.Select(EndpointKey.From).ToHashSet();
        foreach (var key in keys)
            _map.Set(key, new EndpointValue
            {
                InterfaceIndex = (uint)row.InterfaceIndex,
                Identity = row.Identity,
                Mac = MacAddress.From(row.PodMac),
                Id = row.Id,
                HostMac = MacAddress.From(row.HostMac),
                Flags = _flags,
            });
        if (_waits && !_attachments.Has(LinkName(row.InterfaceIndex)))
            throw new DatapathException("waits until the maps of a new layout are filled");
        // Once per device and start: exchanging a program waits for a grace period.
        if (!_waits && !_attached.Contains(row.InterfaceIndex))
        {
            Sysctl.PreparePodDevice(row.InterfaceName);
            _attachments.ToInterface(LinkName(row.InterfaceIndex), _podIn, row.InterfaceIndex);
            _attached.Add(row.InterfaceIndex);
        }
        RemoveWhere((key, value) => value.Id == row.Id && (!keys.Contains(key) || value.InterfaceIndex != row.InterfaceIndex));
    }

    /// <summary>Removes pods' entries, and detaches devices that no entry names any more.</summary>
    private int RemoveWhere(Func<EndpointKey, EndpointValue, bool> predicate)
    {
        var leaving = new List<EndpointKey>();
        var devices = new HashSet<uint>();
        var staying = new HashSet<uint>();
        foreach (var (key, value) in _map.Dump())
        {
            if ((value.Flags & EndpointFlags.Host) != 0)
                continue;
            var leaves = predicate(key, value);
            if (leaves)
                leaving.Add(key);
            (leaves ? devices : staying).Add(value.InterfaceIndex);
        }
        if (leaving.Count == 0)
            return 0;
        _map.RemoveBatch([.. leaving]);
        foreach (var device in devices.Except(staying))
            Detach((int)device);
        return leaving.Count;
    }

    private void Detach(int device)
    {
        _attached.Remove(device);
        _attachments.Remove(LinkName(device), device);
    }

    private static string LinkName(int device) => string.Create(CultureInfo.InvariantCulture, $"{LinkPrefix}{device}");
}
