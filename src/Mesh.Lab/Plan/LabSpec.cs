using System.Text.RegularExpressions;

namespace Mesh.Lab.Plan;

/// <summary>What was asked of `lab up`.</summary>
/// <param name="Pods">Per node.</param>
public sealed partial record LabSpec(string Name, int Clusters, int Nodes, int Pods)
{
    /// <summary>Connect the clusters, each two by a token.</summary>
    public bool Connected { get; init; } = true;

    /// <summary>Agents read the peers' doors themselves, and there is no relay.</summary>
    public bool Direct { get; init; }

    public const string DefaultName = "lab";
    public const string LabsRoot = "/run/mesh/labs";
    public const int ClustersMax = 8;
    public const int NodesMax = 16;

    /// <summary>Pods per node.</summary>
    public const int PodsMax = 32;

    private static readonly string[] CityNames = ["tokyo", "osaka", "nagoya"];

    [GeneratedRegex(@"\A[a-z][a-z0-9]{0,11}\z")]
    private static partial Regex SimpleName();

    /// <summary>Root directory of a lab.</summary>
    /// <exception cref="LabException">The name is not simple: it would end up in paths and names that are deleted later.</exception>
    public static string RootOf(string name) => SimpleName().IsMatch(name)
        ? $"{LabsRoot}/{name}"
        : throw new LabException($"lab name '{name}' must have 1 to 12 characters a-z and 0-9, the first a letter");

    /// <exception cref="LabException">A number is out of range; says which and what is allowed.</exception>
    public void Validate()
    {
        RootOf(Name);
        Within("--clusters", Clusters, ClustersMax);
        Within("--nodes", Nodes, NodesMax);
        Within("--pods", Pods, PodsMax);
    }

    public static string ClusterName(int id) => id <= CityNames.Length ? CityNames[id - 1] : $"cluster-{id}";

    private static void Within(string flag, int value, int max)
    {
        if (value < 1 || value > max)
            throw new LabException($"{flag} {value}: must be 1 to {max}");
    }
}
