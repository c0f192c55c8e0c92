using System.Globalization;
using Mesh.ClusterMesh.Wire;

namespace Mesh.Multicluster;

/// <param name="Reason">One word, as condition Conflict has it.</param>
/// <param name="Message">Whose value holds and whose does not.</param>
public sealed record ExportConflict(string Reason, string Message);

/// <summary>
/// The exports of all clusters as one service. Every cluster merges for itself and comes to the same: the oldest export is right wherever two
/// disagree (of two equally old ones that of the first cluster by name), ports are those of all, IP families those that all have.
/// </summary>
public sealed record MergedExport
{
    private const uint DefaultAffinity = 10_800;

    private MergedExport(ExportedService oldest, IReadOnlyList<ExportedPort> ports, IReadOnlyList<string> families, IReadOnlyList<string> clusters,
        IReadOnlyList<ExportConflict> conflicts) =>
        (Oldest, Ports, IpFamilies, Clusters, Conflicts) = (oldest, ports, families, clusters, conflicts);

    /// <summary>Right about everything but ports and families.</summary>
    public ExportedService Oldest { get; }

    /// <summary>In the order of age of the exports that bring them.</summary>
    public IReadOnlyList<ExportedPort> Ports { get; }

    /// <summary>Empty when nobody says.</summary>
    public IReadOnlyList<string> IpFamilies { get; }

    /// <summary>Those that export it, by name.</summary>
    public IReadOnlyList<string> Clusters { get; }

    /// <summary>The gravest first.</summary>
    public IReadOnlyList<ExportConflict> Conflicts { get; }

    /// <summary>As the oldest has them, without those that another cluster must not set.</summary>
    public IReadOnlyDictionary<string, string> Labels => Allowed(Oldest.Labels);

    public IReadOnlyDictionary<string, string> Annotations => Allowed(Oldest.Annotations);

    /// <param name="exports">Of one service, one for each cluster; at least one.</param>
    public static MergedExport Of(IEnumerable<ExportedService> exports)
    {
        var byAge = exports.OrderBy(export => export.Created).ThenBy(export => export.Cluster, StringComparer.Ordinal).ToList();
        var oldest = byAge[0];
        var conflicts = new List<ExportConflict>();
        var ports = UnionOfPorts(byAge, conflicts);
        Compare(byAge, "TypeConflict", "type", export => export.Headless ? "Headless" : "ClusterSetIP", conflicts);
        Compare(byAge, "SessionAffinityConflict", "sessionAffinity", export => export.ClientIPAffinity ? "ClientIP" : "None", conflicts);
        if (oldest.ClientIPAffinity)
            Compare([.. byAge.Where(export => export.ClientIPAffinity)], "SessionAffinityConfigConflict", "sessionAffinityConfig timeout",
                export => (export.AffinityTimeout ?? DefaultAffinity).ToString(CultureInfo.InvariantCulture), conflicts);
        var families = Families(byAge, conflicts);
        // Peers of 1.18 and before do not say these at all; they are known by their lack of families.
        var saying = byAge.Where(export => export.IpFamilies.Count > 0 || export == oldest).ToList();
        Compare(saying, "InternalTrafficPolicyConflict", "internalTrafficPolicy", export => export.InternalTrafficPolicy ?? "Cluster", conflicts);
        Compare(saying, "TrafficDistributionConflict", "trafficDistribution", export => export.TrafficDistribution ?? "none", conflicts);
        Compare(byAge, "LabelsConflict", "labels", export => Text(export.Labels), conflicts);
        Compare(byAge, "AnnotationsConflict", "annotations", export => Text(export.Annotations), conflicts);
        return new MergedExport(oldest, ports, families, [.. byAge.Select(export => export.Cluster).Order(StringComparer.Ordinal)], conflicts);
    }

    private static List<ExportedPort> UnionOfPorts(List<ExportedService> byAge, List<ExportConflict> conflicts)
    {
        var ports = new List<(ExportedPort Port, string Cluster)>();
        var refused = new List<string>();
        foreach (var export in byAge)
        {
            foreach (var port in export.Ports.Where(port => !ports.Exists(held => held.Port == port)))
            {
                // A Service may have neither two ports of one name, nor two of one number, nor one without name beside others.
                var held = ports.FirstOrDefault(held => held.Port.Name == port.Name || (held.Port.Protocol == port.Protocol && held.Port.Port == port.Port)
                    || held.Port.Name.Length == 0 || port.Name.Length == 0);
                if (held.Cluster is null)
                    ports.Add((port, export.Cluster));
                else if (held.Cluster != export.Cluster)
                    refused.Add($"{Text(port)} of {export.Cluster} beside {Text(held.Port)} of {held.Cluster}, which holds");
                else
                    ports.Add((port, export.Cluster));
            }
        }
        if (refused.Count > 0)
            conflicts.Add(new ExportConflict("PortConflict", $"ports: {string.Join("; ", refused)}"));
        return [.. ports.Select(held => held.Port)];
    }

    private static List<string> Families(List<ExportedService> byAge, List<ExportConflict> conflicts)
    {
        var families = new List<string>();
        var refused = new List<string>();
        foreach (var export in byAge.Where(export => export.IpFamilies.Count > 0))
        {
            var common = families.Count == 0 ? [.. export.IpFamilies] : families.Where(export.IpFamilies.Contains).ToList();
            if (common.Count == 0)
                refused.Add($"{string.Join(" and ", export.IpFamilies)} of {export.Cluster}");
            else
                families = common;
        }
        if (refused.Count > 0)
            conflicts.Add(new ExportConflict("IPFamilyConflict", $"ipFamilies: {string.Join(" and ", families)} hold, not {string.Join(", ", refused)}"));
        return families;
    }

    private static void Compare(List<ExportedService> byAge, string reason, string field, Func<ExportedService, string> value, List<ExportConflict> conflicts)
    {
        var holding = value(byAge[0]);
        var others = byAge.Where(export => value(export) != holding).Select(export => $"{value(export)} of {export.Cluster}").ToList();
        if (others.Count > 0)
            conflicts.Add(new ExportConflict(reason, $"{field}: {holding} of {byAge[0].Cluster} holds, the oldest, not {string.Join(", ", others)}"));
    }

    private static string Text(ExportedPort port) => $"{(port.Name.Length == 0 ? "port" : port.Name)} {port.Protocol} {port.Port}"
        + (port.AppProtocol is null ? "" : $" ({port.AppProtocol})");

    private static string Text(IReadOnlyDictionary<string, string> map) =>
        $"{{{string.Join(", ", map.OrderBy(pair => pair.Key, StringComparer.Ordinal).Select(pair => $"{pair.Key}={pair.Value}"))}}}";

    private static Dictionary<string, string> Allowed(IReadOnlyDictionary<string, string> map) =>
        map.Where(pair => !MulticlusterNames.IsReserved(pair.Key)).ToDictionary(StringComparer.Ordinal);
}
