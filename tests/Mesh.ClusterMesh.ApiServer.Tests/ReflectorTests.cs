using CsCheck;
using Mesh.ClusterMesh.ApiServer.Converters;
using Mesh.ClusterMesh.Remote;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Xunit;

namespace Mesh.ClusterMesh.ApiServer.Tests;

public class ReflectorTests
{
    private readonly Reflector _reflector = new(TestCluster.Self, namespacesAreGlobal: true);

    private static readonly Dictionary<string, string> GlobalAnnotation = new() { ["service.cilium.io/global"] = "true" };

    private static Service Cart => new() { Metadata = new() { Namespace = "shop", Name = "cart", Annotations = GlobalAnnotation } };

    private static EndpointSlice SliceOf(string service, string name = "s") => new()
    {
        Metadata = new() { Namespace = "shop", Name = name, Labels = new Dictionary<string, string> { ["kubernetes.io/service-name"] = service } },
        AddressType = "IPv4",
        Endpoints = [new() { Addresses = ["10.1.0.1"] }],
        Ports = [new() { Port = 80 }],
    };

    private static Namespace Shop(string global) => new()
    {
        Metadata = new() { Name = "shop", Annotations = new Dictionary<string, string> { ["clustermesh.cilium.io/global"] = global } },
    };

    private static CiliumEndpoint Pod(string name, string address) => new()
    {
        Metadata = new() { Namespace = "shop", Name = name },
        Status = new() { Networking = new() { Addressing = [new() { Ipv4 = address }] } },
    };

    private static CiliumIdentity Identity => new()
    {
        Metadata = new() { Name = "65540" },
        SecurityLabels = new Dictionary<string, string>
        {
            ["k8s:io.kubernetes.pod.namespace"] = "shop",
            ["k8s:io.cilium.k8s.policy.cluster"] = "tokyo",
        },
    };

    private void Apply(params KubernetesObject[] upserts) => _reflector.Apply([.. upserts.Select(o => new ObjectEvent(ObjectEventType.Upsert, o))]);

    private void Delete(KubernetesObject gone) => _reflector.Apply([new ObjectEvent(ObjectEventType.Delete, gone)]);

    /// <summary>"+key" or "-key" for each change since the last call.</summary>
    private string Changes() => string.Join(' ', _reflector.All.SelectMany(p => p.TakeChanges())
        .Select(change => (change.Value is null ? "-" : "+") + change.Key.Replace("cilium/state/", "", StringComparison.Ordinal))
        .Order(StringComparer.Ordinal));

    [Fact]
    public void A_slice_may_come_before_its_service_and_leave_for_another()
    {
        Apply(SliceOf("cart"));
        Assert.Equal("", Changes());
        Apply(Cart);
        Assert.Equal("+services/v1/tokyo/shop/cart", Changes());
        Apply(SliceOf("other"));
        Assert.Equal("+services/v1/tokyo/shop/cart", Changes());
        Apply(Cart);
        Assert.Equal("", Changes());
        Delete(Cart);
        Assert.Equal("-services/v1/tokyo/shop/cart", Changes());
    }

    [Fact]
    public void A_namespace_that_is_not_global_keeps_everything_at_home_but_nodes()
    {
        Apply(Cart, Pod("a", "10.1.0.9"), Identity, new CiliumNode { Metadata = new() { Name = "n1" } });
        Changes();
        Apply(Shop("false"));
        Assert.Equal("-identities/v1/id/65540 -ip/v1/default/10.1.0.9 -services/v1/tokyo/shop/cart", Changes());
        Apply(Shop("true"));
        Assert.Equal("+identities/v1/id/65540 +ip/v1/default/10.1.0.9 +services/v1/tokyo/shop/cart", Changes());
        Delete(Shop("true"));
        Assert.Equal("", Changes());
    }

    [Fact]
    public void An_address_given_to_the_next_pod_survives_the_end_of_the_last()
    {
        Apply(Pod("old", "10.1.0.9"));
        Apply(Pod("new", "10.1.0.9"));
        Assert.Equal("+ip/v1/default/10.1.0.9", Changes());
        Delete(Pod("old", "10.1.0.9"));
        Assert.Equal("", Changes());
        Delete(Pod("new", "10.1.0.9"));
        Assert.Equal("-ip/v1/default/10.1.0.9", Changes());
    }

    [Fact]
    public void A_problem_goes_when_its_object_does()
    {
        var foreign = Identity with { Metadata = new() { Name = "131072" } };
        Apply(foreign);
        Assert.Equal(["CiliumIdentity 131072"], _reflector.Problems.Keys);
        Delete(foreign);
        Assert.Empty(_reflector.Problems);
    }

    /// <summary>Against a naive model: who wants the key since when.</summary>
    [Fact]
    public void A_publication_holds_exactly_what_its_owners_want()
    {
        var step = Gen.Select(Gen.Int[0, 3], Gen.Int[0, 2].Array[0, 3], Gen.Int[0, 1]);
        step.Array[1, 40].Sample(steps =>
        {
            var publication = new Publication(RemoteResource.IpEntries);
            var wanted = new List<(int Owner, string Key, byte Value)>();
            var written = new Dictionary<string, byte>();
            foreach (var (owner, keys, value) in steps)
            {
                var records = keys.Distinct().Select(key => $"k{key}").ToArray();
                publication.Set(new ObjectKey(ObjectKind.CiliumEndpoint, "n", $"o{owner}"), [.. records.Select(key => new EtcdRecord(key, [(byte)value]))]);
                wanted.RemoveAll(want => want.Owner == owner && !records.Contains(want.Key));
                foreach (var key in records)
                {
                    var at = wanted.FindIndex(want => want.Owner == owner && want.Key == key);
                    if (at < 0)
                        wanted.Add((owner, key, (byte)value));
                    else
                        wanted[at] = (owner, key, (byte)value);
                }
                foreach (var (key, change) in publication.TakeChanges())
                {
                    if (change is null)
                        Assert.True(written.Remove(key));
                    else
                        written[key] = change[0];
                }
                var expected = wanted.GroupBy(want => want.Key).ToDictionary(group => group.Key, group => group.Last().Value);
                Assert.Equal(expected.OrderBy(p => p.Key), written.OrderBy(p => p.Key));
                Assert.Equal(expected.Count, publication.Count);
            }
        });
    }
}
