using Mesh.AgentApi;
using Mesh.Cli.Commands;
using Mesh.Cli.Text;
using Xunit;

namespace Mesh.Cli.Tests;

/// <summary>The same JSON in, the same text out as cilium-dbg 1.13.2 printed, blank for blank.</summary>
public sealed class GoldenTableTests
{
    [Fact]
    public void Service_list() => Assert.Equal(
        Golden.Text("cilium-dbg-service-list.txt"),
        ServiceListCommand.Table(Golden.Json("api-service.json", AgentApiJson.Wire.IReadOnlyListService)));

    [Fact]
    public void Node_list() => Assert.Equal(
        Golden.Text("cilium-dbg-node-list.txt"),
        NodeListCommand.Table(Golden.Json("api-cluster-nodes.json", AgentApiJson.Wire.ClusterNodeStatus)));

    /// <summary>All but the one address whose labels the original prints in random order.</summary>
    [Fact]
    public void Ip_list()
    {
        var printed = IPListCommand.Table(
            Golden.Json("api-ip.json", AgentApiJson.Wire.IReadOnlyListIPListEntry),
            Golden.Json("api-identity.json", AgentApiJson.Wire.IReadOnlyListIdentity));
        Assert.Equal(WithoutRandomRows(Golden.Text("cilium-dbg-ip-list.txt")), WithoutRandomRows(printed));

        static string[] WithoutRandomRows(string table) => [.. table.Split('\n').Where(l => !l.Contains("cidr:", StringComparison.Ordinal)
            && !l.Contains("172.30.0.1/32", StringComparison.Ordinal) && !l.Contains(" reserved:", StringComparison.Ordinal))];
    }

    [Fact]
    public void Identity_list() => Assert.Equal(
        Golden.Text("cilium-dbg-identity-list.txt"),
        IdentityListCommand.Table(Golden.Json("api-identity.json", AgentApiJson.Wire.IReadOnlyListIdentity)));

    /// <summary>Every row that our agent has too, but for the clusters' block, whose words changed after 1.13. Column widths depend on the
    /// rows that we do not have, so runs of blanks count as one.</summary>
    [Theory]
    [InlineData("KVStore:")]
    [InlineData("Cilium:")]
    [InlineData("Masquerading:")]
    [InlineData("Proxy Status:")]
    [InlineData("Global Identity Range:")]
    [InlineData("Hubble:")]
    [InlineData("Encryption:")]
    [InlineData("Cluster health:")]
    [InlineData("└ etcd: 1/1 connected")]
    public void Status_row(string row)
    {
        var printed = StatusText.Format(Golden.Json("api-healthz.json", AgentApiJson.Wire.StatusResponse), true, DateTimeOffset.UnixEpoch);
        Assert.Equal(Row(Golden.Text("cilium-dbg-status-all-clusters.txt"), row), Row(printed, row));

        static string Row(string text, string start) => text.Split('\n').Select(Squeezed).Single(l => l.StartsWith(start, StringComparison.Ordinal));

        static string Squeezed(string line) => string.Join(' ', line.Split(' ', StringSplitOptions.RemoveEmptyEntries));
    }
}
