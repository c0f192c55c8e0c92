using System.Text;
using CsCheck;
using Mesh.ClusterMesh.Imports;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Imports;

/// <summary>CLUSTER.imports.json: what it may say, and how it says what is wrong.</summary>
public sealed class ImportPolicyFileTests
{
    [Fact]
    public void Every_member_is_read()
    {
        var policy = ImportPolicyFile.Parse("""
            {"name":"osaka","clusterID":2,"podCIDRs":["10.2.0.0/16","fd00:10:2::/48"],"nodeCIDRs":["172.30.2.0/24"],"namespaces":["shop","team-*"],
             "quotas":{"keys":300,"bytes":268435456,"valueBytes":1024,"eventsPerSecond":5},"breaker":{"sharePercent":40,"confirmAfterSeconds":7}}
            """, "osaka");
        Assert.Equal((2u, "10.2.0.0/16, fd00:10:2::/48", "172.30.2.0/24"), (policy.ClusterId!.Value, $"{policy.PodCidrs}", $"{policy.NodeCidrs}"));
        Assert.Equal(new ImportQuotas { Keys = 300, Bytes = 268435456, ValueBytes = 1024, EventsPerSecond = 5 }, policy.Quotas);
        Assert.Equal((40, TimeSpan.FromSeconds(7)), (policy.Breaker.SharePercent, policy.Breaker.ConfirmAfter));
        Assert.Equal([true, false, true, false], new[] { "shop", "shopping", "team-a", "tea" }.Select(policy.Grants));
        Assert.True(policy.FromFile);
    }

    [Fact]
    public void An_empty_object_limits_no_ranges_and_keeps_the_defaults()
    {
        var policy = ImportPolicyFile.Parse("{}", "osaka");
        Assert.Equal((null, null, null, null), (policy.ClusterId, policy.PodCidrs, policy.NodeCidrs, policy.Namespaces));
        Assert.Equal((new ImportQuotas(), new BreakerPolicy()), (policy.Quotas, policy.Breaker));
        Assert.Equal((300_000, 256L << 20, 1 << 20, 5_000, 50, 60),
            (policy.Quotas.Keys, policy.Quotas.Bytes, policy.Quotas.ValueBytes, policy.Quotas.EventsPerSecond, policy.Breaker.SharePercent,
                (int)policy.Breaker.ConfirmAfter.TotalSeconds));
    }

    [Theory]
    [InlineData("", "not JSON")]
    [InlineData("[]", "the file must be an object")]
    [InlineData("""{"podCidrs":[]}""", "'podCidrs' is unknown; allowed are name, clusterID, podCIDRs")]
    [InlineData("""{"clusterID":0}""", "clusterID: must be a whole number from 1 to 511")]
    [InlineData("""{"clusterID":"2"}""", "clusterID: must be a whole number")]
    [InlineData("""{"clusterID":2,"clusterID":3}""", "'clusterID' is given twice")]
    [InlineData("""{"name":"tokyo"}""", "name: must be 'osaka'")]
    [InlineData("""{"podCIDRs":"10.2.0.0/16"}""", "podCIDRs: must be a list")]
    [InlineData("""{"podCIDRs":["10.2.0.1/16"]}""", "podCIDRs: '10.2.0.1/16' is no range such as 10.2.0.0/16")]
    [InlineData("""{"nodeCIDRs":["10.2.0.0"]}""", "nodeCIDRs: '10.2.0.0' is no range")]
    [InlineData("""{"namespaces":[7]}""", "namespaces: must hold texts only")]
    [InlineData("""{"quotas":{"key":1}}""", "'quotas.key' is unknown; allowed are keys")]
    [InlineData("""{"quotas":{"eventsPerSecond":0}}""", "eventsPerSecond: must be a whole number from 1")]
    [InlineData("""{"breaker":{"sharePercent":101}}""", "sharePercent: must be a whole number from 1 to 100")]
    [InlineData("""{"breaker":[]}""", "breaker must be an object")]
    public void A_malformed_file_names_the_member_and_the_mend(string text, string reason) =>
        Assert.Contains(reason, Assert.Throws<FormatException>(() => ImportPolicyFile.Parse(text, "osaka")).Message);

    [Fact]
    public void Any_text_is_a_policy_or_a_format_fault() =>
        Gen.OneOf(
            Gen.String,
            Gen.Byte.Array[0, 64].Select(bytes => Encoding.Latin1.GetString(bytes)),
            Gen.Int[0, 5].Select(Gen.Int[0, 6], (name, value) =>
                $"{{\"{new[] { "podCIDRs", "quotas", "breaker", "namespaces", "clusterID", "x" }[name]}\":"
                + $"{new[] { "[]", "{}", "null", "1", "[null]", "[\"/\"]", "1e99" }[value]}}}"))
        .Sample(text =>
        {
            try
            {
                return ImportPolicyFile.Parse(text, "osaka") is not null;
            }
            catch (FormatException)
            {
                return true;
            }
        }, iter: 3_000);

    [Fact]
    public void A_set_of_ranges_answers_as_looking_at_each_would()
    {
        var prefix = Gen.UInt.Select(Gen.Int[0, 32], (value, length) => new IpPrefix(IpAddr.V4(value & 0xff0000ff), length));
        prefix.Array[0, 8].Select(prefix.Where(p => p.Length > 0)).Sample((ranges, asked) =>
        {
            var set = new PrefixSet(ranges);
            return set.Covers(asked) == ranges.Any(range => range.Length <= asked.Length && range.Contains(asked.Address))
                && set.Overlaps(asked) == ranges.Any(range => range.Overlaps(asked));
        });
    }
}
