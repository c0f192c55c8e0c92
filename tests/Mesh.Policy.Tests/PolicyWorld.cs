using System.Text.Json;
using Mesh.Kubernetes.Objects;
using Mesh.Model;
using Mesh.Policy.Engine;
using Mesh.Policy.Rules;
using Microsoft.Extensions.Time.Testing;

namespace Mesh.Policy.Tests;

/// <summary>An engine of cluster tokyo, a kernel that holds what the engine says in the order it says it, and names for everybody.
/// Pods: client 65537 and web 65538 of tokyo, both in namespace shop; osaka's client 131073 in shop, and 131074 in other.</summary>
internal sealed class PolicyWorld
{
    public const uint Client = 0x10001;
    public const uint Web = 0x10002;
    public const uint RemoteClient = 0x20001;
    public const uint RemoteOther = 0x20002;
    public const ushort WebEndpoint = 7;

    private readonly Dictionary<PolicyKey, PolicyRow> _kernel = [];

    public PolicyWorld(bool defaultLocal = true, bool audit = false, TimeSpan learning = default, IReadOnlyList<KeyValuePair<IpPrefix, uint>>? ranges = null)
    {
        Engine = new PolicyEngine(new PolicyEngineOptions
        {
            Cluster = "tokyo",
            DefaultLocalCluster = defaultLocal,
            Audit = audit,
            Learning = learning,
            KnownRanges = ranges ?? [],
        }, Time);
        Pod(Client, "tokyo", "shop", "client");
        Pod(Web, "tokyo", "shop", "web");
        Pod(RemoteClient, "osaka", "shop", "client");
        Pod(RemoteOther, "osaka", "other", "client");
        Engine.SetEndpoint(WebEndpoint, Web, "shop/web-1");
        Turn();
    }

    public FakeTimeProvider Time { get; } = new();

    public PolicyEngine Engine { get; }

    public IReadOnlyDictionary<PolicyKey, PolicyRow> Kernel => _kernel;

    /// <summary>Rows of the latest turn.</summary>
    public IReadOnlyList<KeyValuePair<PolicyKey, PolicyRow?>> Changes { get; private set; } = [];

    public void Pod(uint identity, string cluster, string place, string app) => Engine.SetIdentity(identity,
        [$"k8s:app={app}", $"k8s:io.cilium.k8s.policy.cluster={cluster}", $"k8s:io.kubernetes.pod.namespace={place}"], cluster);

    /// <summary>A CiliumNetworkPolicy of namespace shop.</summary>
    public void Policy(string json, string name = "policy") => Apply(Cilium(json, name));

    public void NetworkPolicy(string json, string name = "policy") => Apply(new NetworkPolicy
    {
        Metadata = new ObjectMeta { Name = name, Namespace = "shop" },
        Spec = Json(json),
    });

    public void Clusterwide(string json, string name = "policy") => Apply(new CiliumClusterwideNetworkPolicy
    {
        Metadata = new ObjectMeta { Name = name },
        Spec = Json(json),
    });

    public void Remove(string name = "policy")
    {
        Engine.RemovePolicy(new ObjectKey(ObjectKind.CiliumNetworkPolicy, "shop", name));
        Turn();
    }

    public static CiliumNetworkPolicy Cilium(string json, string name = "policy", string place = "shop") => new()
    {
        Metadata = new ObjectMeta { Name = name, Namespace = place },
        Spec = Json(json),
    };

    public static JsonElement Json(string json)
    {
        using var document = JsonDocument.Parse(json);
        return document.RootElement.Clone();
    }

    /// <summary>What a pod calls its ports: "http:8080/TCP".</summary>
    public void NamedPorts(string pod, params string[] ports)
    {
        Engine.SetNamedPorts(pod, [.. ports.Select(port => port.Split(':', '/'))
            .Select(parts => new NamedPort { Name = parts[0], Port = int.Parse(parts[1]), Protocol = parts[2] })]);
        Turn();
    }

    public void Turn()
    {
        Changes = Engine.Take();
        foreach (var (key, row) in Changes)
            if (row is null)
                _kernel.Remove(key);
            else
                _kernel[key] = row;
    }

    /// <summary>What the kernel does with the first packet of a flow, from its rows alone.</summary>
    public bool Passes(uint peer, string port, PolicyDirection direction = PolicyDirection.Ingress, ushort endpoint = WebEndpoint)
    {
        var word = (EndpointPolicyRow)_kernel[PolicyKey.Endpoint(endpoint)];
        var set = direction == PolicyDirection.Ingress ? word.Ingress : word.Egress;
        if (set is EndpointPolicyRow.Unenforced or EndpointPolicyRow.Learning)
            return true;
        if (set == EndpointPolicyRow.Undecided)
            return false;
        var row = _kernel.GetValueOrDefault(PolicyKey.Verdict(set, peer)) ?? _kernel[PolicyKey.Verdict(set, 0)];
        var parts = port.Split('/');
        byte protocol = parts[1] switch { "TCP" => 6, "UDP" => 17, "SCTP" => 132, "ICMP" => 1, "ICMPv6" => 58, _ => byte.Parse(parts[1]) };
        return ((VerdictRow)row).At(protocol, ushort.Parse(parts[0])).Allowed;
    }

    /// <summary>Identity of an address outside the mesh, by the longest range that policies name.</summary>
    public uint Address(string address)
    {
        var ip = IpAddr.Parse(address);
        return Engine.Ranges.Where(range => range.Key.Contains(ip)).OrderByDescending(range => range.Key.Length).Select(range => range.Value)
            .FirstOrDefault(NumericIdentity.World);
    }

    private void Apply(KubernetesObject policy)
    {
        Engine.SetPolicy(policy);
        Turn();
    }
}
