using System.Net;
using CsCheck;
using Xunit;

namespace Mesh.Model.Tests;

public class IpAddrTests
{
    private static readonly Gen<IpAddr> AnyAddress = Gen.OneOf(
        Gen.UInt.Select(IpAddr.V4),
        Gen.Select(Gen.ULong, Gen.ULong).Select((high, low) => IpAddr.FromBytes(IpAddr.V6(new UInt128(high, low)).ToBytes())));

    [Theory]
    [InlineData("10.0.0.1", "10.0.0.1")]
    [InlineData("FD00::000A", "fd00::a")]
    [InlineData("::ffff:10.0.0.1", "10.0.0.1")]
    [InlineData("::", "::")]
    public void Text_is_read_and_written_as_every_peer_does(string text, string canonical) =>
        Assert.Equal(canonical, IpAddr.Parse(text).ToString());

    [Theory]
    [InlineData("")]
    [InlineData("010.0.0.1")]
    [InlineData("10.0.0")]
    [InlineData("10.0.0.256")]
    [InlineData("10.0.0.1.")]
    [InlineData("10.0.0.1/32")]
    [InlineData("fe80::1%eth0")]
    [InlineData("[fd00::1]")]
    [InlineData("1:2:3:4:5:6:7:8:9")]
    [InlineData("10.0.0.1@3")]
    [InlineData(" 10.0.0.1")]
    public void What_Go_refuses_we_refuse(string text) => Assert.False(IpAddr.TryParse(text, out _));

    [Fact]
    public void Text_and_bytes_come_back_unchanged() => AnyAddress.Sample(address =>
        IpAddr.Parse(address.ToString()) == address && IpAddr.FromBytes(address.ToBytes()) == address
        && IpAddr.From(address.ToIPAddress()) == address);

    [Fact]
    public void Arbitrary_text_is_either_read_or_refused() =>
        Gen.String[Gen.Char["0123456789abcdef:.%/[] "], 0, 40].Sample(text =>
        {
            if (IpAddr.TryParse(text, out var address))
                Assert.Equal(address, IpAddr.From(IPAddress.Parse(text)));
        });

    [Fact]
    public void Kernel_bytes_begin_with_the_IPv4_address()
    {
        Span<byte> bytes = stackalloc byte[16];
        bytes.Fill(0xff);
        IpAddr.Parse("10.1.2.3").WriteKernelBytes(bytes);
        Assert.Equal(new byte[] { 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }, bytes.ToArray());
    }
}

public class IpPrefixTests
{
    [Theory]
    [InlineData("10.1.2.3/24", "10.1.2.0/24")]
    [InlineData("10.1.2.3", "10.1.2.3/32")]
    [InlineData("0.0.0.0/0", "0.0.0.0/0")]
    [InlineData("fd00::1/64", "fd00::/64")]
    [InlineData("fd00::1", "fd00::1/128")]
    public void A_range_is_stored_masked(string text, string canonical) => Assert.Equal(canonical, IpPrefix.Parse(text).ToString());

    [Theory]
    [InlineData("10.0.0.0/33")]
    [InlineData("10.0.0.0/-1")]
    [InlineData("10.0.0.0/08")]
    [InlineData("10.0.0.0/")]
    [InlineData("fd00::/129")]
    [InlineData("10.0.0.0/999")]
    public void An_impossible_length_is_refused(string text) => Assert.False(IpPrefix.TryParse(text, out _));

    [Fact]
    public void A_range_contains_exactly_its_addresses() =>
        Gen.Select(Gen.UInt, Gen.Int[0, 32], Gen.UInt).Sample((network, length, probe) =>
        {
            var prefix = new IpPrefix(IpAddr.V4(network), length);
            var mask = length == 0 ? 0u : uint.MaxValue << 32 - length;
            Assert.Equal((network & mask) == (probe & mask), prefix.Contains(IpAddr.V4(probe)));
        });

    [Fact]
    public void Overlap_is_containment_either_way()
    {
        Assert.True(IpPrefix.Parse("10.0.0.0/8").Overlaps(IpPrefix.Parse("10.1.0.0/16")));
        Assert.True(IpPrefix.Parse("10.1.0.0/16").Overlaps(IpPrefix.Parse("10.0.0.0/8")));
        Assert.False(IpPrefix.Parse("10.0.0.0/9").Overlaps(IpPrefix.Parse("10.128.0.0/9")));
        Assert.False(IpPrefix.Parse("0.0.0.0/0").Overlaps(IpPrefix.Parse("::/0")));
    }
}

public class IdentityNumberingTests
{
    [Theory]
    [InlineData(255, 7, 458752u, 524287u)]
    [InlineData(511, 7, 229376u, 262143u)]
    [InlineData(255, 0, 256u, 65535u)]
    [InlineData(255, 255, 16711680u, 16777215u)]
    [InlineData(511, 511, 16744448u, 16777215u)]
    public void Each_cluster_has_its_own_range(int max, uint cluster, uint first, uint last)
    {
        var numbering = IdentityNumbering.For(max)!;
        Assert.Equal(first, numbering.MinOf(cluster));
        Assert.Equal(last, numbering.MaxOf(cluster));
        Assert.True(numbering.InRange(cluster, first) && numbering.InRange(cluster, last));
        Assert.False(numbering.InRange(cluster, first - 1) || numbering.InRange(cluster, last + 1));
    }

    [Fact]
    public void An_identity_names_its_cluster() =>
        Gen.Select(Gen.UInt[1, 511], Gen.UInt[0, 32767]).Sample((cluster, local) =>
            IdentityNumbering.Max511.ClusterOf(cluster << 15 | local) == cluster);

    [Theory]
    [InlineData(254)]
    [InlineData(0)]
    [InlineData(512)]
    public void No_other_split_exists(int max) => Assert.Null(IdentityNumbering.For(max));

    [Fact]
    public void Scoped_identities_belong_to_no_cluster() => Assert.False(IdentityNumbering.Max255.InRange(1, 0x01010001));
}

public class ClusterNameTests
{
    [Theory]
    [InlineData("tokyo")]
    [InlineData("a")]
    [InlineData("eu-west-1")]
    [InlineData("7")]
    public void Good_names_pass(string name) => Assert.Null(ClusterName.Validate(name));

    [Theory]
    [InlineData("")]
    [InlineData("default")]
    [InlineData("Tokyo")]
    [InlineData("-tokyo")]
    [InlineData("tokyo-")]
    [InlineData("to_kyo")]
    [InlineData("to.kyo")]
    [InlineData("a234567890123456789012345678901234")]
    public void Bad_names_are_named_in_the_reason(string name) => Assert.Contains($"'{name}'", ClusterName.Validate(name));
}
