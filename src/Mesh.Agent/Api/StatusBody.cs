using System.Globalization;
using Mesh.AgentApi;
using Mesh.ClusterMesh.Remote;
using Mesh.Datapath.Maps;
using Mesh.StateDB;
using Mesh.StateDB.Reconciler;
using RemoteCluster = Mesh.AgentApi.RemoteCluster;

namespace Mesh.Agent.Api;

/// <summary>GET /v1/healthz.</summary>
internal static class StatusBody
{
    /// <summary>Rows listed by name per table; all of them are counted.</summary>
    private const int FailuresShown = 20;

    /// <summary>Of those the rows that only wait for room in a full map: they all say the same.</summary>
    private const int WaitingShown = 3;

    public static StatusResponse Of(AgentView view)
    {
        var tables = Tables(view);
        var peers = view.Peers?.Statuses ?? [];
        var evidence = peers.Select(peer => PeerBody.Of(peer, view)).ToList();
        return new StatusResponse
        {
            Cilium = Agent(view, tables),
            Cluster = new ClusterStatus { Self = $"{view.Options.Cluster.Name}/{view.Options.NodeName}" },
            ClusterMesh = new ClusterMeshStatus
            {
                Clusters = peers.Count == 0 ? null : [.. peers.Zip(evidence, Peer)],
                NumGlobalServices = view.LoadBalancing.GlobalServices,
            },
            Encryption = new EncryptionStatus(),
            Hubble = new Status { State = StatusState.Disabled },
            IdentityRange = new IdentityRange
            {
                MinIdentity = view.Options.Numbering.MinOf(view.Options.Cluster.Id),
                MaxIdentity = view.Options.Numbering.MaxOf(view.Options.Cluster.Id),
            },
            Ipam = view.Addresses.Status(),
            Kvstore = new Status { State = StatusState.Disabled, Msg = "Disabled" },
            Masquerading = Masquerading(view),
            Mesh = Mesh(view, tables, peers, evidence),
        };
    }

    /// <summary>What is in force, which may be less than what was asked for.</summary>
    private static MasqueradingStatus Masquerading(AgentView view)
    {
        var wanted = view.Options.Masquerade;
        var works = view.Datapath is not null && view.Masquerade.Problem is null;
        return new MasqueradingStatus
        {
            Enabled = works && (wanted.IPv4 || wanted.IPv6),
            EnabledProtocols = new MasqueradedProtocols { IPv4 = works && wanted.IPv4, IPv6 = works && wanted.IPv6 },
            Mode = wanted.IPv4 || wanted.IPv6 ? "iptables" : null,
            ExcludedIPv4 = wanted.NativeRoutingIPv4?.ToString(),
            ExcludedIPv6 = wanted.NativeRoutingIPv6?.ToString(),
        };
    }

    private static IEnumerable<MeshFault> Faults(
        AgentView view, IReadOnlyList<TableStatus> tables, IReadOnlyList<RemoteClusterStatus> peers, IReadOnlyList<PeerStatus> evidence)
    {
        var faults = PeerBody.Faults(peers, evidence, tables);
        return view.Masquerade.Problem is not { } problem ? faults : faults.Append(new MeshFault
        {
            Class = PeerFault.KernelBehind.Name(),
            Cause = $"pods are not masqueraded, so what is outside the mesh cannot answer them: {problem}",
            Mend = "what the message says, or --enable-ipv4-masquerade=false and --enable-ipv6-masquerade=false where the network knows the way to pods",
        });
    }

    /// <summary>Ready means proved to be well: whoever asks only this field must not be told less than the truth.</summary>
    private static RemoteCluster Peer(RemoteClusterStatus peer, PeerStatus evidence) => Peer(peer) with
    {
        Ready = peer.Ready && evidence.Healthy,
        Status = peer.Ready && !evidence.Healthy ? $"{peer.Status}; {evidence.Fault}: {evidence.Cause}" : peer.Status,
    };

    /// <summary>A peer in the API's shape. Its configuration is unknown until connected, what is synced until it has been read.</summary>
    public static RemoteCluster Peer(RemoteClusterStatus peer) => new()
    {
        Name = peer.Name,
        Ready = peer.Ready,
        Connected = peer.Connected,
        Status = peer.Status,
        NumNodes = peer.Nodes,
        NumEndpoints = peer.IpEntries,
        NumIdentities = peer.Identities,
        NumSharedServices = peer.Services,
        NumFailures = peer.Failures,
        LastFailure = peer.LastFailure ?? default,
        ConnectedUntil = peer.ConnectedUntil ?? default,
        Problems = PeerBody.Problems(peer) is { Count: > 0 } problems ? problems : null,
        Config = !peer.Connected
            ? null
            : new RemoteClusterConfig
            {
                Required = true,
                Retrieved = peer.ConfigRetrieved,
                ClusterId = peer.ClusterId,
                Kvstoremesh = peer.Cached,
                SyncCanaries = peer.SyncedCanaries,
                ServiceExportsEnabled = peer.ServiceExportsEnabled,
            },
        Synced = !peer.ConfigRetrieved
            ? null
            : new RemoteClusterSynced
            {
                Nodes = peer.NodesSynced,
                Endpoints = peer.IpEntriesSynced,
                Identities = peer.IdentitiesSynced,
                Services = peer.ServicesSynced,
            },
    };

    private static PeerCertificates Certificates(RemoteClusterStatus peer) => new()
    {
        Name = peer.Name,
        ClientName = peer.Tls!.ClientName,
        ClientNotAfter = peer.Tls.ClientNotAfter ?? default,
        ServerName = peer.Tls.ServerName,
        ServerNotAfter = peer.Tls.ServerNotAfter ?? default,
        AuthorityNotAfter = peer.Tls.AuthorityNotAfter ?? default,
        Expiry = peer.CertificateExpiry,
        Problem = peer.Tls.Problem,
    };

    private static Status Agent(AgentView view, IReadOnlyList<TableStatus> tables)
    {
        var name = $"mesh-agent {AgentView.Version}";
        if (view.Datapath is null)
            return new Status { State = StatusState.Warning, Msg = $"{name}: {WaitingFor(view)}" };
        if (view.Datapath.Status().Switching is { } switching)
            return new Status { State = StatusState.Warning, Msg = $"{name}: {switching}" };
        var failing = tables.Where(table => table.Failing > 0).ToList();
        if (failing.Count == 0)
            return new Status { State = StatusState.Ok, Msg = name };
        var first = failing[0].Failures![0];
        return new Status
        {
            State = StatusState.Warning,
            Msg = $"{name}: the kernel lacks {string.Join(", ", failing.Select(table => $"{table.Failing} of {table.Rows} rows of {table.Name}"))}"
                + $"; {first.Key}: {first.Error}",
        };
    }

    /// <summary>What stands between the start and pods.</summary>
    public static string WaitingFor(AgentView view) => view.Nodes.LocalNode.IsCompleted
        ? "programming the kernel"
        : $"waiting for CiliumNode {view.Options.NodeName} with an InternalIP in {view.Options.Source}: {Mend(view)}";

    private static string Mend(AgentView view) => view.Options.Source.Manifests is not null
        ? "add it there"
        : view.Publishing?.Waiting ?? "the agent publishes it once it knows the Node object and its pod ranges";

    private static MeshStatus Mesh(AgentView view, IReadOnlyList<TableStatus> tables, IReadOnlyList<RemoteClusterStatus> peers,
        IReadOnlyList<PeerStatus> evidence) => new()
        {
            Healthy = view.Datapath is not null && !Faults(view, tables, peers, evidence).Any(),
            Faults = OrNull(Faults(view, tables, peers, evidence)),
            Peers = OrNull(evidence),
            Version = AgentView.Version,
            ClusterName = view.Options.Cluster.Name,
            ClusterId = view.Options.Cluster.Id,
            NodeName = view.Options.NodeName,
            Tables = tables,
            SourceProblems = OrNull(view.Objects.Problems.Concat(view.Endpoints.Problems).Concat(view.Publishing?.Problems ?? [])
            .Select(problem => new Problem { Where = problem.Where, Message = problem.Message, Since = problem.Since })
            .Concat(view.LoadBalancing.Conflicts.Concat(view.HealthChecks.Problems)
                .Select(conflict => new Problem { Where = "services", Message = conflict }))),
            ConfigProblems = OrNull((view.PeerConfig?.Problem is { } problem
            ? [new Problem { Where = view.Options.ClusterMeshConfig!, Message = problem }]
            : Enumerable.Empty<Problem>()).Concat(view.Cni.Configuration.Problem is { } cni
            ? [new Problem { Where = view.Options.Cni.ConfigurationPath!, Message = cni }]
            : Enumerable.Empty<Problem>())),
            Rejections = OrNull(peers.Where(peer => peer.Rejected > 0)
            .Select(peer => new PeerRejections { Name = peer.Name, Rejected = peer.Rejected, Last = peer.LastRejection })),
            Certificates = OrNull(peers.Where(peer => peer.Tls is not null).Select(Certificates)),
            Unconfirmed = OrNull(view.RemoteSource.Unconfirmed.Select(id => (long)id)),
            Liveness = LivenessBody.Of(view),
            Drops = view.Datapath is { } datapath ? Drops(datapath) : null,
            Switching = view.Datapath?.Status().Switching,
            Uplinks = view.Datapath is { } running
                ? OrNull(running.Status().Uplinks.Select(uplink =>
                    new UplinkState { Device = uplink.Device, Hooks = uplink.Hooks, Problem = uplink.Problem }))
                : null,
        };

    private static Dictionary<string, long>? Drops(Datapath.Datapath datapath)
    {
        var drops = datapath.Counters().Where(counter => counter.Reason != global::Mesh.Datapath.Maps.DropReason.Forwarded)
            .GroupBy(counter => DropNames.Of(counter.Reason))
            .ToDictionary(group => group.Key, group => group.Sum(counter => (long)counter.Packets));
        return drops.Count == 0 ? null : drops;
    }

    private static List<TableStatus> Tables(AgentView view)
    {
        var full = (view.Datapath?.Status().Reconcilers ?? []).ToDictionary(one => one.Table, one => one.Full);
        return
        [
            Table(view.State.Frontends, full),
            Table(view.State.IPCache, full),
            Table(view.State.Nodes, full),
            Table(view.State.Endpoints, full),
            Table(view.State.RemoteClusters, full),
        ];
    }

    private static TableStatus Table<TKey, TRow>(Table<TKey, TRow> table, Dictionary<string, IReadOnlyList<FullTarget>> fullMaps)
        where TKey : notnull
        where TRow : class
    {
        var full = fullMaps.GetValueOrDefault(table.Name, []);
        long rows = 0, pending = 0, failing = 0, waiting = 0;
        var failures = new List<RowFailure>();
        foreach (var (key, entry) in table.Snapshot())
        {
            rows++;
            if (entry.Status.State == RowState.Pending)
                pending++;
            if (entry.Status.State != RowState.Error)
                continue;
            failing++;
            if (full.Any(map => map.Cause == entry.Status.Error) && ++waiting > WaitingShown)
                continue;
            if (failures.Count < FailuresShown)
                failures.Add(new RowFailure
                {
                    Key = Convert.ToString(key, CultureInfo.InvariantCulture) ?? "",
                    Error = entry.Status.Error ?? "",
                    Attempts = entry.Status.Attempts,
                    Since = entry.Status.Since,
                });
        }
        return new TableStatus
        {
            Name = table.Name,
            Rows = rows,
            Pending = pending,
            Failing = failing,
            Failures = OrNull(failures),
            Full = OrNull(full.Select(map => new FullMap { Map = map.Name, Waiting = map.Waiting, Error = map.Cause, Since = map.Since })),
            WaitingFor = OrNull(table.PendingInitializers),
        };
    }

    private static List<T>? OrNull<T>(IEnumerable<T> items)
    {
        var list = items.ToList();
        return list.Count == 0 ? null : list;
    }
}
