using Mesh.ControlPlane.LoadBalancing.Choice;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Xunit;

namespace Mesh.ControlPlane.Tests.Choice;

/// <summary>What may stand in the annotations, and what is said about the rest.</summary>
public sealed class ServiceChoiceTests
{
    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("none")]
    [InlineData("NONE")]
    [InlineData(" none ")]
    public void Absence_and_none_are_the_same(string? value)
    {
        foreach (var name in new[]
            {
                ServiceChoice.AffinityName, ServiceChoice.AffinityAlias, ServiceChoice.ClustersName, ServiceChoice.MinHealthyName,
                ServiceChoice.PreferZoneName, ServiceChoice.SlowStartName,
            })
            Assert.Equal(ServiceChoice.Default, Read(value is null ? [] : [(name, value)]));
    }

    [Theory]
    [InlineData(ServiceChoice.AffinityName, "locale", "local, remote or none")]
    [InlineData(ServiceChoice.AffinityName, "local,remote", "local, remote or none")]
    [InlineData(ServiceChoice.ClustersName, "tokyo:80, osaka", "all clusters of a group")]
    [InlineData(ServiceChoice.ClustersName, "tokyo:0", "1 to 1000")]
    [InlineData(ServiceChoice.ClustersName, "tokyo:1001", "1 to 1000")]
    [InlineData(ServiceChoice.ClustersName, "tokyo:-1", "1 to 1000")]
    [InlineData(ServiceChoice.ClustersName, "tokyo > ", "a cluster's name")]
    [InlineData(ServiceChoice.ClustersName, "> tokyo", "a cluster's name")]
    [InlineData(ServiceChoice.ClustersName, "Tokyo", "a cluster's name")]
    [InlineData(ServiceChoice.ClustersName, "tokyo, tokyo", "named twice")]
    [InlineData(ServiceChoice.ClustersName, "* > tokyo", "last group")]
    [InlineData(ServiceChoice.MinHealthyName, "50", "percentage")]
    [InlineData(ServiceChoice.MinHealthyName, "101%", "percentage")]
    [InlineData(ServiceChoice.MinHealthyName, "-1%", "percentage")]
    [InlineData(ServiceChoice.MinHealthyName, "NaN%", "percentage")]
    [InlineData(ServiceChoice.PreferZoneName, "yes", "true, false or none")]
    [InlineData(ServiceChoice.SlowStartName, "10", "0s to 60m")]
    [InlineData(ServiceChoice.SlowStartName, "2h", "0s to 60m")]
    [InlineData("mesh.cilium.io/cluster", "tokyo > *", "there is no such annotation, only mesh.cilium.io/clusters, ")]
    public void A_word_that_nobody_knows_is_refused_by_name(string name, string value, string allowed)
    {
        Assert.False(ServiceChoice.TryRead(Metadata((name, value)), out _, out var problem));
        Assert.StartsWith($"annotation {name}: \"{value.Trim()}\"", problem.Replace(value, value.Trim(), StringComparison.Ordinal));
        Assert.Contains(allowed, problem, StringComparison.Ordinal);
    }

    [Fact]
    public void Order_and_affinity_exclude_each_other()
    {
        Assert.False(ServiceChoice.TryRead(
            Metadata((ServiceChoice.AffinityName, "local"), (ServiceChoice.ClustersName, "tokyo > *")), out _, out var problem));
        Assert.Contains("remove one of the two", problem, StringComparison.Ordinal);
    }

    [Fact]
    public void The_canonical_affinity_wins_even_when_it_says_none() =>
        Assert.Equal(ServiceAffinity.None, Read([(ServiceChoice.AffinityName, "none"), (ServiceChoice.AffinityAlias, "local")]).Affinity);

    [Fact]
    public void Everything_can_be_combined()
    {
        var choice = Read([
            (ServiceChoice.ClustersName, "tokyo:80, osaka:20 > kyoto > *"), (ServiceChoice.MinHealthyName, "62.5%"),
            (ServiceChoice.PreferZoneName, "TRUE"), (ServiceChoice.SlowStartName, "2m"),
        ]);
        Assert.Equal([2, 1, 1], choice.Order.Groups.Select(group => group.Members.Count));
        Assert.Equal(new ClusterShare("osaka", 20), choice.Order.Groups[0].Members[1]);
        Assert.Equal(0.625, choice.MinHealthy);
        Assert.True(choice.PreferZone);
        Assert.Equal(TimeSpan.FromMinutes(2), choice.SlowStart);
    }

    internal static ServiceChoice Read((string Name, string Value)[] annotations)
    {
        Assert.True(ServiceChoice.TryRead(Metadata(annotations), out var choice, out var problem), problem);
        return choice;
    }

    private static ObjectMeta Metadata(params (string Name, string Value)[] annotations) => new()
    {
        Name = "echo",
        Annotations = annotations.ToDictionary(pair => pair.Name, pair => pair.Value),
    };
}
