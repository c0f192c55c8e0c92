using System.Text.Json;
using Mesh.ControlPlane.Endpoints;
using Mesh.ControlPlane.Nodes;
using Mesh.ControlPlane.Policies;
using Mesh.ControlPlane.RemoteClusters;
using Mesh.Kubernetes;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Policy;
using Mesh.Policy.Engine;
using Xunit;

namespace Mesh.ControlPlane.Tests;

/// <summary>Objects, identities, endpoints and nodes in their tables; words, verdicts and address ranges out.</summary>
public sealed class PolicyTests : IDisposable
{
    private const uint Web = 0x20001;
    private World _world = null!;
    private PolicyWriter _policies = null!;

    public PolicyTests() => Start();

    /// <param name="kept">Endpoints for which the kernel has a policy.</param>
    private void Start(params ushort[] kept)
    {
        _world = new World();
        _policies = new PolicyWriter(_world.State, _world.IPCache, World.Osaka, new PolicyEngineOptions { Cluster = "osaka" }, kept,
            TimeProvider.System, _ => { });
        _world.State.Identities.Write(table => table.Upsert(Web, new IdentityRow(Web, new EquatableArray<string>(
            ["k8s:app=web", "k8s:io.cilium.k8s.policy.cluster=osaka", "k8s:io.kubernetes.pod.namespace=shop"]), "osaka")));
    }

    public void Dispose() => _policies.Dispose();

    [Fact]
    public void A_pod_is_open_until_a_policy_selects_it()
    {
        Register(7);
        _policies.Turn();
        Assert.Equal((EndpointPolicyRow.Unenforced, EndpointPolicyRow.Unenforced), Word(7));

        Apply("""{"endpointSelector": {"matchLabels": {"app": "web"} }, "ingress": [{"fromEntities": ["cluster"]}]}""");
        Assert.True(Word(7) is { Ingress: >= EndpointPolicyRow.FirstSet, Egress: EndpointPolicyRow.Unenforced });
        Apply("{}", ObjectEventType.Delete);
        Assert.Equal((EndpointPolicyRow.Unenforced, EndpointPolicyRow.Unenforced), Word(7));
    }

    [Fact]
    public void Address_ranges_of_policies_stand_in_the_ipcache_but_never_in_the_place_of_pods()
    {
        Register(7);
        _world.State.Nodes.Write(table => table.Upsert(new NodeName("tokyo", "n"),
            new Node(new NodeName("tokyo", "n"), 1, default, new([IpPrefix.Parse("10.1.0.0/24")]), default, false)));
        Apply("""{"endpointSelector": {}, "egress": [{"toCIDR": ["192.0.2.0/24", "10.1.0.128/25", "10.0.0.0/8"]}]}""");

        Assert.Equal("10.0.0.0/8 192.0.2.0/24", Ranges());
        // A node that comes later takes its pods' addresses out.
        _world.State.Nodes.Write(table => table.Upsert(new NodeName("tokyo", "m"),
            new Node(new NodeName("tokyo", "m"), 1, default, new([IpPrefix.Parse("192.0.0.0/16")]), default, false)));
        _policies.Turn();
        Assert.Equal("10.0.0.0/8", Ranges());
        Apply("{}", ObjectEventType.Delete);
        Assert.Equal("", Ranges());
    }

    [Fact]
    public void A_pod_keeps_its_policy_over_a_restart_while_an_object_cannot_be_read_and_a_new_one_does_not_wait()
    {
        _policies.Dispose();
        Start(7);
        Register(7);
        Register(8);
        Apply("""{"endpointSelector": {}, "ingress": [{}]}""");
        Assert.False(_world.State.Policies.TryGet(PolicyKey.Endpoint(7), out _));
        Assert.True(Word(8).Ingress >= EndpointPolicyRow.FirstSet);
        Assert.False(_world.State.Policies.Initialized.IsCompleted);

        _policies.Complete();
        Assert.Equal(Word(8), Word(7));
        Assert.True(_world.State.Policies.Initialized.IsCompleted);
    }

    private void Register(ushort id) => _world.State.Endpoints.Write(table =>
        table.Upsert(id, new Endpoint(id, "shop", $"web-{id}", $"lxc{id}", id, 1, 2, default, Web)));

    private (uint Ingress, uint Egress) Word(ushort id)
    {
        Assert.True(_world.State.Policies.TryGet(PolicyKey.Endpoint(id), out var row));
        var word = (EndpointPolicyRow)row;
        return (word.Ingress, word.Egress);
    }

    private string Ranges() => string.Join(' ', _world.State.IPCache.Snapshot().Select(pair => pair.Value.Row)
        .Where(row => row.Source == IPCache.IPCacheSource.Policy).Select(row => row.Prefix).Order());

    private void Apply(string spec, ObjectEventType type = ObjectEventType.Upsert)
    {
        using var document = JsonDocument.Parse(spec);
        _policies.ApplyLocal([new ObjectEvent(type, new CiliumNetworkPolicy
        {
            Metadata = new ObjectMeta { Name = "policy", Namespace = "shop" },
            Spec = document.RootElement.Clone(),
        })]);
    }
}
