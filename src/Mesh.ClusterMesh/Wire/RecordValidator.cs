using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using Mesh.ClusterMesh.Imports;
using Mesh.ClusterMesh.Wire.Json;
using Mesh.Model;

namespace Mesh.ClusterMesh.Wire;

/// <summary>
/// Decides for each record of one peer whether it may be believed: it must be readable, say the same as its key, and lie within
/// what the peer may speak for (its name, its cluster ID, its identity range). A record is accepted whole or rejected whole.
/// <para>
/// A 1.13 peer writes services without a cluster ID, which reads as 0; every later one writes it. The two are told apart by the
/// cluster-config: 1.13 leaves out the capabilities member, 1.14 and later always write it. Only a peer without it may leave the
/// ID out, and then means its own; a wrong ID is rejected from any peer. A relay gives its copy capabilities of its own: there a source
/// older than 1.15 is known by the maximum of clusters that it does not announce.
/// </para>
/// Keys are given without their prefix. Reasons are one line and safe to print. Not for use by several threads at once.
/// </summary>
public sealed class RecordValidator
{
    private static readonly IpPrefix[] LinkLocal = [IpPrefix.Parse("169.254.0.0/16"), IpPrefix.Parse("fe80::/10")];

    private readonly string _cluster;
    private readonly uint _clusterId;
    private readonly IdentityNumbering _numbering;
    private readonly bool _mayOmitServiceClusterId;
    private readonly StringCache _strings = new();

    /// <param name="cluster">The peer's name: its file name in the configuration.</param>
    /// <param name="config">What it says of itself, already validated.</param>
    /// <param name="numbering">How this mesh splits identities.</param>
    public RecordValidator(string cluster, ClusterConfig config, IdentityNumbering numbering)
    {
        _cluster = cluster;
        _clusterId = config.Id;
        _numbering = numbering;
        _mayOmitServiceClusterId = config.Capabilities is null or { Cached: true, MaxConnectedClusters: 0 };
    }

    /// <summary>Records rejected for carrying another cluster ID than the advertised one: the peer may have changed its ID.</summary>
    public int WrongClusterIds { get; private set; }

    /// <summary>What kind of fault the last rejection was.</summary>
    public RefusalReason Reason { get; private set; }

    public bool TryNode(
        string key, ReadOnlySpan<byte> value, [NotNullWhen(true)] out NodeRecord? node, [NotNullWhen(false)] out string? rejection)
    {
        Reason = RefusalReason.Malformed;
        if (!NodeRecordCodec.TryDecode(value, out node, out rejection))
            return false;
        rejection = FaultOf(node);
        node = WithoutLocalGateway(node);
        return rejection is null;

        string? FaultOf(NodeRecord read)
        {
            if (key.Length == 0 || read.Name != key || key.Contains('/'))
                return $"Name {Quoted.Text(read.Name)} differs from its key";
            if (read.Cluster != _cluster)
                return Foreign($"Cluster {Quoted.Text(read.Cluster)} is not {_cluster}");
            return read.ClusterID == _clusterId ? null : WrongClusterId(read.ClusterID);
        }
    }

    // Where a cluster's addresses come from elsewhere, all its nodes have one gateway address, which is link-local and says nothing here.
    private static NodeRecord WithoutLocalGateway(NodeRecord node) => node.IPAddresses?.Any(IsLocalGateway) == true
        ? node with { IPAddresses = [.. node.IPAddresses.Where(address => !IsLocalGateway(address))] }
        : node;

    private static bool IsLocalGateway(WireNodeAddress address) =>
        address.Type == "CiliumInternalIP" && IpAddr.TryParse(address.IP, out var gateway) && LinkLocal.Any(range => range.Contains(gateway));

    /// <param name="service">Null when the record withdraws the service (shared: false).</param>
    public bool TryService(
        string key,
        ReadOnlySpan<byte> value,
        out ServiceName name,
        out ClusterService? service,
        [NotNullWhen(false)] out string? rejection)
    {
        Reason = RefusalReason.Malformed;
        if (!TryServiceKey(key, out name))
        {
            service = null;
            rejection = "the key is not NAMESPACE/NAME";
            return false;
        }
        if (!ClusterServiceCodec.TryDecode(value, _strings, out service, out rejection))
            return false;
        rejection = FaultOf(service, name);
        if (rejection is not null)
            return false;
        service = service.Shared ? Normalised(service) : null;
        return true;
    }

    private string? FaultOf(ClusterService service, ServiceName name)
    {
        if (service.Cluster != _cluster)
            return Foreign($"cluster {Quoted.Text(service.Cluster)} is not {_cluster}");
        if (service.Namespace != name.Namespace || service.Name != name.Name)
            return $"{Quoted.Text($"{service.Namespace}/{service.Name}")} differs from its key";
        if (service.ClusterId != _clusterId && !(service.ClusterId == 0 && _mayOmitServiceClusterId))
            return WrongClusterId(service.ClusterId);
        foreach (var (what, addresses) in new[] { ("frontend", service.Frontends?.Keys), ("backend", service.Backends?.Keys) })
        {
            if (addresses?.FirstOrDefault(address => !IpAddr.TryParse(address, out _) && !HasZone(address)) is { } wrong)
                return $"{what} {Quoted.Text(wrong)} is not an IP address";
        }
        return null;
    }

    public bool TryServiceExport(string key, ReadOnlySpan<byte> value, out ServiceName name, [NotNullWhen(true)] out ExportedService? export,
        [NotNullWhen(false)] out string? rejection)
    {
        Reason = RefusalReason.Malformed;
        export = null;
        rejection = "the key is not NAMESPACE/NAME";
        if (!TryServiceKey(key, out name) || !ExportedServiceCodec.TryDecode(value, out export, out rejection))
            return false;
        rejection = export.Cluster != _cluster ? Foreign($"cluster {Quoted.Text(export.Cluster)} is not {_cluster}")
            : export.Namespace != name.Namespace || export.Name != name.Name
                ? $"{Quoted.Text($"{export.Namespace}/{export.Name}")} differs from its key" : null;
        return rejection is null;
    }

    // An address with a zone is valid text, but a link-local address of another machine is of no use to anyone.
    private ClusterService Normalised(ClusterService service) => service with
    {
        ClusterId = _clusterId,
        Frontends = WithoutZones(service.Frontends),
        Backends = WithoutZones(service.Backends),
    };

    private static IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? WithoutZones(
        IReadOnlyDictionary<string, IReadOnlyDictionary<string, WirePort>>? addresses) =>
        addresses is not null && addresses.Keys.Any(HasZone)
            ? addresses.Where(pair => !HasZone(pair.Key)).ToDictionary(StringComparer.Ordinal)
            : addresses;

    private static bool HasZone(string address)
    {
        var percent = address.IndexOf('%', StringComparison.Ordinal);
        return percent > 0 && percent < address.Length - 1 && address.AsSpan(0, percent).Contains(':')
            && IpAddr.TryParse(address.AsSpan(0, percent), out _);
    }

    public bool TryIp(
        string key,
        ReadOnlySpan<byte> value,
        out IpPrefix prefix,
        [NotNullWhen(true)] out IpIdentityPair? pair,
        [NotNullWhen(false)] out string? rejection)
    {
        prefix = default;
        Reason = RefusalReason.Malformed;
        if (!IpIdentityPairCodec.TryDecode(value, _strings, out pair, out rejection))
            return false;
        // What nearly every entry is. The decoded IP is canonical, so an equal key is too.
        if (pair.Mask is null && key == pair.IP && IpAddr.TryParse(key, out var address))
            prefix = IpPrefix.Host(address);
        else if (!TryIpKey(key, out prefix))
            rejection = "the key is not an address as Go prints it";
        else if (!SaysTheSame(key, pair))
            rejection = $"IP {Quoted.Text(pair.IP)} with mask {Quoted.Text(pair.Mask ?? "")} differs from its key";
        if (rejection is null && pair.ID >= NumericIdentity.FirstAllocatable && !_numbering.InRange(_clusterId, pair.ID))
            rejection = OutOfRange(pair.ID);
        if (rejection is not null)
            return false;
        // The peer's host is a remote node to us.
        if (pair.ID == NumericIdentity.Host)
            pair = pair with { ID = NumericIdentity.RemoteNode };
        if (pair.NamedPorts is { } ports && !ports.All(IsValidPort))
            pair = pair with { NamedPorts = [.. ports.Where(IsValidPort)] };
        return true;
    }

    private static bool SaysTheSame(string key, IpIdentityPair pair)
    {
        var slash = key.IndexOf('/', StringComparison.Ordinal);
        if (slash < 0)
            return pair.Mask is null && key == pair.IP;
        return pair.Mask is not null
            && key.AsSpan(0, slash).SequenceEqual(pair.IP)
            && WireMask.TryDecode(pair.Mask, pair.IP.Contains(':', StringComparison.Ordinal), out var length)
            && key.AsSpan(slash + 1).SequenceEqual(length.ToString(CultureInfo.InvariantCulture));
    }

    // An IANA service name: 1 to 15 of a-z, 0-9 and single inner hyphens, with at least one letter.
    private static bool IsValidPort(WireNamedPort port) =>
        port.Port != 0
        && L4Protocols.Parse(port.Protocol.ToUpperInvariant()) != L4Protocol.None
        && port.Name is { Length: >= 1 and <= 15 } name
        && name.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '-')
        && name.Any(char.IsAsciiLetterLower)
        && name[0] != '-' && name[^1] != '-' && !name.Contains("--", StringComparison.Ordinal);

    public bool TryIdentity(
        string key,
        ReadOnlySpan<byte> value,
        out uint identity,
        [NotNullWhen(true)] out string? labels,
        [NotNullWhen(false)] out string? rejection)
    {
        labels = null;
        Reason = RefusalReason.Malformed;
        if (!TryIdentityKey(key, out identity))
            rejection = "the key is not a decimal identity";
        else if (!_numbering.InRange(_clusterId, identity) || identity < NumericIdentity.FirstAllocatable)
            rejection = OutOfRange(identity);
        else if (value.IsEmpty)
            rejection = "it has no labels";
        else if (!IdentityLabels.BelongsTo(labels = Encoding.UTF8.GetString(value), _cluster))
            rejection = Foreign($"it lacks the label {IdentityLabels.KubernetesSource}:{IdentityLabels.ClusterKey}={_cluster}");
        else
            rejection = null;
        return rejection is null && labels is not null;
    }

    private string WrongClusterId(uint found)
    {
        WrongClusterIds++;
        return Foreign($"cluster ID {found} is not the advertised {_clusterId}");
    }

    private string Foreign(string text)
    {
        Reason = RefusalReason.ForeignKey;
        return text;
    }

    private string OutOfRange(uint identity)
    {
        Reason = RefusalReason.IdentityRange;
        return $"identity {identity} is outside the cluster's range {_numbering.MinOf(_clusterId)}-{_numbering.MaxOf(_clusterId)}";
    }

    /// <summary>Exactly NAMESPACE/NAME.</summary>
    public static bool TryServiceKey(string key, out ServiceName name)
    {
        name = default;
        var slash = key.IndexOf('/', StringComparison.Ordinal);
        if (slash <= 0 || slash == key.Length - 1 || key.AsSpan(slash + 1).Contains('/'))
            return false;
        name = new ServiceName(key[..slash], key[(slash + 1)..]);
        return true;
    }

    /// <summary>ADDRESS or ADDRESS/LENGTH, in Go's rendering only: any other text of the address is another key.</summary>
    public static bool TryIpKey(string key, out IpPrefix prefix)
    {
        if (!IpPrefix.TryParse(key, out prefix))
            return false;
        var slash = key.IndexOf('/', StringComparison.Ordinal);
        var text = slash < 0 ? key : key.AsSpan(0, slash);
        Span<char> canonical = stackalloc char[45];
        return IpAddr.TryParse(text, out var address) && text.SequenceEqual(canonical[..address.Format(canonical)]);
    }

    /// <summary>A decimal number without sign or leading zeros.</summary>
    public static bool TryIdentityKey(string key, out uint identity) =>
        uint.TryParse(key, NumberStyles.None, CultureInfo.InvariantCulture, out identity) && (key.Length == 1 || key[0] != '0');
}
