using System.Globalization;
using Mesh.Kubernetes.Objects;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>
/// How a Service wants its backends chosen: everything that its annotations say about it, read strictly. Absence, "", <c>none</c>
/// in any case are one. What cannot be read is refused whole, so that a typing error never moves traffic.
/// </summary>
/// <param name="Affinity">Cilium's word, kept for display; <paramref name="Order"/> is what is followed.</param>
/// <param name="Order">Which clusters, in which order, with which weights.</param>
/// <param name="MinHealthy">Share of a cluster's backends that must live before it gives part of its traffic to the next group:
/// 0 (never: the next group is used only when nothing lives) to 1.</param>
/// <param name="PreferZone">Backends of the client node's zone first.</param>
/// <param name="SlowStart">For affinity local: how long a local side that begins from nothing shares with the others.</param>
public sealed record ServiceChoice(
    ServiceAffinity Affinity, ClusterOrder Order, double MinHealthy, bool PreferZone, TimeSpan SlowStart)
{
    public const string AffinityName = "service.cilium.io/affinity";
    public const string AffinityAlias = "io.cilium/service-affinity";
    public const string ClustersName = "mesh.cilium.io/clusters";
    public const string MinHealthyName = "mesh.cilium.io/min-healthy";
    public const string PreferZoneName = "mesh.cilium.io/prefer-zone";
    public const string SlowStartName = "mesh.cilium.io/slow-start";

    private const string Ours = "mesh.cilium.io/";

    /// <summary>The last is the operator's own note on Services that it derives.</summary>
    private static readonly string[] s_known = [ClustersName, MinHealthyName, PreferZoneName, SlowStartName, Ours + "applied"];

    private static readonly TimeSpan DefaultSlowStart = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan SlowStartMax = TimeSpan.FromHours(1);

    /// <summary>Nothing but Cilium's affinity: tiers alone say it, and no change elsewhere moves a backend between them.</summary>
    public bool IsPlain => MinHealthy == 0 && !PreferZone && (ReferenceEquals(Order, ClusterOrder.Together)
        || ReferenceEquals(Order, ClusterOrder.LocalFirst) || ReferenceEquals(Order, ClusterOrder.RemoteFirst));

    public static ServiceChoice Default { get; } = new(ServiceAffinity.None, ClusterOrder.Together, 0, false, DefaultSlowStart);

    /// <summary>False, with a sentence that names the annotation, its value and what may stand there, when one cannot be read.</summary>
    public static bool TryRead(ObjectMeta metadata, out ServiceChoice choice, out string problem)
    {
        choice = Default;
        problem = "";
        var name = AffinityName;
        try
        {
            if (metadata.Annotations?.Keys.Where(key => key.StartsWith(Ours, StringComparison.Ordinal) && !s_known.Contains(key)).Min() is { } unknown)
            {
                name = unknown;
                throw new FormatException($"there is no such annotation, only {string.Join(", ", s_known[..^1])}");
            }
            // The canonical name wins whenever it is present, even with "none".
            if (metadata.Annotations?.ContainsKey(AffinityName) != true)
                name = AffinityAlias;
            var affinity = ParseAffinity(Find(metadata, name));
            var order = affinity switch
            {
                ServiceAffinity.Local => ClusterOrder.LocalFirst,
                ServiceAffinity.Remote => ClusterOrder.RemoteFirst,
                _ => ClusterOrder.Together,
            };
            if (Find(metadata, name = ClustersName) is { } clusters)
                order = affinity == ServiceAffinity.None
                    ? ClusterOrder.Parse(clusters)
                    : throw new FormatException($"it excludes {AffinityName}: remove one of the two");
            var healthy = Find(metadata, name = MinHealthyName) is { } share ? ParseShare(share) : 0;
            var zone = Find(metadata, name = PreferZoneName) is { } prefer && ParseBool(prefer);
            var slow = Find(metadata, name = SlowStartName) is { } time ? ParseTime(time) : DefaultSlowStart;
            choice = new ServiceChoice(affinity, order, healthy, zone, slow);
            return true;
        }
        catch (FormatException exception)
        {
            problem = $"annotation {name}: \"{Shortened(metadata.Annotations![name])}\": {exception.Message}";
            return false;
        }
    }

    /// <summary>What is asked for, for people.</summary>
    public string Words()
    {
        var words = new List<string> { $"affinity {Affinity.ToString().ToLowerInvariant()}" };
        if (Affinity == ServiceAffinity.None && Order != ClusterOrder.Together)
            words.Add($"clusters {string.Join(" > ", Order.Groups.Select(group => string.Join(", ", group.Members.Select(
                member => member.Weight > 0 ? $"{member.Cluster}:{member.Weight}" : member.Cluster))))}");
        if (MinHealthy > 0)
            words.Add(string.Create(CultureInfo.InvariantCulture, $"min-healthy {MinHealthy * 100:0.##}%"));
        if (PreferZone)
            words.Add("prefer-zone");
        return string.Join(", ", words);
    }

    /// <summary>The value, or null when the annotation is absent, empty or says none.</summary>
    private static string? Find(ObjectMeta metadata, string name)
    {
        if (metadata.Annotations is not { } annotations || !annotations.TryGetValue(name, out var value))
            return null;
        var trimmed = value.Trim();
        return trimmed.Length == 0 || trimmed.Equals("none", StringComparison.OrdinalIgnoreCase) ? null : trimmed;
    }

    private static ServiceAffinity ParseAffinity(string? word) => word?.ToLowerInvariant() switch
    {
        null => ServiceAffinity.None,
        "local" => ServiceAffinity.Local,
        "remote" => ServiceAffinity.Remote,
        _ => throw new FormatException("must be local, remote or none"),
    };

    private static double ParseShare(string text) =>
        text.EndsWith('%') && double.TryParse(text.AsSpan(0, text.Length - 1).TrimEnd(), NumberStyles.AllowDecimalPoint,
            CultureInfo.InvariantCulture, out var percent) && percent is >= 0 and <= 100
            ? percent / 100
            : throw new FormatException("must be a percentage from 0% to 100%");

    private static bool ParseBool(string text) => text.ToLowerInvariant() switch
    {
        "true" => true,
        "false" => false,
        _ => throw new FormatException("must be true, false or none"),
    };

    private static TimeSpan ParseTime(string text)
    {
        if (text == "0")
            return TimeSpan.Zero;
        var unit = text.EndsWith('m') ? 60 : text.EndsWith('s') ? 1 : 0;
        if (unit == 0 || !int.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.None, CultureInfo.InvariantCulture, out var count)
            || count > SlowStartMax.TotalSeconds / unit)
            throw new FormatException("must be a time from 0s to 60m, such as 10s");
        return TimeSpan.FromSeconds((double)count * unit);
    }

    private static string Shortened(string value) => value.Length <= 80 ? value : value[..80] + "…";
}
