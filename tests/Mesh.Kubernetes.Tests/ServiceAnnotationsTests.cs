using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Xunit;

namespace Mesh.Kubernetes.Tests;

public class ServiceAnnotationsTests
{
    private static ObjectMeta Meta(string annotations) => new()
    {
        Name = "x",
        Annotations = annotations.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(pair => pair.Split('='))
            .ToDictionary(pair => pair[0], pair => pair[1]),
    };

    [Theory]
    [InlineData("", false, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=true", true, true, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=TRUE", true, true, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=1", false, false, ServiceAffinity.None)]
    [InlineData("io.cilium/global-service=true", true, true, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=false io.cilium/global-service=true", false, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=true io.cilium/global-service=false", true, true, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=true service.cilium.io/shared=false", true, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/global=true io.cilium/shared-service=no", true, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/shared=true", false, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/affinity=Local", false, false, ServiceAffinity.Local)]
    [InlineData("io.cilium/service-affinity=remote", false, false, ServiceAffinity.Remote)]
    [InlineData("service.cilium.io/affinity=none io.cilium/service-affinity=remote", false, false, ServiceAffinity.None)]
    [InlineData("service.cilium.io/affinity=nearby", false, false, ServiceAffinity.None)]
    public void The_canonical_annotation_wins_over_its_alias(string annotations, bool global, bool shared, ServiceAffinity affinity) =>
        Assert.Equal(new ServiceAnnotations(global, shared, affinity), ServiceAnnotations.Read(Meta(annotations)));

    [Theory]
    [InlineData("", true, true)]
    [InlineData("", false, false)]
    [InlineData("clustermesh.cilium.io/global=true", false, true)]
    [InlineData("clustermesh.cilium.io/global=false", true, false)]
    public void A_namespace_takes_part_as_it_says_or_by_default(string annotations, bool byDefault, bool global) =>
        Assert.Equal(global, ServiceAnnotations.IsGlobalNamespace(new Namespace { Metadata = Meta(annotations) }, byDefault));

    [Fact]
    public void A_namespace_nobody_described_follows_the_default() => Assert.True(ServiceAnnotations.IsGlobalNamespace(null, true));
}
