using System.Reflection;
using System.Text;
using Mesh.Install.Text;

namespace Mesh.Install.Charts;

/// <summary>
/// A Helm chart as files: Chart.yaml, values.yaml, values.schema.json and templates. Ours is deploy/helm/cilium, carried inside the
/// program; one that lies in a release record is read the same way.
/// </summary>
public sealed class Chart
{
    private const string Prefix = "chart/";

    private static readonly Lazy<Chart> Embedded = new(() => new Chart(EmbeddedFiles()));

    /// <param name="files">Path below the chart's directory → content.</param>
    /// <exception cref="InstallException">A file that makes a chart is missing or broken.</exception>
    public Chart(IReadOnlyDictionary<string, string> files)
    {
        Files = files;
        Metadata = YamlText.ParseMap(Required("Chart.yaml"), "Chart.yaml");
        Values = YamlText.ParseMap(Required("values.yaml"), "values.yaml");
        Schema = YamlText.ParseMap(Required("values.schema.json"), "values.schema.json");
    }

    /// <summary>The chart of this program.</summary>
    public static Chart OfThisProgram => Embedded.Value;

    public IReadOnlyDictionary<string, string> Files { get; }

    /// <summary>Chart.yaml.</summary>
    public Map Metadata { get; }

    /// <summary>What holds when nothing else is said.</summary>
    public Map Values { get; }

    /// <summary>JSON schema of the values.</summary>
    public Map Schema { get; }

    public string Name => (string)Metadata["name"]!;

    public string Version => (string)Metadata["version"]!;

    public string AppVersion => Tree.Print(Metadata["appVersion"]);

    /// <summary>Kubernetes that has all that the objects ask for, or later: Chart.yaml's ">= MAJOR.MINOR.0-0".</summary>
    public System.Version OldestKubernetes => System.Version.Parse(((string)Metadata["kubeVersion"]!).TrimStart('>', '=', ' ').Split('-')[0]);

    /// <summary>Names of the files below templates/, in order.</summary>
    public IEnumerable<string> Templates => Files.Keys.Where(file => file.StartsWith("templates/", StringComparison.Ordinal)).Order(StringComparer.Ordinal);

    private string Required(string file) =>
        Files.TryGetValue(file, out var text) ? text : throw new InstallException($"the chart has no {file}: it is not complete");

    private static SortedDictionary<string, string> EmbeddedFiles()
    {
        var assembly = Assembly.GetExecutingAssembly();
        var files = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var name in assembly.GetManifestResourceNames().Where(name => name.StartsWith(Prefix, StringComparison.Ordinal)))
        {
            using var reader = new StreamReader(assembly.GetManifestResourceStream(name)!, Encoding.UTF8);
            files[name[Prefix.Length..]] = reader.ReadToEnd();
        }
        return files;
    }
}
