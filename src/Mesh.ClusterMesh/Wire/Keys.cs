using System.Globalization;
using Mesh.ClusterMesh.Remote;
using Mesh.ClusterMesh.Wire.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Wire;

/// <summary>Every key of the contract. STABLE: a changed letter is a mesh that no longer meshes. Segments are joined by one "/";
/// one that a path cleaner would swallow ("", ".", "..", or with a "/" inside) is refused where the key is made.</summary>
public static class Keys
{
    public const string Heartbeat = "cilium/.heartbeat";

    /// <summary>Value "true", without lease: tells consumers of 1.14 to 1.16 that a missing cluster-config is an error.</summary>
    public const string HasClusterConfig = "cilium/.has-cluster-config";

    /// <summary>Address space of every ip entry; not the cluster's name.</summary>
    public const string DefaultAddressSpace = "default";

    public const string ClusterConfigPrefix = "cilium/cluster-config/";

    internal const string SyncedRoot = "cilium/synced/";

    private const string CacheRoot = "cilium/cache/";

    public static string ClusterConfig(string cluster) => ClusterConfigPrefix + Segment(cluster);

    /// <summary>Where the canaries of a cluster are watched.</summary>
    public static string SyncedPrefix(string cluster) => $"{SyncedRoot}{Segment(cluster)}/";

    /// <summary>
    /// What readers of several clusters at one place may watch instead, once for all: a cache has its clusters side by side. Null for
    /// prefixes that have no siblings: a cluster's own state.
    /// </summary>
    public static string? Wider(string prefix)
    {
        if (prefix == Heartbeat)
            return Heartbeat;
        if (prefix.StartsWith(SyncedRoot, StringComparison.Ordinal))
            return SyncedRoot;
        // cilium/cache/RESOURCE/v1/CLUSTER/…
        if (!prefix.StartsWith(CacheRoot, StringComparison.Ordinal))
            return null;
        var version = prefix.IndexOf("/v1/", CacheRoot.Length, StringComparison.Ordinal);
        return version < 0 ? null : prefix[..(version + "/v1/".Length)];
    }

    /// <summary>Ours: where a relay says why its copy of the cluster is not proved at present; absent while it is. It lies beside the
    /// canaries, which every reader of the copy watches, and which Cilium's readers pass over when they do not know them.</summary>
    public static string SourceTrouble(string cluster) => $"{SyncedPrefix(cluster)}mesh/source";

    public static string Node(string cluster, string node) => Layout.State(cluster).Prefix(RemoteResource.Nodes) + Segment(node);

    public static string Service(string cluster, ServiceName service) =>
        $"{Layout.State(cluster).Prefix(RemoteResource.Services)}{Segment(service.Namespace)}/{Segment(service.Name)}";

    public static string ServiceExport(string cluster, ServiceName service) =>
        $"{Layout.State(cluster).Prefix(RemoteResource.ServiceExports)}{Segment(service.Namespace)}/{Segment(service.Name)}";

    /// <summary>A single address ends the key as it is, a range with its length.</summary>
    public static string Ip(IpPrefix prefix) => IpPrefixRoot + IpSuffix(prefix);

    public static string Identity(uint identity) => IdentityRoot + identity.ToString(CultureInfo.InvariantCulture);

    /// <summary>The canary a producer writes once everything of the resource is in.</summary>
    public static string Canary(string cluster, RemoteResource resource) => Layout.State(cluster).Canary(resource);

    internal const string IpPrefixRoot = "cilium/state/ip/v1/default/";

    internal const string IdentityRoot = "cilium/state/identities/v1/id/";

    internal static string IpSuffix(IpPrefix prefix) => prefix.IsHost ? prefix.Address.ToString() : prefix.ToString();

    /// <summary>Null when the text can be one segment of a key; otherwise why not.</summary>
    public static string? ValidateSegment(string segment)
    {
        if (segment is "" or "." or "..")
            return $"{Quoted.Text(segment)} cannot be a segment of a key: a path cleaner would remove it";
        if (segment.Contains('/'))
            return $"{Quoted.Text(segment)} cannot be one segment of a key: it holds a '/'";
        return segment.AsSpan().ContainsAnyInRange('\0', '\x1f') ? $"{Quoted.Text(segment)} holds control characters" : null;
    }

    internal static string Segment(string segment) =>
        ValidateSegment(segment) is { } reason ? throw new ArgumentException(reason, nameof(segment)) : segment;
}

/// <summary>Where the resources of one cluster lie in an etcd: its own (state), or one that mirrors it (cache).</summary>
public sealed record Layout
{
    private readonly string _root;

    public string Cluster { get; }

    /// <summary>True for the mirrored layout of a peer whose cluster-config says "cached".</summary>
    public bool Cached { get; }

    private Layout(string cluster, bool cached)
    {
        Cluster = Keys.Segment(cluster);
        Cached = cached;
        _root = cached ? "cilium/cache" : "cilium/state";
    }

    public static Layout State(string cluster) => new(cluster, cached: false);

    public static Layout Cache(string cluster) => new(cluster, cached: true);

    /// <summary>The prefix to list and watch, "/" included: falcon does not see falcon2.</summary>
    public string Prefix(RemoteResource resource) => resource switch
    {
        RemoteResource.Nodes => $"{_root}/nodes/v1/{Cluster}/",
        RemoteResource.Services => $"{_root}/services/v1/{Cluster}/",
        RemoteResource.IpEntries => Cached ? $"{_root}/ip/v1/{Cluster}/" : Keys.IpPrefixRoot,
        RemoteResource.Identities => Cached ? $"{_root}/identities/v1/{Cluster}/id/" : Keys.IdentityRoot,
        RemoteResource.ServiceExports => $"{_root}/serviceexports/v1/{Cluster}/",
        _ => throw new ArgumentOutOfRangeException(nameof(resource), resource, "not a resource of the mesh"),
    };

    /// <summary>The canary of a resource; its name is not always the prefix of the data.</summary>
    public string Canary(RemoteResource resource) => $"{Keys.SyncedRoot}{Cluster}/{CanarySuffix(resource)}";

    internal string CanarySuffix(RemoteResource resource) => resource switch
    {
        RemoteResource.Nodes => $"{_root}/nodes/v1",
        RemoteResource.Services => $"{_root}/services/v1",
        RemoteResource.IpEntries => $"{_root}/ip/v1",
        RemoteResource.Identities => $"{_root}/identities/v1",
        RemoteResource.ServiceExports => $"{_root}/serviceexports/v1",
        _ => throw new ArgumentOutOfRangeException(nameof(resource), resource, "not a resource of the mesh"),
    };

    /// <summary>The same record's key in another layout of the same cluster; null when the key is no record of this layout.</summary>
    public string? Rewrite(string key, Layout target)
    {
        foreach (var resource in RemoteResources.All)
        {
            var prefix = Prefix(resource);
            if (key.Length > prefix.Length && key.StartsWith(prefix, StringComparison.Ordinal))
                return string.Concat(target.Prefix(resource), key.AsSpan(prefix.Length));
        }
        return null;
    }
}

public enum KeyKind
{
    /// <summary>Not a key of the contract, or one with segments no producer can mean.</summary>
    Unknown,
    Heartbeat,
    ClusterConfig,
    Canary,
    Node,
    Service,
    Ip,
    Identity,
    ServiceExport,
}

/// <summary>A key taken apart.</summary>
/// <param name="Cluster">Null for keys that are not scoped: heartbeat, and ip entries and identities of the state layout.</param>
/// <param name="Name">node, service, address text, decimal identity, or the canary's suffix; "" when the kind says it all.</param>
public readonly record struct ParsedKey(KeyKind Kind, string? Cluster, string? Namespace, string Name, bool Cached)
{
    public static ParsedKey Parse(string key)
    {
        if (key == Keys.Heartbeat)
            return new ParsedKey(KeyKind.Heartbeat, null, null, "", Cached: false);
        var parts = key.Split('/');
        if (parts[0] != "cilium" || parts.Any(part => part is "" or "." or ".."))
            return default;
        var cached = parts.Length > 1 && parts[1] == "cache";
        return parts switch
        {
            ["cilium", "cluster-config", var cluster] => new(KeyKind.ClusterConfig, cluster, null, "", false),
            ["cilium", "synced", var cluster, "cilium", "state" or "cache", _, "v1"] =>
                new(KeyKind.Canary, cluster, null, string.Join('/', parts[3..]), parts[4] == "cache"),
            ["cilium", "state" or "cache", "nodes", "v1", var cluster, var node] => new(KeyKind.Node, cluster, null, node, cached),
            ["cilium", "state" or "cache", "services", "v1", var cluster, var ns, var name] =>
                new(KeyKind.Service, cluster, ns, name, cached),
            ["cilium", "state" or "cache", "serviceexports", "v1", var cluster, var ns, var name] =>
                new(KeyKind.ServiceExport, cluster, ns, name, cached),
            ["cilium", "state", "ip", "v1", Keys.DefaultAddressSpace, .. { Length: 1 or 2 } ip] =>
                new(KeyKind.Ip, null, null, string.Join('/', ip), false),
            ["cilium", "cache", "ip", "v1", var cluster, .. { Length: 1 or 2 } ip] =>
                new(KeyKind.Ip, cluster, null, string.Join('/', ip), true),
            ["cilium", "state", "identities", "v1", "id", var id] => new(KeyKind.Identity, null, null, id, false),
            ["cilium", "cache", "identities", "v1", var cluster, "id", var id] => new(KeyKind.Identity, cluster, null, id, true),
            _ => default,
        };
    }
}
