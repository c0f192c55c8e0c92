using Mesh.Install.Charts;
using Mesh.Install.Text;
using Mesh.Install.Values;
using Xunit;

namespace Mesh.Install.Tests;

public class ValueTests
{
    private static readonly Chart Ours = Chart.OfThisProgram;

    [Theory]
    [InlineData("cluster: {nmae: tokyo}", "cluster.nmae is no value of this chart: did you mean cluster.name?")]
    [InlineData("clustermesh: {apiServer: {replicas: 2}}", "clustermesh.apiServer is no value of this chart: did you mean clustermesh.apiserver?")]
    [InlineData("tunelPort: 8472", "tunelPort is no value of this chart: did you mean tunnelPort?")]
    [InlineData("kvstoremesh: {enabled: true}", "kvstoremesh is no value of this chart")]
    [InlineData("clusterPoolIPv4PodCIDRList: [10.0.0.0/8]",
        "clusterPoolIPv4PodCIDRList is no value of this chart: did you mean ipam.operator.clusterPoolIPv4PodCIDRList?")]
    [InlineData("ipv4NativeRoutingCIDR: 'fd00::/8'", "ipv4NativeRoutingCIDR has 'fd00::/8': it is of the other family")]
    [InlineData("ipv6NativeRoutingCIDR: 'fd00::1/8'", "ipv6NativeRoutingCIDR has 'fd00::1/8': bits behind the mask must be 0, and the mask 0 to 128")]
    [InlineData("ipMasqAgent: {enabled: true}",
        "ipMasqAgent.enabled is true: must be false: ipv4NativeRoutingCIDR and ipv6NativeRoutingCIDR say what is not masqueraded")]
    [InlineData("encryption: {enabled: true}", "encryption.enabled is true: must be false: Mesh encrypts nothing")]
    [InlineData("encryption: {enabeld: true}", "encryption.enabeld is no value of this chart: did you mean encryption.enabled?")]
    [InlineData("hubble: {relay: {enabled: true}}", "hubble.relay.enabled is true: must be false: Mesh has no Hubble; `mesh observe` shows flows")]
    [InlineData("l7Proxy: true", "l7Proxy is true: must be false: Mesh has no proxy and no L7 rules")]
    [InlineData("envoy: true", "envoy is true, true or false: must be a map")]
    [InlineData("cgroup: {autoMount: {enabled: true}}", "cgroup.autoMount.enabled is true: must be false: the node's own system mounts it")]
    [InlineData("identityAllocationMode: kvstore", "identityAllocationMode is 'kvstore': must be crd: identities are Kubernetes objects")]
    [InlineData("operator: {replicas: 0}", "operator.replicas is 0: must be 1 or more")]
    [InlineData("policyEnforcementMode: always", "policyEnforcementMode is 'always': must be default: policies are enforced as `default` does")]
    [InlineData("cluster: {id: 0}", "cluster.id is 0: must be 1 to 511")]
    [InlineData("cluster: {id: 300}", "cluster.id is 300: must be 1 to 255, as clustermesh.maxConnectedClusters says")]
    [InlineData("cluster: {id: one}", "cluster.id is 'one', text: must be a whole number")]
    [InlineData("cluster: {name: Tokyo}", "cluster.name is 'Tokyo': must be 1 to 32 of a-z, 0-9 and '-'")]
    [InlineData("cluster: {name: 7}", "cluster.name is 7, a whole number: must be text (in quotes where it looks like a number)")]
    [InlineData("cluster: tokyo", "cluster is 'tokyo', text: must be a map")]
    [InlineData("routingMode: native", "routingMode is 'native': must be tunnel (there is no routing without tunnel)")]
    [InlineData("clustermesh: {apiserver: {service: {type: Nodeport}}}",
        "clustermesh.apiserver.service.type is 'Nodeport': must be ClusterIP, NodePort or LoadBalancer")]
    [InlineData("ipam: {operator: {clusterPoolIPv4PodCIDRList: 10.0.0.0/8}}",
        "ipam.operator.clusterPoolIPv4PodCIDRList is '10.0.0.0/8', text: must be a list")]
    [InlineData("ipam: {operator: {clusterPoolIPv4PodCIDRList: [10.0.0.1/8]}}",
        "ipam.operator.clusterPoolIPv4PodCIDRList has '10.0.0.1/8': bits behind the mask must be 0, and the mask 0 to 32")]
    [InlineData("ipam: {operator: {clusterPoolIPv4PodCIDRList: ['fd00::/64']}}",
        "ipam.operator.clusterPoolIPv4PodCIDRList has 'fd00::/64': it is of the other family")]
    [InlineData("ipam: {operator: {clusterPoolIPv4PodCIDRList: [10.0.0.0/25]}}",
        "ipam.operator.clusterPoolIPv4MaskSize is 24: a node's range cannot be larger than the pool 10.0.0.0/25")]
    [InlineData("{ipv4: {enabled: false}}", "ipv4.enabled and ipv6.enabled are both false: pods would have no address")]
    [InlineData("tls: {ca: {cert: QUJD}}", "tls.ca.key is missing: certificate and key go together")]
    [InlineData("clustermesh: {config: {clusters: [{name: osaka, prot: 2379}]}}",
        "clustermesh.config.clusters[0].prot is no value of this chart: did you mean clustermesh.config.clusters[0].port?")]
    [InlineData("clustermesh: {config: {clusters: [{ips: [192.0.2.1]}]}}", "clustermesh.config.clusters[0] has no name: it must")]
    [InlineData("clustermesh: {config: {clusters: [{name: osaka}, {name: osaka}]}}", "clustermesh.config.clusters names osaka twice: remove one")]
    [InlineData("cluster: [1]", "cluster is a list: must be a map")]
    [InlineData("cluster: {id: 99999999999999999999}", "cluster.id is 1E+20, a number: must be a whole number")]
    [InlineData("cluster: {id: 1.5}", "cluster.id is 1.5, a number: must be a whole number")]
    [InlineData("cluster: {id: 1e3}", "cluster.id is 1000: must be 1 to 511")]
    [InlineData("clustermesh: {cacheTTL: 5x}", "clustermesh.cacheTTL is '5x': must be a duration such as 15m, up to 1000h, or 0s")]
    [InlineData("clustermesh: {cacheTTL: 300}", "clustermesh.cacheTTL is 300, a whole number: must be text (in quotes where it looks like a number)")]
    [InlineData("externalWorkloads: {enabled: true}", "externalWorkloads.enabled is true: must be false (a bare host joins as a cluster of its own)")]
    public void A_wrong_value_is_named_with_what_is_allowed(string values, string expected)
    {
        var fault = Assert.Single(ValueCheck.Faults(Ours, YamlText.ParseMap(values, "values")));
        Assert.StartsWith(expected, fault, StringComparison.Ordinal);
    }

    [Fact]
    public void All_faults_are_told_at_once()
    {
        var e = Assert.Throws<InstallException>(() => ChartRenderer.Render(
            Ours, YamlText.ParseMap("{cluster: {nmae: a, id: 0}, tunnelPort: 70000}", "values"), new("cilium", "kube-system"), ChartEnvironment.Nowhere));
        Assert.Equal("""
            3 values are wrong:
              cluster.id is 0: must be 1 to 511
              cluster.nmae is no value of this chart: did you mean cluster.name?
              tunnelPort is 70000: must be 0 to 65535
            """, e.Message);
    }

    [Theory]
    [InlineData("{}")]
    // What `cilium clustermesh enable` and `connect` write, of several versions.
    [InlineData("{externalWorkloads: {enabled: false}, clustermesh: {useAPIServer: true, apiserver: {service: {type: LoadBalancer, annotations: "
        + "{cloud.google.com/load-balancer-type: Internal}}, tls: {auto: {enabled: true, method: cronJob, schedule: '0 0 1 */4 *'}}}}}")]
    [InlineData("{clustermesh: {useAPIServer: true, config: {enabled: true, clusters: [{name: c2, ips: [172.18.0.3], port: 32379}]}}}")]
    [InlineData("{clustermesh: {useAPIServer: true, config: {enabled: true, clusters: {c2: {ips: [172.18.0.3], port: 2379}, c3: {enabled: false}}}}}")]
    public void What_the_cilium_CLI_writes_is_understood(string values) =>
        Assert.Empty(ValueCheck.Faults(Ours, YamlText.ParseMap(values, "values")));

    /// <summary>Everything that Cilium has and Mesh has not, turned off, as files of values for Cilium have it: the objects are the same.</summary>
    [Theory]
    [InlineData("{envoy: {enabled: false}, hubble: {enabled: false}, encryption: {enabled: false}, l7Proxy: false, operator: {replicas: 1}}")]
    [InlineData("{hubble: {enabled: false, relay: {enabled: false, replicas: 2}, ui: {enabled: false}, metrics: {enabled: [dns]}}, "
        + "encryption: {enabled: false, type: wireguard, nodeEncryption: false}, envoy: {image: {tag: v1}}}")]
    [InlineData("{image: {useDigest: false, digest: ''}, operator: {image: {useDigest: false}, rollOutPods: false}, rollOutCiliumPods: false, "
        + "cgroup: {autoMount: {enabled: false}, hostRoot: /sys/fs/cgroup}, bpf: {masquerade: false}, ipMasqAgent: {enabled: false, config: {}}}")]
    [InlineData("{policyEnforcementMode: default, identityAllocationMode: crd, loadBalancer: {l7: {backend: disabled}}, hubble: {enabled: null}, "
        + "prometheus: {serviceMonitor: {enabled: false, interval: 10s}}, k8s: {requireIPv4PodCIDR: false}, debug: {enabled: false, verbose: flow}}")]
    public void What_asks_for_nothing_is_taken_and_changes_nothing(string values)
    {
        var bare = ChartRenderer.Render(Ours, [], new("cilium", "kube-system"), ChartEnvironment.Nowhere);
        var given = YamlText.ParseMap(values, "values");
        Assert.Empty(ValueCheck.Faults(Ours, given));
        Assert.Equal(bare.Manifest("cilium"), ChartRenderer.Render(Ours, given, new("cilium", "kube-system"), ChartEnvironment.Nowhere).Manifest("cilium"));
    }

    /// <summary>Whatever has one value that it may have is refused with any other, and no template reads it.</summary>
    [Fact]
    public void Of_what_asks_for_nothing_the_opposite_is_refused_by_its_name()
    {
        // These two have one value, and are said to people who look.
        var quiet = Quiet("", Ours.Schema).Where(one => one.Path is not ("routingMode" or "tunnelProtocol")).ToList();
        Assert.InRange(quiet.Count, 60, 120);
        foreach (var (path, value) in quiet)
        {
            var given = new Map();
            given.Set(path, value is false ? true : "other");
            var shown = value is false ? "true" : "'other'";
            Assert.StartsWith($"{path} is {shown}: must be ", Assert.Single(ValueCheck.Faults(Ours, given)), StringComparison.Ordinal);
            Assert.Equal(value, Ours.Values.At(path));
            Assert.DoesNotContain(Ours.Templates, file => Ours.Files[file].Contains($".Values.{path}", StringComparison.Ordinal));
        }
    }

    private static IEnumerable<(string Path, object? Value)> Quiet(string path, Map schema)
    {
        if (schema.TryGetValue("enum", out var words) && words is IReadOnlyList<object?> { Count: 1 } one)
            yield return (path, one[0]);
        foreach (var (name, inner) in schema.GetValueOrDefault("properties") as Map ?? [])
        {
            foreach (var found in Quiet(path.Length == 0 ? name : $"{path}.{name}", (Map)inner!))
                yield return found;
        }
    }

    /// <summary>An empty line in a file of values, at any depth.</summary>
    [Theory]
    [InlineData("cluster: {id: null}")]
    [InlineData("clustermesh: {maxConnectedClusters: null, apiserver: {service: null}}")]
    [InlineData("{tls: {ca: null}, ipam: {operator: null}, clustermesh: null}")]
    public void A_name_without_a_value_is_not_set(string values)
    {
        var bare = ChartRenderer.Render(Ours, [], new("cilium", "kube-system"), ChartEnvironment.Nowhere);
        var given = YamlText.ParseMap(values, "values");
        Assert.Empty(ValueCheck.Faults(Ours, given));
        var rendering = ChartRenderer.Render(Ours, given, new("cilium", "kube-system"), ChartEnvironment.Nowhere);
        Assert.Equal(bare.Manifest("cilium"), rendering.Manifest("cilium"));
    }

    [Fact]
    public void Every_value_has_a_schema_and_every_schema_a_value()
    {
        foreach (var name in ValueCheck.Names(Ours.Schema).Where(name => name != "global" && !name.Contains("resources.", StringComparison.Ordinal)))
            Assert.True(Has(Ours.Values, name), $"values.schema.json has {name}, values.yaml has not");
        Assert.Empty(ValueCheck.Faults(Ours, []));
    }

    [Theory]
    [InlineData("cluster.id=7", "cluster: {id: 7}")]
    [InlineData("cluster.name=tokyo,cluster.id=7", "cluster: {id: 7, name: tokyo}")]
    [InlineData("devices={eth0,eth1}", "devices: [eth0, eth1]")]
    [InlineData("nodeSelector.kubernetes\\.io/os=linux", "nodeSelector: {kubernetes.io/os: linux}")]
    [InlineData("image.tag=007", "image: {tag: '007'}")]
    [InlineData("ipv6.enabled=true", "ipv6: {enabled: true}")]
    [InlineData("ipam.operator.clusterPoolIPv4PodCIDRList={10.1.0.0/16\\,x}", "ipam: {operator: {clusterPoolIPv4PodCIDRList: ['10.1.0.0/16,x']}}")]
    public void Set_is_read_as_Helm_reads_it(string set, string yaml) =>
        Assert.True(Tree.Same(YamlText.ParseMap(yaml, "expected"), ValueInput.Read([], [set], [])));

    [Theory]
    [InlineData("cluster.id", "--set cluster.id: must be NAME=VALUE")]
    [InlineData("a[0]=1", "--set a[0]: must be names with dots between")]
    [InlineData("=1", "--set =1: must be NAME=VALUE")]
    public void What_is_no_set_is_refused(string set, string expected) =>
        Assert.StartsWith(expected, Assert.Throws<InstallException>(() => ValueInput.Read([], [set], [])).Message, StringComparison.Ordinal);

    [Fact]
    public void A_values_file_that_is_no_map_or_not_there_is_named()
    {
        var file = Path.Combine(Path.GetTempPath(), $"mesh-install-{Guid.NewGuid():N}.yaml");
        Assert.StartsWith($"values file {file} cannot be read", Fault(), StringComparison.Ordinal);
        File.WriteAllText(file, "- a\n");
        Assert.Equal($"{file}: must be a map of names, and is a list", Fault());
        File.WriteAllText(file, "a: [1\n");
        Assert.StartsWith($"{file}: line", Fault(), StringComparison.Ordinal);
        File.Delete(file);

        string Fault() => Assert.Throws<InstallException>(() => ValueInput.Read([file], [], [])).Message;
    }

    private static bool Has(Map values, string path)
    {
        object? at = values;
        foreach (var name in path.Split('.'))
        {
            if (at is not Map map || !map.TryGetValue(name, out at))
                return false;
        }
        return true;
    }
}
