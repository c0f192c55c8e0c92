using System.Text;
using CsCheck;
using Mesh.ClusterMesh.Wire;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Multicluster;
using Xunit;

namespace Mesh.Operator.Tests.Multicluster;

public sealed class MergedExportTests
{
    private static readonly DateTimeOffset Day = new(2026, 2, 1, 10, 0, 0, TimeSpan.Zero);

    private static ExportedService Of(string cluster, int age, params ExportedPort[] ports) => new()
    {
        Cluster = cluster,
        Namespace = "shop",
        Name = "cart",
        Created = Day - TimeSpan.FromMinutes(age),
        Ports = ports,
        IpFamilies = ["IPv4"],
    };

    private static ExportedPort Port(string name, ushort number, string protocol = "TCP") => new(name, protocol, number);

    [Fact]
    public void A_derived_name_is_the_one_that_every_cluster_derives() =>
        Assert.Equal("derived-bsqa4s8pq5", MulticlusterNames.Derived(new ServiceName("shop", "cart")));

    [Fact]
    public void Ports_are_those_of_all_and_the_oldest_is_right_about_each()
    {
        var merged = MergedExport.Of([Of("berlin", 1, Port("http", 80), Port("more", 9)), Of("osaka", 2, Port("http", 81)), Of("tokyo", 3, Port("grpc", 9))]);
        Assert.Equal([Port("grpc", 9), Port("http", 81)], merged.Ports);
        var conflict = Assert.Single(merged.Conflicts);
        Assert.Equal("PortConflict", conflict.Reason);
        Assert.Equal("ports: http TCP 80 of berlin beside http TCP 81 of osaka, which holds; more TCP 9 of berlin beside grpc TCP 9 of tokyo, which holds",
            conflict.Message);
        Assert.Equal(["berlin", "osaka", "tokyo"], merged.Clusters);
    }

    [Fact]
    public void A_port_without_a_name_stands_alone()
    {
        var merged = MergedExport.Of([Of("tokyo", 2, Port("", 80)), Of("osaka", 1, Port("http", 81))]);
        Assert.Equal([Port("", 80)], merged.Ports);
        Assert.Equal("PortConflict", Assert.Single(merged.Conflicts).Reason);
    }

    [Fact]
    public void Every_field_follows_the_oldest_and_each_difference_is_named()
    {
        var young = Of("osaka", 1) with
        {
            Headless = true,
            ClientIPAffinity = true,
            Labels = new Dictionary<string, string> { ["team"] = "a" },
            Annotations = new Dictionary<string, string> { ["note"] = "b" },
            IpFamilies = ["IPv6"],
            InternalTrafficPolicy = "Local",
            TrafficDistribution = "PreferClose",
        };
        var merged = MergedExport.Of([young, Of("tokyo", 2)]);
        Assert.Equal("tokyo", merged.Oldest.Cluster);
        Assert.Equal(["IPv4"], merged.IpFamilies);
        Assert.Equal(["TypeConflict", "SessionAffinityConflict", "IPFamilyConflict", "InternalTrafficPolicyConflict", "TrafficDistributionConflict",
            "LabelsConflict", "AnnotationsConflict"], merged.Conflicts.Select(conflict => conflict.Reason));
        Assert.Equal("type: ClusterSetIP of tokyo holds, the oldest, not Headless of osaka", merged.Conflicts[0].Message);
        Assert.Empty(MergedExport.Of([Of("osaka", 2), Of("tokyo", 1) with { IpFamilies = [] }]).Conflicts);
    }

    [Fact]
    public void Another_cluster_sets_nothing_that_means_something_here()
    {
        var merged = MergedExport.Of([Of("osaka", 1) with
        {
            Labels = new Dictionary<string, string> { ["team"] = "a", ["service.kubernetes.io/service-proxy-name"] = "x", ["app.kubernetes.io/name"] = "cart" },
            Annotations = new Dictionary<string, string> { ["note"] = "b", ["service.cilium.io/shared"] = "false", ["io.cilium/global-service"] = "false" },
        }]);
        Assert.Equal(["app.kubernetes.io/name", "team"], merged.Labels.Keys.Order());
        Assert.Equal(["note"], merged.Annotations.Keys);
    }

    [Fact]
    public void The_merge_does_not_depend_on_the_order_and_makes_a_possible_service()
    {
        string[] names = ["http", "grpc", "more"];
        var port = Gen.Select(Gen.Int[0, 2], Gen.UShort[1, 4], Gen.Bool, (name, number, tcp) => Port(names[name], number, tcp ? "TCP" : "UDP"));
        var ports = Gen.Select(port.Array[0, 3], Gen.Bool, (all, nameless) => nameless && all.Length > 0
            ? [all[0] with { Name = "" }] : all.DistinctBy(one => one.Name).DistinctBy(one => (one.Protocol, one.Port)).ToArray());
        var export = Gen.Select(Gen.Int[0, 2], ports, Gen.Bool, (age, all, headless) => (age, all, headless));
        export.Array[1, 5].Sample(all =>
        {
            var exports = all.Select((one, i) => Of($"c{i}", one.age, one.all) with { Headless = one.headless }).ToList();
            var merged = MergedExport.Of(exports);
            exports.Reverse();
            var again = MergedExport.Of(exports);
            Assert.Equal(merged.Ports, again.Ports);
            Assert.Equal(merged.Conflicts, again.Conflicts);
            Assert.Equal(merged.Oldest, again.Oldest);
            Assert.Equal(merged.Ports.Count, merged.Ports.DistinctBy(one => one.Name).Count());
            Assert.Equal(merged.Ports.Count, merged.Ports.DistinctBy(one => (one.Protocol, one.Port)).Count());
            Assert.True(merged.Ports.Count == 1 || merged.Ports.All(one => one.Name.Length > 0));
            // Whatever is left out is told.
            Assert.Equal(exports.SelectMany(one => one.Ports).Distinct().Count() != merged.Ports.Count,
                merged.Conflicts.Any(conflict => conflict.Reason == "PortConflict"));
        });
    }

    [Theory]
    [InlineData("{\"metadata\":{\"namespace\":\"shop\",\"name\":\"cart\"},\"spec\":{\"type\":\"ExternalName\"}}", "InvalidServiceType")]
    [InlineData("{\"metadata\":{\"namespace\":\"shop\",\"name\":\"cart\"},\"spec\":{\"ports\":[{\"port\":80},{\"port\":81}]}}", "InvalidExport")]
    [InlineData(null, "NoService")]
    public void An_export_that_peers_would_not_take_is_named(string? service, string reason)
    {
        var export = new ServiceExport { Metadata = new() { Namespace = "shop", Name = "cart", CreationTimestamp = Day } };
        var read = service is null ? null : System.Text.Json.JsonSerializer.Deserialize(service, Mesh.Kubernetes.Api.KubeResources.Services.Type);
        var reading = ExportReading.Of(export, read, "tokyo", globalNamespace: true);
        Assert.Equal((null, reason), (reading.Exported, reading.Reason));
        Assert.NotEmpty(reading.Message);
    }

    [Fact]
    public void A_label_that_is_none_is_found_where_it_is_written()
    {
        var export = new ServiceExport
        {
            Metadata = new() { Namespace = "shop", Name = "cart", CreationTimestamp = Day },
            Spec = new() { ExportedLabels = new Dictionary<string, string> { ["team"] = "not a label" } },
        };
        var reading = ExportReading.Of(export, new Service { Spec = new() { Ports = [new() { Port = 80 }] } }, "tokyo", globalNamespace: true);
        Assert.Equal("label 'team=not a label' is none that Kubernetes takes", reading.Message);
        Assert.DoesNotContain("not a label", Encoding.UTF8.GetString(ExportedServiceCodec.Encode(Of("tokyo", 1))), StringComparison.Ordinal);
    }
}
