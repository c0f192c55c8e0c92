using Mesh.ClusterMesh.Wire;
using Mesh.Model;

namespace Mesh.ClusterMesh.Imports;

/// <summary>Addresses of the peer's nodes as far as they were believed: what reserved identities and tunnel endpoints are held against.</summary>
internal sealed class NodeAddresses
{
    private readonly Dictionary<string, IpAddr[]> _ofNode = new(StringComparer.Ordinal);
    private readonly Dictionary<IpAddr, int> _uses = [];

    public bool Contains(IpAddr address) => _uses.ContainsKey(address);

    /// <param name="record">Null when the node has gone.</param>
    /// <returns>Whether any address came or went.</returns>
    public bool Set(string node, NodeRecord? record)
    {
        var before = _ofNode.GetValueOrDefault(node) ?? [];
        var after = record is null ? [] : All(record).Distinct().ToArray();
        if (before.AsSpan().SequenceEqual(after))
            return false;
        if (after.Length == 0)
            _ofNode.Remove(node);
        else
            _ofNode[node] = after;
        foreach (var address in after)
            _uses[address] = _uses.GetValueOrDefault(address) + 1;
        foreach (var address in before)
        {
            if (--_uses[address] == 0)
                _uses.Remove(address);
        }
        return true;
    }

    public void Clear()
    {
        _ofNode.Clear();
        _uses.Clear();
    }

    /// <summary>Every address by which the node, its health endpoint or its ingress can be known.</summary>
    public static IEnumerable<IpAddr> All(NodeRecord record)
    {
        var texts = (record.IPAddresses ?? []).Select(address => address.IP)
            .Concat([record.IPv4HealthIP, record.IPv6HealthIP, record.IPv4IngressIP, record.IPv6IngressIP]);
        foreach (var text in texts)
        {
            if (IpAddr.TryParse(text, out var address) && !address.IsUnspecified)
                yield return address;
        }
    }
}
