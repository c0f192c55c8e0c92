using System.Text.RegularExpressions;
using System.Xml.Linq;
using Xunit;

namespace Mesh.Tidy.Tests;

/// <summary>The arrows between projects are those drawn in the root README, no more and no fewer, and none points back.</summary>
public partial class ReferenceGraphTests
{
    [GeneratedRegex("^(?<from>Mesh[.A-Za-z]*) *→ *(?<to>.*)$", RegexOptions.Multiline)]
    private static partial Regex Arrow();

    private static SortedDictionary<string, SortedSet<string>> Drawn()
    {
        var readme = File.ReadAllText(Path.Combine(Repository.Root, "README.md"));
        var block = readme.Split("```references\n")[1].Split("```")[0];
        var arrows = new SortedDictionary<string, SortedSet<string>>(StringComparer.Ordinal);
        foreach (Match match in Arrow().Matches(block))
            arrows[match.Groups["from"].Value] = new(match.Groups["to"].Value.Split(' ', StringSplitOptions.RemoveEmptyEntries)
                .Where(name => name != "·").Select(name => $"Mesh.{name}"), StringComparer.Ordinal);
        return arrows;
    }

    private static SortedDictionary<string, SortedSet<string>> Built()
    {
        var arrows = new SortedDictionary<string, SortedSet<string>>(StringComparer.Ordinal);
        foreach (var file in Repository.Files("*.csproj", "src", "clustermesh"))
            arrows[Path.GetFileNameWithoutExtension(file)] = new(XDocument.Load(file).Descendants("ProjectReference")
                .Select(reference => Path.GetFileNameWithoutExtension(reference.Attribute("Include")!.Value.Replace('\\', '/'))), StringComparer.Ordinal);
        return arrows;
    }

    private static string Text(SortedDictionary<string, SortedSet<string>> arrows) =>
        string.Join('\n', arrows.Select(pair => $"{pair.Key} → {string.Join(' ', pair.Value)}"));

    [Fact]
    public void The_projects_refer_to_each_other_as_the_README_draws() => Assert.Equal(Text(Drawn()), Text(Built()));

    /// <summary>What a program asks of the runtime does not come with a reference to it.</summary>
    [Fact]
    public void The_program_that_is_all_others_asks_of_the_runtime_what_they_ask()
    {
        var program = Path.Combine(Repository.Root, "deploy", "program", "Mesh.Program.csproj");
        static IEnumerable<string> Options(string file) => XDocument.Load(file).Descendants("RuntimeHostConfigurationOption")
            .Select(option => $"{option.Attribute("Include")!.Value}={option.Attribute("Value")!.Value}");
        var asked = XDocument.Load(program).Descendants("ProjectReference")
            .Select(reference => Path.GetFullPath(reference.Attribute("Include")!.Value, Path.GetDirectoryName(program)!)).SelectMany(Options).Distinct();
        Assert.Equal(string.Join('\n', asked.Order(StringComparer.Ordinal)), string.Join('\n', Options(program).Order(StringComparer.Ordinal)));
    }

    [Fact]
    public void No_reference_points_back()
    {
        var arrows = Built();
        var finished = new HashSet<string>();
        void Visit(string project, List<string> path)
        {
            Assert.False(path.Contains(project), $"a circle: {string.Join(" → ", path)} → {project}");
            if (finished.Contains(project))
                return;
            foreach (var next in arrows[project])
                Visit(next, [.. path, project]);
            finished.Add(project);
        }
        foreach (var project in arrows.Keys)
            Visit(project, []);
    }

    [Fact]
    public void The_generic_tools_refer_to_nothing_of_ours()
    {
        var arrows = Built();
        Assert.All(["Mesh.Model", "Mesh.StateDB", "Mesh.KVStore", "Mesh.Bpf", "Mesh.Pki"], tool => Assert.Empty(arrows[tool]));
    }

    [Fact]
    public void Nothing_in_src_refers_to_clustermesh() =>
        Assert.All(Repository.Files("*.csproj", "src"), file => Assert.DoesNotContain("clustermesh/", File.ReadAllText(file)));
}
