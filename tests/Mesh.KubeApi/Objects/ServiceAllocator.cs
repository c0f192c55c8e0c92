using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Nodes;
using Mesh.KubeApi.Store;

namespace Mesh.KubeApi.Objects;

/// <summary>Gives Services their clusterIPs and node ports, and what else a kube-apiserver fills in. Used under the writers' lock.</summary>
internal sealed class ServiceAllocator
{
    private readonly KubeApiOptions _options;
    private readonly Dictionary<string, ulong> _next = [];
    private readonly Dictionary<string, string> _addresses = [];
    private readonly Dictionary<long, string> _ports = [];
    private long _nextPort;

    public ServiceAllocator(KubeApiOptions options, ObjectStore store)
    {
        _options = options;
        _nextPort = _options.NodePorts.First;
        store.Committed += Follow;
    }

    /// <summary>Keeps account of what is given out: which Service has which address and port.</summary>
    private void Follow(Change change)
    {
        if (change.Type != BuiltIns.Services)
            return;
        var key = (change.After ?? change.Before!).Key;
        foreach (var address in change.Before?.Node.Obj("spec").Arr("clusterIPs") ?? [])
            _addresses.Remove((string)address!);
        foreach (var port in PortsOf(change.Before?.Node))
            _ports.Remove(port);
        foreach (var address in change.After?.Node.Obj("spec").Arr("clusterIPs") ?? [])
            if ((string)address! != "None")
                _addresses[(string)address!] = key;
        foreach (var port in PortsOf(change.After?.Node))
            _ports[port] = key;
    }

    private static IEnumerable<long> PortsOf(JsonObject? service) => service.Obj("spec").Arr("ports").Objects().Select(port => port.Num("nodePort"))
        .Append(service.Obj("spec").Num("healthCheckNodePort")).OfType<long>().Where(port => port > 0);

    private static string KeyOf(JsonObject service) => StoredObject.KeyOf(service["metadata"].Str("namespace")!, service["metadata"].Str("name")!);

    public void Prepare(JsonObject service, JsonObject? old)
    {
        var spec = service.Need("spec");
        var causes = new List<KubeApiException.Cause>();
        spec.Default("type", "ClusterIP");
        spec.Default("sessionAffinity", "None");
        var type = spec.Str("type")!;
        if (type is not ("ClusterIP" or "NodePort" or "LoadBalancer" or "ExternalName"))
            causes.Add(KubeApiException.Cause.Unsupported("spec.type", $"\"{type}\"", ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]));
        if (spec.Str("sessionAffinity") == "ClientIP")
            spec.Need("sessionAffinityConfig").Need("clientIP").Default("timeoutSeconds", 10800);
        Ports(spec, type, causes);
        if (causes.Count > 0)
            throw KubeApiException.Invalid("Service", "", service["metadata"].Str("name") ?? "", causes);
        if (type == "ExternalName")
        {
            spec.Remove("clusterIP");
            spec.Remove("clusterIPs");
            return;
        }
        spec.Default("internalTrafficPolicy", "Cluster");
        if (type is "NodePort" or "LoadBalancer")
            spec.Default("externalTrafficPolicy", "Cluster");
        if (type == "LoadBalancer")
            spec.Default("allocateLoadBalancerNodePorts", true);
        Addresses(service, spec, old.Obj("spec"));
        NodePorts(service, spec, type, old.Obj("spec"));
    }

    private static void Ports(JsonObject spec, string type, List<KubeApiException.Cause> causes)
    {
        var ports = spec.Arr("ports");
        if (ports is not { Count: > 0 } && type != "ExternalName" && spec.Str("clusterIP") != "None")
            causes.Add(KubeApiException.Cause.Required("spec.ports"));
        var index = 0;
        foreach (var port in ports.Objects())
        {
            port.Default("protocol", "TCP");
            if (port.Num("port") is not (>= 1 and <= 65535))
                causes.Add(KubeApiException.Cause.Invalid($"spec.ports[{index}].port", Json.Text(port["port"]), "must be between 1 and 65535, inclusive"));
            if (ports!.Count > 1 && port.Str("name") is null)
                causes.Add(KubeApiException.Cause.Required($"spec.ports[{index}].name"));
            if (port["targetPort"] is null or JsonValue { } && IsZero(port["targetPort"]))
                port["targetPort"] = port["port"]?.DeepClone();
            index++;
        }
    }

    private static bool IsZero(JsonNode? node) => node is null || (node.GetValueKind() == JsonValueKind.Number && node.ToJsonString() == "0");

    private void Addresses(JsonObject service, JsonObject spec, JsonObject? old)
    {
        var headless = spec.Str("clusterIP") == "None";
        var oldAddresses = old?.Arr("clusterIPs")?.Select(one => (string)one!).ToList() ?? [];
        // A client that leaves the address out of an update means the one there is.
        if (old is not null && old.Str("type") != "ExternalName" && spec.Str("clusterIP") is null or "" && oldAddresses.Count > 0)
        {
            spec["clusterIP"] = oldAddresses[0];
            headless = oldAddresses[0] == "None";
        }
        if (oldAddresses.Count > 0 && spec.Str("clusterIP") is { Length: > 0 } now && now != oldAddresses[0] && old.Str("type") != "ExternalName")
            throw KubeApiException.Invalid("Service", "", service["metadata"].Str("name")!, [KubeApiException.Cause.Invalid("spec.clusterIPs[0]",
                $"[]string{{\"{now}\"}}", "may not change once set")]);
        var six = _options.ServiceCidr6 is not null;
        spec.Default("ipFamilyPolicy", old.Str("ipFamilyPolicy") ?? "SingleStack");
        if (spec["ipFamilies"] is null && old?["ipFamilies"] is JsonArray families)
            spec["ipFamilies"] = families.DeepClone();
        var wanted = spec.Arr("ipFamilies")?.Select(one => (string)one!).ToList()
            ?? [(spec.Str("clusterIP")?.Contains(':', StringComparison.Ordinal) == true) ? "IPv6" : "IPv4"];
        if (spec.Str("ipFamilyPolicy") is "PreferDualStack" or "RequireDualStack" && six && wanted.Count == 1)
            wanted.Add(wanted[0] == "IPv4" ? "IPv6" : "IPv4");
        if (spec.Str("ipFamilyPolicy") == "SingleStack" && wanted.Count > 1)
            wanted = [wanted[0]];
        spec["ipFamilies"] = new JsonArray([.. wanted.Select(one => (JsonNode)one)]);
        if (headless)
        {
            spec["clusterIPs"] = new JsonArray("None");
            return;
        }
        var addresses = new List<string>();
        for (var i = 0; i < wanted.Count; i++)
        {
            var asked = i == 0 ? spec.Str("clusterIP") : null;
            if (asked is null or "")
                asked = i < oldAddresses.Count ? oldAddresses[i] : spec.Arr("clusterIPs") is { } list && i < list.Count ? (string?)list[i] : null;
            addresses.Add(asked is { Length: > 0 } ? Ask(service, asked) : Free(wanted[i]));
        }
        spec["clusterIP"] = addresses[0];
        spec["clusterIPs"] = new JsonArray([.. addresses.Select(one => (JsonNode)one)]);
    }

    private string Ask(JsonObject service, string address)
    {
        var name = service["metadata"].Str("name")!;
        var inRange = IPAddress.TryParse(address, out var parsed)
            && IPNetwork.Parse(parsed.AddressFamily == AddressFamily.InterNetworkV6
                ? _options.ServiceCidr6 ?? "::/128" : _options.ServiceCidr).Contains(parsed);
        var taken = inRange && _addresses.TryGetValue(address, out var holder) && holder != KeyOf(service);
        if (!inRange || taken)
            throw KubeApiException.Invalid("Service", "", name, [KubeApiException.Cause.Invalid("spec.clusterIPs", $"[]string{{\"{address}\"}}",
                inRange ? $"failed to allocate IP {address}: provided IP is already allocated"
                    : $"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
                        + $"The range of valid IPs is {_options.ServiceCidr}")]);
        return address;
    }

    private string Free(string family)
    {
        var range = IPNetwork.Parse(family == "IPv6" ? _options.ServiceCidr6 ?? throw KubeApiException.Invalid("Service", "", "", [
            KubeApiException.Cause.Invalid("spec.ipFamilies[0]", "\"IPv6\"", "not configured on this cluster")]) : _options.ServiceCidr);
        var size = family == "IPv6" ? 1UL << 16 : (1UL << (32 - range.PrefixLength)) - 2;
        // The lowest addresses are for Services that ask: kubernetes, DNS.
        var next = _next.GetValueOrDefault(family, Math.Min(256, size / 4));
        for (ulong tries = 0; tries < size; tries++)
        {
            next = next % size + 1;
            var address = Add(range.BaseAddress, next);
            if (_addresses.ContainsKey(address))
                continue;
            _next[family] = next;
            return address;
        }
        throw KubeApiException.Internal("failed to allocate a serviceIP: range is full");
    }

    public static string Add(IPAddress address, ulong offset)
    {
        var bytes = address.GetAddressBytes();
        for (var i = bytes.Length - 1; i >= 0 && offset > 0; i--)
        {
            offset += bytes[i];
            bytes[i] = (byte)offset;
            offset >>= 8;
        }
        return new IPAddress(bytes).ToString();
    }

    private void NodePorts(JsonObject service, JsonObject spec, string type, JsonObject? old)
    {
        var wants = type == "NodePort" || (type == "LoadBalancer" && spec.Bool("allocateLoadBalancerNodePorts") != false);
        var mine = new HashSet<long>();
        bool Take(long port) => !(_ports.TryGetValue(port, out var holder) && holder != KeyOf(service)) && mine.Add(port);
        long Free()
        {
            var (first, last) = _options.NodePorts;
            for (var tries = first; tries <= last; tries++)
            {
                var port = _nextPort;
                _nextPort = port >= last ? first : port + 1;
                if (!_ports.ContainsKey(port) && mine.Add(port))
                    return port;
            }
            throw KubeApiException.Internal("failed to allocate a nodePort: range is full");
        }
        foreach (var port in spec.Arr("ports").Objects())
        {
            if (!wants && type == "ClusterIP")
            {
                port.Remove("nodePort");
                continue;
            }
            if (port.Num("nodePort") is { } asked and > 0)
            {
                if (asked < _options.NodePorts.First || asked > _options.NodePorts.Last)
                    throw KubeApiException.Invalid("Service", "", service["metadata"].Str("name")!, [KubeApiException.Cause.Invalid("spec.ports[0].nodePort",
                        asked.ToString(CultureInfo.InvariantCulture),
                        $"provided port is not in the valid range. The range of valid ports is {_options.NodePorts.First}-{_options.NodePorts.Last}")]);
                if (!Take(asked))
                    throw KubeApiException.Invalid("Service", "", service["metadata"].Str("name")!, [KubeApiException.Cause.Invalid("spec.ports[0].nodePort",
                        asked.ToString(CultureInfo.InvariantCulture), "provided port is already allocated")]);
                continue;
            }
            if (!wants)
                continue;
            var same = old.Arr("ports").Objects().FirstOrDefault(one => one.Num("port") == port.Num("port")
                && (one.Str("protocol") ?? "TCP") == port.Str("protocol"))?.Num("nodePort");
            if (same is { } kept and > 0 && Take(kept))
                port["nodePort"] = kept;
            else
                port["nodePort"] = Free();
        }
        if (type == "LoadBalancer" && spec.Str("externalTrafficPolicy") == "Local" && spec.Num("healthCheckNodePort") is null or 0)
            spec["healthCheckNodePort"] = old.Num("healthCheckNodePort") ?? Free();
    }
}
