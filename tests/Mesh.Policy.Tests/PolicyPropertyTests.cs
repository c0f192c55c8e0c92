using System.Globalization;
using System.Text;
using CsCheck;
using Mesh.Model;
using Mesh.Policy.Rules;

namespace Mesh.Policy.Tests;

/// <summary>Random policies, identities and changes, next to a model that has no cache, no set, no row: it reads every rule for every
/// question.</summary>
public sealed class PolicyPropertyTests
{
    private static readonly string[] Apps = ["a", "b", "c"];
    private static readonly string[] Clusters = ["tokyo", "osaka"];
    private static readonly string[] Entities = ["all", "world", "cluster", "host", "remote-node", "none"];
    private static readonly string[] Ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0"];
    private static readonly string[] Protocols = ["TCP", "UDP"];

    private static readonly Gen<Peer> Peers = Gen.OneOf(
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 2], Gen.Bool, (app, cluster, not) =>
            new Peer("pods", app < 3 ? Apps[app] : "", cluster < 2 ? Clusters[cluster] : "", not, "")),
        Gen.OneOf(Entities).Select(entity => new Peer("entity", entity, "", false, "")),
        Gen.Select(Gen.OneOf(Ranges), Gen.Bool, (range, except) => new Peer("range", range, "", false, except ? Within(range) : "")));

    private static readonly Gen<Port> Ports = Gen.Select(Gen.OneOf(Protocols), Gen.Int[1, 6], Gen.Int[0, 3],
        (protocol, first, more) => new Port(protocol, first, Math.Min(6, first + more)));

    private static readonly Gen<Rule> Rules = Gen.Select(Gen.Bool, Gen.Bool, Peers.List[0, 3], Ports.List[0, 2],
        (ingress, deny, peers, ports) => new Rule(ingress, deny, peers, ports));

    private static readonly Gen<Spec> Specs = Gen.Select(Gen.Int[0, 3], Gen.Bool, Gen.Bool, Rules.List[1, 4],
        (app, denyIn, denyOut, rules) => new Spec(app < 3 ? Apps[app] : "", denyIn, denyOut, rules));

    private static readonly Gen<Step> Steps = Gen.OneOf(
        Gen.Select(Gen.Int[0, 3], Specs, (name, spec) => new Step($"p{name}", spec, 0, "")),
        Gen.Int[0, 3].Select(name => new Step($"p{name}", null, 0, "")),
        Gen.Select(Gen.Int[0, 5], Gen.Int[0, 3], (who, app) => new Step("", null, 0x10010u + (uint)who * 0x8000, app < 3 ? Apps[app] : "")));

    [Fact]
    public void The_rows_say_what_the_rules_say() => Steps.List[1, 12].Sample(steps =>
    {
        var world = new PolicyWorld();
        var model = new Model();
        for (uint i = 0; i < 3; i++)
        {
            world.Pod(0x10100 + i, "tokyo", "shop", Apps[i]);
            model.Identities[0x10100 + i] = ("tokyo", Apps[i]);
            world.Engine.SetEndpoint((ushort)(100 + i), 0x10100 + i);
        }
        foreach (var step in steps)
        {
            if (step.Identity != 0)
            {
                var cluster = step.Identity >= 0x20000 ? "osaka" : "tokyo";
                if (step.App.Length == 0)
                    world.Engine.RemoveIdentity(step.Identity);
                else
                    world.Pod(step.Identity, cluster, "shop", step.App);
                if (step.App.Length == 0)
                    model.Identities.Remove(step.Identity);
                else
                    model.Identities[step.Identity] = (cluster, step.App);
                world.Turn();
            }
            else if (step.Spec is { } spec)
            {
                world.Policy(spec.Json(), step.Name);
                model.Policies[step.Name] = spec;
            }
            else
            {
                world.Remove(step.Name);
                model.Policies.Remove(step.Name);
            }
            Compare(world, model);
        }
    }, iter: 300, seed: Environment.GetEnvironmentVariable("CSCHECK_SEED"));

    private static void Compare(PolicyWorld world, Model model)
    {
        for (var endpoint = 0; endpoint < 3; endpoint++)
            foreach (var direction in new[] { PolicyDirection.Ingress, PolicyDirection.Egress })
                foreach (var (peer, address) in model.Everybody(world))
                    foreach (var protocol in Protocols)
                        for (var port = 0; port <= 7; port++)
                        {
                            var expected = model.Allows(Apps[endpoint], direction == PolicyDirection.Ingress, peer, address, protocol, port);
                            var actual = world.Passes(peer, $"{port}/{protocol}", direction, (ushort)(100 + endpoint));
                            Assert.True(expected == actual,
                                $"{direction} of {Apps[endpoint]}, peer {peer:x} {address}, {port}/{protocol}: {actual}, the model says {expected}");
                        }
    }

    private static string Within(string range)
    {
        var prefix = IpPrefix.Parse(range);
        return new IpPrefix(prefix.Address, Math.Min(32, prefix.Length + 2)).ToString();
    }

    private sealed record Step(string Name, Spec? Spec, uint Identity, string App);

    /// <param name="App">"" for every pod.</param>
    private sealed record Spec(string App, bool DenyIn, bool DenyOut, List<Rule> Rules)
    {
        public string Json()
        {
            var selector = App.Length == 0 ? "{}" : $$"""{"matchLabels": { "app": "{{App}}" } }""";
            var defaults = $$"""{"ingress": {{Word(DenyIn)}}, "egress": {{Word(DenyOut)}} }""";
            var json = new StringBuilder($$"""{"endpointSelector": {{selector}}, "enableDefaultDeny": {{defaults}}""");
            (string, bool, bool)[] sections = [("ingress", true, false), ("ingressDeny", true, true), ("egress", false, false), ("egressDeny", false, true)];
            foreach (var (name, ingress, deny) in sections)
                json.Append(CultureInfo.InvariantCulture,
                    $", \"{name}\": [{string.Join(", ", Rules.Where(rule => rule.Ingress == ingress && rule.Deny == deny).Select(rule => rule.Json()))}]");
            return json.Append('}').ToString();
        }

        private static string Word(bool value) => value ? "true" : "false";
    }

    private sealed record Rule(bool Ingress, bool Deny, List<Peer> Peers, List<Port> Ports)
    {
        public string Json()
        {
            var way = Ingress ? "from" : "to";
            var fields = new List<string>();
            void List(string name, IEnumerable<string> members)
            {
                if (string.Join(", ", members) is { Length: > 0 } text)
                    fields.Add($"\"{name}\": [{text}]");
            }
            List($"{way}Endpoints", Peers.Where(peer => peer.Kind == "pods").Select(peer => peer.Json()));
            List($"{way}Entities", Peers.Where(peer => peer.Kind == "entity").Select(peer => $"\"{peer.Name}\""));
            List($"{way}CIDRSet", Peers.Where(peer => peer.Kind == "range").Select(peer => peer.Json()));
            List("toPorts", Ports.Select(port => $$"""{"ports": [{"port": "{{port.First}}", "endPort": {{port.Last}}, "protocol": "{{port.Protocol}}"}]}"""));
            return $"{{{string.Join(", ", fields)}}}";
        }
    }

    /// <param name="Cluster">"" = none named.</param>
    /// <param name="Not">Pods that are not of the app.</param>
    private sealed record Peer(string Kind, string Name, string Cluster, bool Not, string Except)
    {
        public string Json() => Kind == "range"
            ? Except.Length == 0 ? $$"""{"cidr": "{{Name}}"}""" : $$"""{"cidr": "{{Name}}", "except": ["{{Except}}"]}"""
            : $$"""{"matchLabels": { {{Label}} }, "matchExpressions": [{{Expression}}]}""";

        private string Label => Cluster.Length == 0 ? "" : $"\"io.cilium.k8s.policy.cluster\": \"{Cluster}\"";

        private string Expression => Name.Length == 0 ? "" : $$"""{"key": "app", "operator": "{{(Not ? "NotIn" : "In")}}", "values": ["{{Name}}"]}""";
    }

    private sealed record Port(string Protocol, int First, int Last);

    private sealed class Model
    {
        public Dictionary<string, Spec> Policies { get; } = [];

        public Dictionary<uint, (string Cluster, string App)> Identities { get; } = new()
        {
            [PolicyWorld.Client] = ("tokyo", "client"),
            [PolicyWorld.Web] = ("tokyo", "web"),
            [PolicyWorld.RemoteClient] = ("osaka", "client"),
        };

        /// <summary>Pods, reserved ones, an identity nobody knows, and addresses outside.</summary>
        public IEnumerable<(uint Identity, string Address)> Everybody(PolicyWorld world) =>
            Identities.Keys.Concat([NumericIdentity.Host, NumericIdentity.RemoteNode, 0x30001u]).Select(identity => (identity, ""))
                .Concat(new[] { "10.1.2.3", "10.1.2.4", "10.1.200.1", "10.200.0.1", "192.0.2.1" }.Select(address => (world.Address(address), address)));

        public bool Allows(string app, bool ingress, uint peer, string address, string protocol, int port)
        {
            var specs = Policies.Values.Where(spec => spec.App.Length == 0 || spec.App == app)
                .Where(spec => spec.Rules.Any(rule => rule.Ingress == ingress) || (ingress ? spec.DenyIn : spec.DenyOut)).ToList();
            var rules = specs.SelectMany(spec => spec.Rules).Where(rule => rule.Ingress == ingress && Means(rule, peer, address, protocol, port)).ToList();
            if (rules.Any(rule => rule.Deny))
                return false;
            return rules.Count > 0 || !specs.Any(spec => ingress ? spec.DenyIn : spec.DenyOut);
        }

        private bool Means(Rule rule, uint peer, string address, string protocol, int port)
        {
            if (rule.Ports.Count > 0 && !rule.Ports.Any(one => one.Protocol == protocol && one.First <= port && port <= one.Last))
                return false;
            return rule.Peers.Count == 0 ? rule.Ports.Count > 0 : rule.Peers.Any(one => Means(one, peer, address));
        }

        private bool Means(Peer one, uint peer, string address)
        {
            var pod = Identities.TryGetValue(peer, out var who) && address.Length == 0;
            switch (one.Kind)
            {
                case "pods":
                    return pod && who.Cluster == (one.Cluster.Length == 0 ? "tokyo" : one.Cluster)
                        && (one.Name.Length == 0 || (who.App == one.Name) != one.Not);
                case "range":
                    return address.Length > 0 && IpPrefix.Parse(one.Name).Contains(IpAddr.Parse(address))
                        && !(one.Except.Length > 0 && IpPrefix.Parse(one.Except).Contains(IpAddr.Parse(address)));
                default:
                    return one.Name switch
                    {
                        "all" => true,
                        "world" => address.Length > 0,
                        "cluster" => pod ? who.Cluster == "tokyo" : peer is NumericIdentity.Host or NumericIdentity.RemoteNode,
                        "host" => peer == NumericIdentity.Host,
                        "remote-node" => peer == NumericIdentity.RemoteNode,
                        _ => false,
                    };
            }
        }
    }
}
