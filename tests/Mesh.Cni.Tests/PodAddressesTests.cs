using CsCheck;
using Mesh.Agent.Endpoints;
using Mesh.Agent.Ipam;
using Mesh.ControlPlane.Nodes;
using Mesh.Model;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>Whose an address is, without a kernel.</summary>
public sealed class PodAddressesTests
{
    private readonly FakeTimeProvider _time = new(DateTimeOffset.UnixEpoch);

    private PodAddresses Of(params string[] ranges)
    {
        var prefixes = ranges.Select(IpPrefix.Parse).ToList();
        var node = new Node(new NodeName("tokyo", "node"), 1,
            new EquatableArray<NodeAddress>(prefixes.Select(range => new NodeAddress("CiliumInternalIP", AddressPool.RouterOf(range)))),
            new EquatableArray<IpPrefix>(prefixes), default, IsLocalNode: true);
        return new PodAddresses(() => node, _time);
    }

    private static string One(PodAddresses addresses, string key) => addresses.Reserve(key, key, v6: null).Single().Address.ToString();

    [Fact]
    public void Addresses_that_nobody_had_come_first_and_the_longest_free_next()
    {
        var addresses = Of("10.0.0.0/29");
        Assert.Equal(["10.0.0.2", "10.0.0.3", "10.0.0.4"], new[] { "a", "b", "c" }.Select(key => One(addresses, key)));
        foreach (var address in new[] { "10.0.0.3", "10.0.0.2" })
            addresses.Release(IpAddr.Parse(address));
        Assert.Equal(["10.0.0.5", "10.0.0.6", "10.0.0.3", "10.0.0.2"], new[] { "d", "e", "f", "g" }.Select(key => One(addresses, key)));
        var refused = Assert.Throws<EndpointRefusedException>(() => One(addresses, "h"));
        Assert.Contains("10.0.0.0/29 of node node is exhausted", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_reservation_ends_by_itself_and_a_registration_does_not()
    {
        var addresses = Of("10.0.0.0/30");
        var first = One(addresses, "killed");
        Assert.Throws<EndpointRefusedException>(() => One(addresses, "next"));
        _time.Advance(PodAddresses.ReservationLife);
        Assert.Equal(first, One(addresses, "next"));
        addresses.Registered("default/next", [], [IpAddr.Parse(first)]);
        _time.Advance(PodAddresses.ReservationLife);
        Assert.Throws<EndpointRefusedException>(() => One(addresses, "other"));
        Assert.Throws<EndpointRefusedException>(() => addresses.Release(IpAddr.Parse(first)));
    }

    [Fact]
    public void Who_asks_again_is_given_the_same_and_nobody_else_may_register_it()
    {
        var addresses = Of("10.0.0.0/24", "fd00::/64");
        var given = addresses.Reserve("c1:eth0", "default/pod", v6: null);
        Assert.Equal(["10.0.0.2", "fd00::2"], given.Select(one => one.Address.ToString()));
        Assert.Equal(given, addresses.Reserve("c1:eth0", "default/pod", v6: null));
        Assert.Contains("reserved for default/pod", addresses.Refusal("c2:eth0", [given[0].Address]), StringComparison.Ordinal);
        Assert.Null(addresses.Refusal("c1:eth0", [given[0].Address]));
    }

    [Fact]
    public void After_a_restart_the_lately_freed_come_last()
    {
        var addresses = Of("10.0.0.0/24");
        addresses.Registered("default/old", [], [IpAddr.Parse("10.0.0.40")]);
        Assert.Equal("10.0.0.41", One(addresses, "a"));
    }

    /// <summary>Whatever is reserved, registered, freed and left to expire: no address is two pods', and all come back.</summary>
    [Fact]
    public void No_address_is_given_twice_and_none_is_lost() =>
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 15]).Array[0, 60].Sample(steps =>
        {
            var addresses = Of("10.0.0.0/28");
            var held = new Dictionary<string, (IpAddr Address, bool Registered, DateTimeOffset Until)>();
            foreach (var (step, number) in steps)
            {
                var key = $"c{number}";
                foreach (var ended in held.Where(pair => !pair.Value.Registered && pair.Value.Until <= _time.GetUtcNow()).Select(pair => pair.Key).ToList())
                    held.Remove(ended);
                var known = held.TryGetValue(key, out var mine);
                if (step == 0 && !known && held.Count < 13)
                {
                    var address = addresses.Reserve(key, key, v6: false)[0].Address;
                    Assert.DoesNotContain(address, held.Values.Select(one => one.Address));
                    held[key] = (address, false, _time.GetUtcNow() + PodAddresses.ReservationLife);
                }
                else if (step == 1 && known && !mine.Registered)
                {
                    addresses.Registered(key, [], [mine.Address]);
                    held[key] = mine with { Registered = true };
                }
                else if (step == 2 && known)
                {
                    if (mine.Registered)
                        addresses.Registered(key, [mine.Address], []);
                    else
                        addresses.ReleaseAll(key);
                    held.Remove(key);
                }
                else if (step == 3)
                {
                    _time.Advance(TimeSpan.FromSeconds(30));
                }
            }
            _time.Advance(PodAddresses.ReservationLife);
            Assert.Equal(held.Values.Count(one => one.Registered), addresses.Status().Allocations?.Count ?? 0);
        }, threads: 1);
}
