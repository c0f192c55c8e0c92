using CsCheck;
using Mesh.Model;
using Mesh.Operator.Ipam;
using Xunit;

namespace Mesh.Operator.Tests;

public sealed class RangePoolTests
{
    [Fact]
    public void No_two_nodes_ever_have_overlapping_ranges() => Gen.Select(Gen.Int[0, 15], Gen.Bool).List[1, 200].Sample(steps =>
    {
        var pool = new RangePool([IpPrefix.Parse("10.1.0.0/24"), IpPrefix.Parse("10.9.0.0/25")], 28);
        var given = new Dictionary<string, IpPrefix>();
        foreach (var (number, takes) in steps)
        {
            var node = $"n{number}";
            if (!takes)
            {
                pool.Release(node);
                given.Remove(node);
            }
            else if (!given.ContainsKey(node) && pool.Give(node) is { } range)
            {
                Assert.DoesNotContain(given.Values, range.Overlaps);
                given[node] = range;
            }
        }
    });

    [Fact]
    public void What_is_taken_is_never_given_and_what_is_freed_comes_last()
    {
        var pool = new RangePool([IpPrefix.Parse("10.1.0.0/29")], 31);
        Assert.Null(pool.Take(IpPrefix.Parse("10.1.0.2/31"), "old"));
        Assert.Equal("old", pool.Take(IpPrefix.Parse("10.1.0.3/32"), "other"));
        Assert.Equal("10.1.0.0/31", $"{pool.Give("a")}");
        pool.Release("a");
        Assert.Equal("10.1.0.4/31", $"{pool.Give("b")}");
        Assert.Equal("10.1.0.6/31", $"{pool.Give("c")}");
        Assert.Equal("10.1.0.0/31", $"{pool.Give("d")}");
        Assert.Null(pool.Give("e"));
    }
}
