using System.Text;
using CsCheck;
using Mesh.ClusterMesh.Wire;
using Mesh.Model;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Wire;

public class ExportedServiceTests
{
    /// <summary>The contract's own example.</summary>
    private const string Example = """
        {"cluster":"falcon","name":"cart","namespace":"shop","labels":{"team":"a"},"Labels":{"team":"a"},"exportCreationTimestamp":"2026-02-01T10:00:00Z",
         "ports":[{"name":"http","protocol":"TCP","port":80}],"type":"ClusterSetIP","sessionAffinity":"None","ipFamilies":["IPv4"]}
        """;

    private static ExportedService Read(string json) =>
        ExportedServiceCodec.TryDecode(Encoding.UTF8.GetBytes(json), out var service, out var rejection) ? service : throw new InvalidDataException(rejection);

    private static string Text(ExportedService service) => Encoding.UTF8.GetString(ExportedServiceCodec.Encode(service));

    [Fact]
    public void The_contracts_example_is_read_and_written_as_it_is()
    {
        var service = Read(Example);
        Assert.Equal(("falcon", "shop", "cart", new DateTimeOffset(2026, 2, 1, 10, 0, 0, TimeSpan.Zero)),
            (service.Cluster, service.Namespace, service.Name, service.Created));
        Assert.Equal(new ExportedPort("http", "TCP", 80), Assert.Single(service.Ports));
        Assert.False(service.Headless || service.ClientIPAffinity);
        Assert.Equal(Example.Replace("\n ", "", StringComparison.Ordinal).Trim(), Text(service));
    }

    [Theory]
    [InlineData("\"labels\":{\"a\":\"new\"},\"Labels\":{\"a\":\"old\"}", "new")]
    [InlineData("\"Labels\":{\"a\":\"old\"},\"labels\":{\"a\":\"new\"}", "new")]
    [InlineData("\"labels\":{},\"Labels\":{\"a\":\"old\"}", "old")]
    [InlineData("\"Labels\":{\"a\":\"old\"}", "old")]
    public void Of_two_spellings_the_lower_case_one_counts_if_it_says_something(string labels, string expected) =>
        Assert.Equal(expected, Read(Example.Replace("\"labels\":{\"team\":\"a\"},\"Labels\":{\"team\":\"a\"}", labels, StringComparison.Ordinal)).Labels["a"]);

    [Theory]
    [InlineData("\"2026-02-01T10:00:00Z\"", "null", "exportCreationTimestamp '' is no time")]
    [InlineData("\"2026-02-01T10:00:00Z\"", "\"0001-01-01T00:00:00Z\"", "exportCreationTimestamp '0001-01-01T00:00:00Z' is no time")]
    [InlineData("\"2026-02-01T10:00:00Z\"", "\"yesterday\"", "exportCreationTimestamp 'yesterday' is no time")]
    [InlineData("\"ClusterSetIP\"", "\"Anycast\"", "type 'Anycast' must be ClusterSetIP or Headless")]
    [InlineData("\"sessionAffinity\":\"None\"", "\"sessionAffinity\":\"Cookie\"", "sessionAffinity 'Cookie' must be None or ClientIP")]
    [InlineData("\"sessionAffinity\":\"None\"", "\"x\":0", "sessionAffinity '' must be None or ClientIP")]
    [InlineData("[\"IPv4\"]", "[\"IPv5\"]", "ipFamilies 'IPv5' must be IPv4 or IPv6")]
    [InlineData("[\"IPv4\"]", "[],\"internalTrafficPolicy\":\"Far\"", "internalTrafficPolicy 'Far' must be Cluster or Local")]
    [InlineData("[\"IPv4\"]", "[],\"trafficDistribution\":\"Far\"", "trafficDistribution 'Far' must be PreferClose or PreferSameZone or PreferSameNode")]
    [InlineData("\"port\":80", "\"port\":0", "port 'http' has no number")]
    [InlineData("\"port\":80", "\"port\":70000", "'port' is '70000', not an integer from 0 to 65535")]
    [InlineData("\"name\":\"http\"", "\"name\":\"HTTP\"", "port name 'HTTP' must be 1 to 63 of a-z, 0-9 and '-'")]
    [InlineData("\"port\":80}", "\"port\":80},{\"name\":\"http\",\"port\":81}", "two of its ports are the same")]
    [InlineData("\"port\":80}", "\"port\":80},{\"port\":81}", "one of its several ports has no name")]
    [InlineData("\"port\":80}", "\"port\":80},null", "one of its ports is null")]
    [InlineData("{\"team\":\"a\"},\"Labels\"", "{\"team\":\"a b\"},\"Labels\"", "label 'team=a b' is none that Kubernetes takes")]
    [InlineData("\"cart\"", "\"../cart\"", "name '../cart' must be 1 to 63 of a-z, 0-9 and '-'")]
    public void What_could_be_no_service_is_rejected_by_name(string instead, string given, string reason)
    {
        Assert.Contains(instead, Example, StringComparison.Ordinal);
        var bytes = Encoding.UTF8.GetBytes(Example.Replace(instead, given, StringComparison.Ordinal));
        Assert.False(ExportedServiceCodec.TryDecode(bytes, out _, out var rejection));
        Assert.Equal(reason, rejection);
    }

    [Theory]
    [InlineData("shop/cart", "falcon", null)]
    [InlineData("shop/other", "falcon", "'shop/cart' differs from its key")]
    [InlineData("shop/cart/x", "falcon", "the key is not NAMESPACE/NAME")]
    [InlineData("shop/cart", "eagle", "cluster 'falcon' is not eagle")]
    public void A_peer_speaks_for_its_own_name_and_key(string key, string peer, string? reason)
    {
        var validator = new RecordValidator(peer, ClusterConfig.SafeProfile(7, 255, serviceExports: true), IdentityNumbering.Max255);
        Assert.Equal(reason is null, validator.TryServiceExport(key, Encoding.UTF8.GetBytes(Example), out _, out _, out var rejection));
        Assert.Equal(reason, rejection);
    }

    [Fact]
    public void No_bytes_do_more_than_be_rejected() => Gen.Select(Gen.Int[0, Example.Length - 1], Gen.Byte, Gen.Int[0, 40]).Sample((at, with, cut) =>
    {
        var bytes = Encoding.UTF8.GetBytes(Example);
        bytes[at] = with;
        if (ExportedServiceCodec.TryDecode(bytes.AsSpan(0, bytes.Length - cut), out var service, out _))
            Assert.Equal(Text(service), Text(Read(Text(service))));
    });
}
