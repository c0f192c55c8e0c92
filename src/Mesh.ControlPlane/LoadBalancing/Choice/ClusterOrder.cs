using System.Globalization;
using Mesh.Model;

namespace Mesh.ControlPlane.LoadBalancing.Choice;

/// <summary>
/// The order in which clusters are asked, as the annotation <c>mesh.cilium.io/clusters</c> writes it:
/// <c>tokyo:80, osaka:20 &gt; kyoto &gt; *</c>. Groups are separated by &gt; and used one after another; members of a group share by
/// their weights (1 to 1000, all of a group or none of it; none = by their backends). <c>local</c> is the own cluster, <c>*</c>
/// whatever is not named, alone in the last group. A cluster that is neither named nor covered by * is not used.
/// </summary>
public sealed record ClusterOrder(EquatableArray<ClusterGroup> Groups)
{
    /// <summary>The member that stands for the own cluster.</summary>
    public const string Local = "local";

    /// <summary>The member that stands for every cluster not named.</summary>
    public const string Others = "*";

    public const int WeightMax = 1000;

    private const int GroupsMax = 16;

    /// <summary>The own cluster first, then all others: what affinity local means.</summary>
    public static ClusterOrder LocalFirst { get; } = Of([Local], [Others]);

    /// <summary>All others first, then the own cluster: affinity remote.</summary>
    public static ClusterOrder RemoteFirst { get; } = Of([Others], [Local]);

    /// <summary>All clusters together: affinity none.</summary>
    public static ClusterOrder Together { get; } = Of([Local, Others]);

    /// <exception cref="FormatException">Says which member is wrong and what may stand there.</exception>
    public static ClusterOrder Parse(string text)
    {
        var groups = new List<ClusterGroup>();
        var named = new HashSet<string>(StringComparer.Ordinal);
        foreach (var part in text.Split('>'))
        {
            var members = part.Split(',').Select(member => ParseMember(member.Trim())).ToList();
            foreach (var member in members)
                if (!named.Add(member.Cluster))
                    throw new FormatException($"\"{member.Cluster}\" is named twice: name each cluster once");
            if (members.Exists(member => member.Weight > 0) && members.Exists(member => member.Weight == 0))
                throw new FormatException(
                    $"\"{part.Trim()}\": give all clusters of a group a weight (name:1 to name:{WeightMax}) or none of them");
            groups.Add(new ClusterGroup(new EquatableArray<ClusterShare>(members)));
        }
        if (groups.Count > GroupsMax)
            throw new FormatException($"{groups.Count} groups: at most {GroupsMax}");
        var others = groups.FindIndex(group => group.Members.Any(member => member.Cluster == Others));
        if (others >= 0 && others != groups.Count - 1)
            throw new FormatException("\"*\" (every cluster not named) can only stand in the last group");
        return new ClusterOrder(new EquatableArray<ClusterGroup>(groups));
    }

    /// <summary>May the cluster be used at all?</summary>
    public bool Covers(string cluster, bool isLocal)
    {
        foreach (var group in Groups)
            foreach (var member in group.Members)
                if (member.Cluster == Others || member.Cluster == cluster || (isLocal && member.Cluster == Local))
                    return true;
        return false;
    }

    private static ClusterShare ParseMember(string text)
    {
        var colon = text.IndexOf(':', StringComparison.Ordinal);
        var name = colon < 0 ? text : text[..colon].TrimEnd();
        if (name != Others && !IsClusterName(name))
            throw new FormatException($"\"{text}\": a cluster's name, local or * must stand here, perhaps with :weight");
        if (colon < 0)
            return new ClusterShare(name, 0);
        return int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var weight)
            && weight is >= 1 and <= WeightMax
            ? new ClusterShare(name, weight)
            : throw new FormatException($"\"{text}\": the weight must be a whole number from 1 to {WeightMax}");
    }

    private static bool IsClusterName(string name) =>
        name.Length is > 0 and <= 32 && name.All(c => c is (>= 'a' and <= 'z') or (>= '0' and <= '9') or '-')
        && name[0] != '-' && name[^1] != '-';

    private static ClusterOrder Of(params string[][] groups) => new(new EquatableArray<ClusterGroup>(groups.Select(
        group => new ClusterGroup(new EquatableArray<ClusterShare>(group.Select(name => new ClusterShare(name, 0)))))));
}

/// <summary>Clusters used at the same time.</summary>
public readonly record struct ClusterGroup(EquatableArray<ClusterShare> Members);

/// <param name="Cluster">A cluster's name, <see cref="ClusterOrder.Local"/> or <see cref="ClusterOrder.Others"/>.</param>
/// <param name="Weight">0 = by the number of backends.</param>
public readonly record struct ClusterShare(string Cluster, int Weight);
