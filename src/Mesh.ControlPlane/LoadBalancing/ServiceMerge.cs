using Mesh.ControlPlane.LoadBalancing.Choice;
using Mesh.ControlPlane.Restored;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing;

/// <summary>
/// The rules by which backends of all clusters come together behind a local service. A pure function: the same input gives the
/// same rows, in the same order.
/// <list type="bullet">
/// <item>A service that is not global has local backends only.</item>
/// <item>Ports match by name, never by number; when either side has no name, every backend of the protocol and family matches.
/// The backend's own port is used.</item>
/// <item>One address claimed twice is one backend: the local claim wins over a remote one, the later remote record over the
/// earlier.</item>
/// <item>Affinity sorts into tiers and never leaves a backend out: the kernel falls back to the next tier by itself. What a
/// service asks for beyond that is the business of <see cref="Chooser"/>.</item>
/// <item>A cluster not heard since the restart keeps what the kernel had of it, last in every dispute.</item>
/// </list>
/// </summary>
public static class ServiceMerge
{
    /// <param name="local">Of all slices of the service.</param>
    /// <param name="remote">One per cluster; ignored unless the service is global.</param>
    /// <param name="restored">Backends in the kernel of clusters not heard since the restart, by frontend.</param>
    /// <param name="nodeName">This node; its backends are marked. "" = unknown.</param>
    /// <param name="context">What the choice must know; null = everything ready and reachable, no zone.</param>
    public static IReadOnlyList<Frontend> Merge(
        LocalService service,
        ClusterIdentity self,
        IEnumerable<NamedBackend> local,
        IReadOnlyCollection<RemoteService> remote,
        Func<L3n4Addr, IReadOnlyList<RestoredBackend>> restored,
        string nodeName = "",
        ChoiceContext? context = null)
    {
        if (service.ClusterIPs.Count == 0)
            return [];
        var claims = Claims(service, self, local, remote);
        var frontends = new List<Frontend>();
        // Frontends of one port and family have the same backends: merged once.
        var merged = new Dictionary<(FrontendPort Port, bool V6), Chosen>();
        context ??= ChoiceContext.Plain(self.Id);
        foreach (var (address, port, type) in service.Frontends())
        {
            var left = service.Global ? restored(address) : [];
            if (left.Count > 0 || !merged.TryGetValue((port, address.Address.IsV6), out var chosen))
            {
                var found = claims.Values.Where(claim => claim.Answers(address.Address, port))
                    .Select(claim => claim.ToBackend(service.Affinity, self, nodeName)).ToList();
                AddRestored(found, left, claims, remote, service.Affinity);
                chosen = Choose(service, found, context);
                if (left.Count == 0)
                    merged[(port, address.Address.IsV6)] = chosen;
            }
            frontends.Add(Row(service, address, port, type, chosen));
        }
        return frontends;
    }

    private static Chosen Choose(LocalService service, List<Backend> found, ChoiceContext context)
    {
        EquatableArray<Share> shares = default;
        if (!service.Choice.IsPlain || context.LocalUptake < 1)
        {
            (var chosen, shares) = Chooser.Apply(service.Choice, found, context);
            found = [.. chosen];
        }
        found.Sort(ByTierClusterAddress);
        return new Chosen(new EquatableArray<Backend>(found), shares);
    }

    /// <summary>The policy for clients from outside, and the ranges that they must come from, concern the addresses that are for them.</summary>
    private static Frontend Row(LocalService service, L3n4Addr address, FrontendPort port, ServiceType type, in Chosen chosen) =>
        new(address, service.Name, port.Name, type, service.Affinity, chosen.Backends)
        {
            Shares = chosen.Shares,
            InternalLocal = service.InternalLocal,
            ExternalLocal = type == ServiceType.ClusterIP ? service.InternalLocal : service.ExternalLocal,
            HealthCheckNodePort = service.HealthCheckNodePort,
            AffinitySeconds = service.AffinitySeconds,
            SourceRanges = type == ServiceType.LoadBalancer ? service.SourceRanges : default,
            Forwarding = service.Forwarding,
            Algorithm = service.Algorithm,
        };

    private static Dictionary<L3n4Addr, Claim> Claims(LocalService service, ClusterIdentity self, IEnumerable<NamedBackend> local,
        IReadOnlyCollection<RemoteService> remote)
    {
        var claims = new Dictionary<L3n4Addr, Claim>();
        if (service.Global)
            foreach (var cluster in remote.OrderBy(record => record.Sequence))
                foreach (var backend in cluster.Backends)
                    Add(claims, backend, cluster.ClusterId, cluster.Cluster);
        foreach (var backend in local)
            Add(claims, backend, self.Id, self.Name);
        return claims;
    }

    private static void Add(Dictionary<L3n4Addr, Claim> claims, in NamedBackend backend, uint clusterId, string cluster)
    {
        if (claims.TryGetValue(backend.Address, out var claim) && claim.Cluster == cluster)
            claim.Also(backend);
        else
            claims[backend.Address] = new Claim(backend, clusterId, cluster);
    }

    private static void AddRestored(List<Backend> backends, IReadOnlyList<RestoredBackend> restored, Dictionary<L3n4Addr, Claim> claims,
        IReadOnlyCollection<RemoteService> remote, ServiceAffinity affinity)
    {
        foreach (var left in restored)
            if (!claims.ContainsKey(left.Backend) && remote.All(record => record.ClusterId != left.ClusterId))
                backends.Add(new Backend(left.Backend, left.ClusterId, "", "", "", left.State, Tier(affinity, isLocal: false)));
    }

    private static byte Tier(ServiceAffinity affinity, bool isLocal) => affinity switch
    {
        ServiceAffinity.Local => (byte)(isLocal ? 0 : 1),
        ServiceAffinity.Remote => (byte)(isLocal ? 1 : 0),
        _ => 0,
    };

    private static int ByTierClusterAddress(Backend left, Backend right)
    {
        var byTier = left.Tier.CompareTo(right.Tier);
        if (byTier != 0)
            return byTier;
        var byCluster = left.ClusterId.CompareTo(right.ClusterId);
        return byCluster != 0 ? byCluster : left.Address.CompareTo(right.Address);
    }

    private readonly record struct Chosen(EquatableArray<Backend> Backends, EquatableArray<Share> Shares);

    /// <summary>An address with every port name under which its cluster offers it.</summary>
    private sealed class Claim(NamedBackend first, uint clusterId, string cluster)
    {
        private readonly List<string> _portNames = [first.PortName];
        private NamedBackend _backend = first;

        public string Cluster => cluster;

        public void Also(in NamedBackend again)
        {
            if (!_portNames.Contains(again.PortName))
                _portNames.Add(again.PortName);
            if (_backend.State != BackendState.Active && again.State == BackendState.Active)
                _backend = again;
        }

        public bool Answers(IpAddr virtualIP, FrontendPort port) =>
            _backend.Address.Address.IsV6 == virtualIP.IsV6
            && _backend.Address.Protocol == port.Protocol
            && (port.Name.Length == 0 || _portNames.Contains("") || _portNames.Contains(port.Name));

        public Backend ToBackend(ServiceAffinity affinity, ClusterIdentity self, string nodeName) =>
            new(_backend.Address, clusterId, cluster, _backend.NodeName, _backend.Zone, _backend.State,
                Tier(affinity, isLocal: cluster == self.Name))
            {
                IsHere = cluster == self.Name && nodeName.Length > 0 && _backend.NodeName == nodeName,
            };
    }
}
