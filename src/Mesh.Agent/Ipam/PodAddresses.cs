using System.Globalization;
using System.Net;
using Mesh.Agent.Endpoints;
using Mesh.AgentApi;
using Mesh.ControlPlane.Nodes;
using Mesh.Model;

namespace Mesh.Agent.Ipam;

/// <summary>
/// Which addresses of the node's pod ranges are whose. An address is in use because an endpoint is registered with it (and registrations
/// are on disk), because it is the node's own, or because a plugin that is making a pod has reserved it, for two minutes. Nothing else is
/// remembered: whoever is killed at whatever moment, plugin or agent, no address is lost.
/// </summary>
internal sealed class PodAddresses
{
    /// <summary>Longer than any plugin may take from the reservation to the registration.</summary>
    public static readonly TimeSpan ReservationLife = TimeSpan.FromMinutes(2);

    private readonly Lock _lock = new();
    private readonly Func<Node?> _node;
    private readonly TimeProvider _time;
    private readonly Dictionary<IpAddr, string> _registered = [];
    private readonly Dictionary<IpAddr, Reservation> _reserved = [];
    private readonly Dictionary<IpPrefix, AddressPool> _pools = [];

    /// <param name="node">This node as it is known now; null while it is not.</param>
    public PodAddresses(Func<Node?> node, TimeProvider time)
    {
        _node = node;
        _time = time;
    }

    /// <param name="Key">Whose: CONTAINER:IFNAME, or the owner's name when no plugin asks.</param>
    private sealed record Reservation(string Key, string Owner, DateTimeOffset Until);

    /// <summary>An address and the range it is of.</summary>
    public readonly record struct Given(IpAddr Address, IpPrefix Range);

    /// <summary>Reserves one address of each family asked for; asking again with the same key gives the same ones.</summary>
    /// <param name="v6">Null for every family of which the node has a range and a router.</param>
    /// <exception cref="EndpointRefusedException">None is free, or there is no range; nothing is reserved.</exception>
    public IReadOnlyList<Given> Reserve(string key, string owner, bool? v6)
    {
        lock (_lock)
        {
            Expire();
            var node = Known();
            var given = new List<Given>();
            foreach (var family in (bool[])[false, true])
                if (v6 is null ? Ranges(node, family).Any() && RouterOf(node, family) is not null : v6 == family)
                    given.Add(Find(node, family, key));
            if (given.Count == 0)
                throw NoRange(node, v6);
            foreach (var one in given)
                _reserved[one.Address] = new Reservation(key, owner, _time.GetUtcNow() + ReservationLife);
            return given;
        }
    }

    /// <summary>Reserves this address.</summary>
    /// <exception cref="EndpointRefusedException">It is somebody's, or of none of the node's ranges.</exception>
    public Given Reserve(IpAddr address, string key, string owner)
    {
        lock (_lock)
        {
            Expire();
            var node = Known();
            var range = Ranges(node, address.IsV6).FirstOrDefault(range => range.Contains(address));
            if (!range.Contains(address))
                throw new EndpointRefusedException(HttpStatusCode.BadRequest,
                    $"{address} is of none of this node's pod ranges: {Text(Ranges(node, address.IsV6))}");
            if (HolderOf(node, address, key) is { } holder)
                throw new EndpointRefusedException(HttpStatusCode.Conflict, $"{address} belongs to {holder}");
            _reserved[address] = new Reservation(key, owner, _time.GetUtcNow() + ReservationLife);
            return new Given(address, range);
        }
    }

    /// <summary>Gives a reservation back.</summary>
    /// <returns>False when the address was not reserved.</returns>
    /// <exception cref="EndpointRefusedException">It is a registered pod's.</exception>
    public bool Release(IpAddr address)
    {
        lock (_lock)
        {
            if (_registered.TryGetValue(address, out var owner))
                throw new EndpointRefusedException(HttpStatusCode.Conflict,
                    $"{address} belongs to {owner}: delete that endpoint, which frees its addresses");
            return Forget(address);
        }
    }

    /// <summary>Gives back whatever was reserved by this key.</summary>
    public void ReleaseAll(string key)
    {
        lock (_lock)
            foreach (var address in _reserved.Where(pair => pair.Value.Key == key).Select(pair => pair.Key).ToList())
                Forget(address);
    }

    /// <summary>Null when a registration may have these addresses, otherwise who has one of them reserved.</summary>
    public string? Refusal(string key, IEnumerable<IpAddr> addresses)
    {
        lock (_lock)
        {
            Expire();
            foreach (var address in addresses)
                if (_reserved.TryGetValue(address, out var held) && held.Key != key)
                    return $"address {address} is reserved for {held.Owner}: ask for another one (POST /v1/ipam)";
            return null;
        }
    }

    /// <summary>An endpoint's addresses are now these; called by the registry, which is the only one that says so.</summary>
    public void Registered(string owner, IEnumerable<IpAddr> before, IReadOnlyCollection<IpAddr> now)
    {
        lock (_lock)
        {
            foreach (var address in before.Except(now))
            {
                _registered.Remove(address);
                PoolOf(address)?.Freed(address);
            }
            foreach (var address in now)
            {
                _registered[address] = owner;
                _reserved.Remove(address);
            }
        }
    }

    public IpamStatus Status()
    {
        lock (_lock)
        {
            Expire();
            if (_node() is not { } node)
                return new IpamStatus { Problem = NotYet };
            var held = new SortedDictionary<IpAddr, string>();
            foreach (var (address, owner) in _registered)
                held[address] = owner;
            foreach (var (address, reservation) in _reserved)
                held[address] = $"{reservation.Owner} (reserved)";
            return new IpamStatus
            {
                Allocations = held.Count == 0 ? null : held.ToDictionary(pair => pair.Key.ToString(), pair => pair.Value),
                Ipv4 = Texts(held.Keys.Where(address => !address.IsV6)),
                Ipv6 = Texts(held.Keys.Where(address => address.IsV6)),
                Status = string.Concat(node.PodCidrs.Items.OrderBy(range => range.Address.IsV6).Select(range => string.Create(
                    CultureInfo.InvariantCulture,
                    $"{(range.Address.IsV6 ? "IPv6" : "IPv4")}: {Count(range, node)}/{new AddressPool(range).Size} allocated from {range}, "))),
                Problem = Problem(node),
            };
        }
    }

    private const string NotYet = "the node is not known yet: its CiliumNode is waited for";

    private string? Problem(Node node)
    {
        if (!node.PodCidrs.Items.Any())
            return NoRange(node, null).Message;
        foreach (var family in ((bool[])[false, true]).Where(family => Ranges(node, family).Any()))
            if (Ranges(node, family).All(range => Count(range, node) >= new AddressPool(range).Size))
                return Exhausted(node, family);
        return null;
    }

    private Node Known() => _node() ?? throw new EndpointRefusedException(HttpStatusCode.ServiceUnavailable, NotYet);

    private Given Find(Node node, bool v6, string key)
    {
        if (!Ranges(node, v6).Any())
            throw NoRange(node, v6);
        foreach (var range in Ranges(node, v6))
            foreach (var (address, held) in _reserved)
                if (held.Key == key && range.Contains(address))
                    return new Given(address, range);
        foreach (var range in Ranges(node, v6))
            if (Pool(range).Next(address => HolderOf(node, address, "") is not null) is { } free)
                return new Given(free, range);
        throw new EndpointRefusedException(HttpStatusCode.InsufficientStorage, Exhausted(node, v6));
    }

    private string Exhausted(Node node, bool v6)
    {
        var ranges = Ranges(node, v6).Select(range => string.Create(CultureInfo.InvariantCulture,
            $"pod range {range} of node {node.Name.Name} is exhausted: {_registered.Keys.Count(range.Contains)} pods, "
            + $"{_reserved.Keys.Count(range.Contains)} reserved, {Own(node).Count(range.Contains)} of the node itself, of {new AddressPool(range).Size}"));
        return $"{string.Join("; ", ranges)}: give the node another range, or remove pods";
    }

    private static EndpointRefusedException NoRange(Node node, bool? v6) => new(HttpStatusCode.ServiceUnavailable,
        $"node {node.Name.Name} has no {v6 switch { null => "", true => "IPv6 ", _ => "IPv4 " }}pod range with a router: "
        + $"its CiliumNode needs spec.ipam.podCIDRs and a CiliumInternalIP of the same family");

    private long Count(IpPrefix range, Node node) =>
        _registered.Keys.Concat(_reserved.Keys).Concat(Own(node)).Distinct().Count(range.Contains);

    /// <summary>Null when the address is free, or reserved by this key.</summary>
    private string? HolderOf(Node node, IpAddr address, string key) =>
        _registered.TryGetValue(address, out var owner) ? owner
        : _reserved.TryGetValue(address, out var held) && held.Key != key ? held.Owner
        : Own(node).Contains(address) ? $"node {node.Name.Name}"
        : null;

    private static IEnumerable<IpAddr> Own(Node node) =>
        node.Addresses.Items.Select(address => address.Address).Concat(node.HealthAddresses.Items);

    private static IEnumerable<IpPrefix> Ranges(Node node, bool v6) => node.PodCidrs.Items.Where(range => range.Address.IsV6 == v6);

    /// <summary>The node's own address that its pods send everything to.</summary>
    public static IpAddr? RouterOf(Node node, bool v6) => node.Addresses.Items
        .Where(address => address.Type == "CiliumInternalIP" && address.Address.IsV6 == v6).Select(address => (IpAddr?)address.Address).FirstOrDefault();

    private AddressPool Pool(IpPrefix range)
    {
        if (_pools.TryGetValue(range, out var pool))
            return pool;
        pool = new AddressPool(range);
        foreach (var address in _registered.Keys.Order())
            pool.StartAbove(address);
        return _pools[range] = pool;
    }

    private AddressPool? PoolOf(IpAddr address) => _pools.Values.FirstOrDefault(pool => pool.Range.Contains(address));

    private bool Forget(IpAddr address)
    {
        if (!_reserved.Remove(address))
            return false;
        PoolOf(address)?.Freed(address);
        return true;
    }

    private void Expire()
    {
        if (_reserved.Count == 0)
            return;
        var now = _time.GetUtcNow();
        foreach (var address in _reserved.Where(pair => pair.Value.Until <= now).Select(pair => pair.Key).ToList())
            Forget(address);
    }

    private static List<string>? Texts(IEnumerable<IpAddr> addresses) => addresses.Select(address => address.ToString()).ToList() is { Count: > 0 } list
        ? list
        : null;

    private static string Text(IEnumerable<IpPrefix> ranges) => string.Join(", ", ranges) is { Length: > 0 } text ? text : "it has none";
}
