using Mesh.Datapath.LoadBalancing;
using Mesh.Datapath.Maps;
using Mesh.Model;

namespace Mesh.Datapath.Tests.LoadBalancing;

public sealed class MaglevTests
{
    [Theory]
    [InlineData(1, 251)]
    [InlineData(10, 251)]
    [InlineData(11, 509)]
    [InlineData(255, 8191)]
    [InlineData(2620, 65521)]
    [InlineData(60000, 65521)]
    public void The_table_has_at_least_25_entries_a_backend_as_long_as_16_bits_allow(int backends, int size) =>
        Assert.Equal(size, Maglev.TableSize(backends));

    [Theory]
    [InlineData(2)]
    [InlineData(7)]
    [InlineData(100)]
    [InlineData(255)]
    [InlineData(1000)]
    public void Every_backend_gets_its_fair_share(int count)
    {
        var table = Table(Backends(count));

        var shares = table.GroupBy(index => index).ToDictionary(group => group.Key, group => group.Count());

        Assert.Equal(count, shares.Count);
        // Turns are taken one by one, so nobody is ahead by more than one entry.
        Assert.InRange(shares.Values.Max() - shares.Values.Min(), 0, 1);
    }

    [Fact]
    public void The_table_depends_on_addresses_alone()
    {
        var backends = Backends(20);
        var before = Table(backends);
        for (var i = 0; i < backends.Length; i++)
        {
            backends[i].State = 2;
            backends[i].ClusterId = 9;
            backends[i].Node = 77;
        }

        Assert.Equal(before, Table(backends));
    }

    [Fact]
    public void A_removed_backend_moves_little_besides_its_own_share()
    {
        var backends = Backends(50);
        var before = Table(backends).Select(index => backends[index].Address).ToArray();
        var fewer = backends.Where((_, index) => index != 17).ToArray();
        var after = Table(fewer).Select(index => fewer[index].Address).ToArray();

        var moved = before.Zip(after).Count(pair => pair.First != backends[17].Address && pair.First != pair.Second);

        Assert.Equal(before.Length, after.Length);
        Assert.InRange(moved, 0, before.Length / 10);
    }

    private static ushort[] Table(LbBackend[] backends)
    {
        var table = new ushort[Maglev.TableSize(backends.Length)];
        Maglev.Fill(backends, table);
        return table;
    }

    private static LbBackend[] Backends(int count) =>
    [
        .. Enumerable.Range(1, count).Select(i => new LbBackend
        {
            Address = MeshAddress.From(IpAddr.V4(0x0a010000u + (uint)i)),
            Port = BigEndianUInt16.FromHost(8080),
            Protocol = 6,
            Family = Family.IPv4,
        }),
    ];
}
