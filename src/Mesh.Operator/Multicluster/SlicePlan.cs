using Mesh.Kubernetes.Objects;
using Mesh.Multicluster;

namespace Mesh.Operator.Multicluster;

/// <summary>What must be done that there are exactly the endpoints wanted: slices to write (with a resource version: in place of that version) and to
/// delete. Endpoints stay in the slices they are in, so that one that comes or goes changes one slice.</summary>
internal sealed record SlicePlan(IReadOnlyList<EndpointSlice> Writes, IReadOnlyList<EndpointSlice> Deletes)
{
    /// <summary>As many as Kubernetes puts into one.</summary>
    public const int EndpointsPerSlice = 100;

    private const int SuffixLength = 5;

    /// <param name="endpoints">Each with one address, and the ports it has.</param>
    /// <param name="present">Slices of ours, of this service and source.</param>
    /// <param name="prefix">Of the names of new slices.</param>
    /// <param name="meta">What every slice's metadata must be, but for its name.</param>
    public static SlicePlan Of(IEnumerable<WantedEndpoint> endpoints, IReadOnlyList<EndpointSlice> present, string prefix, ObjectMeta meta)
    {
        var writes = new List<EndpointSlice>();
        var kept = new HashSet<EndpointSlice>(ReferenceEqualityComparer.Instance);
        var names = present.Select(slice => slice.Metadata.Name!).ToHashSet(StringComparer.Ordinal);
        foreach (var group in endpoints.GroupBy(wanted => (wanted.AddressType, Ports: PortsText(wanted.Ports))).OrderBy(group => group.Key))
        {
            // A peer may write one address in two ways.
            var remaining = group.DistinctBy(wanted => wanted.Endpoint.Addresses![0])
                .ToDictionary(wanted => wanted.Endpoint.Addresses![0], wanted => wanted.Endpoint, StringComparer.Ordinal);
            var ports = group.First().Ports;
            var slices = new List<(EndpointSlice Slice, List<SliceEndpoint> Endpoints)>();
            foreach (var slice in present.Where(slice => slice.AddressType == group.Key.AddressType && PortsText(slice.Ports ?? []) == group.Key.Ports)
                .OrderBy(slice => slice.Metadata.Name, StringComparer.Ordinal))
            {
                var staying = (slice.Endpoints ?? []).Select(one => one.Addresses is [var address, ..] ? address : "")
                    .Where(remaining.ContainsKey).Distinct().Take(EndpointsPerSlice).ToList();
                slices.Add((slice, [.. staying.Select(address => remaining[address])]));
                foreach (var address in staying)
                    remaining.Remove(address);
            }
            var coming = new Queue<SliceEndpoint>(remaining.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => pair.Value));
            // One that is written anyway takes what comes first.
            foreach (var (slice, staying) in slices.OrderByDescending(pair => pair.Endpoints.Count < (pair.Slice.Endpoints?.Count ?? 0)))
            {
                while (staying.Count < EndpointsPerSlice && coming.TryDequeue(out var one))
                    staying.Add(one);
                if (staying.Count == 0)
                    continue;
                kept.Add(slice);
                if (!IsSame(slice, staying, meta))
                    writes.Add(Slice(slice.Metadata.Name!, slice.Metadata.ResourceVersion, group.Key.AddressType, staying, ports, meta));
            }
            for (var index = 0; coming.Count > 0;)
            {
                var name = $"{prefix}-{MulticlusterNames.Hash($"{meta.Namespace}/{prefix}/{group.Key}/{index++}", SuffixLength)}";
                if (!names.Add(name))
                    continue;
                var chunk = new List<SliceEndpoint>();
                while (chunk.Count < EndpointsPerSlice && coming.TryDequeue(out var one))
                    chunk.Add(one);
                writes.Add(Slice(name, null, group.Key.AddressType, chunk, ports, meta));
            }
        }
        return new SlicePlan(writes, [.. present.Where(slice => !kept.Contains(slice))]);
    }

    private static EndpointSlice Slice(string name, string? version, string addressType, List<SliceEndpoint> endpoints, IReadOnlyList<SlicePort> ports,
        ObjectMeta meta) => new()
        {
            Metadata = meta with { Name = name, ResourceVersion = version },
            AddressType = addressType,
            Endpoints = endpoints,
            Ports = ports,
        };

    private static bool IsSame(EndpointSlice slice, List<SliceEndpoint> endpoints, ObjectMeta meta) =>
        (slice.Endpoints ?? []).Select(EndpointText).SequenceEqual(endpoints.Select(EndpointText))
        && MapText(slice.Metadata.Labels) == MapText(meta.Labels)
        && (slice.Metadata.OwnerReferences ?? []).Select(owner => owner.Uid).SequenceEqual((meta.OwnerReferences ?? []).Select(owner => owner.Uid));

    private static string PortsText(IReadOnlyList<SlicePort> ports) => string.Join(',', ports.Select(port =>
        $"{port.Name}/{(string.IsNullOrEmpty(port.Protocol) ? "TCP" : port.Protocol)}/{port.Port}/{port.AppProtocol}").Order(StringComparer.Ordinal));

    private static string EndpointText(SliceEndpoint one) =>
        $"{string.Join(',', one.Addresses ?? [])}|{one.Conditions?.Ready}|{one.Conditions?.Serving}|{one.Conditions?.Terminating}|{one.Hostname}|{one.NodeName}"
        + $"|{one.Zone}|{string.Join(',', (one.Hints?.ForZones ?? []).Select(zone => zone.Name))}";

    private static string MapText(IReadOnlyDictionary<string, string>? map) =>
        string.Join('\n', (map ?? new Dictionary<string, string>()).Select(pair => $"{pair.Key}={pair.Value}").Order(StringComparer.Ordinal));
}

/// <param name="AddressType">IPv4 or IPv6, as the one address of <paramref name="Endpoint"/> is.</param>
internal readonly record struct WantedEndpoint(string AddressType, SliceEndpoint Endpoint, IReadOnlyList<SlicePort> Ports);
