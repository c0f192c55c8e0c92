using System.Text;
using Mesh.Install.Charts.Templates;
using Mesh.Install.Objects;
using Mesh.Install.Text;
using Mesh.Install.Values;

namespace Mesh.Install.Charts;

/// <summary>
/// Values in, Kubernetes objects out: what `helm template` does, for charts that keep to the subset of Templates/TemplateParser.
/// The values are checked before anything is rendered.
/// </summary>
public static class ChartRenderer
{
    /// <param name="given">What differs from the chart's own values.</param>
    /// <exception cref="InstallException">A value is unknown or wrong (all of them are told), or a template cannot be executed.</exception>
    public static Rendering Render(Chart chart, Map given, ReleaseIdentity release, IChartEnvironment environment)
    {
        ValueCheck.ThrowIfWrong(chart, given);
        return RenderUnchecked(chart, given.Plain(), release, environment);
    }

    internal static Rendering RenderUnchecked(Chart chart, Map given, ReleaseIdentity release, IChartEnvironment environment)
    {
        try
        {
            var defined = new Dictionary<string, (string, IReadOnlyList<Node>)>(StringComparer.Ordinal);
            var bodies = new List<(string File, IReadOnlyList<Node> Body)>();
            foreach (var file in chart.Templates)
            {
                var (body, names) = TemplateParser.Parse(file, chart.Files[file]);
                foreach (var (name, template) in names)
                {
                    if (!defined.TryAdd(name, (file, template)))
                        throw new InstallException($"{file}: \"{name}\" is defined twice in the chart");
                }
                // A file that begins with _ only defines.
                if (!Path.GetFileName(file).StartsWith('_'))
                    bodies.Add((file, body));
            }
            var dot = new Map
            {
                ["Values"] = chart.Values.With(given),
                ["Release"] = release.ToMap(),
                ["Chart"] = new Map { ["Name"] = chart.Name, ["Version"] = chart.Version, ["AppVersion"] = chart.AppVersion },
            };
            var run = new TemplateRun(defined, environment);
            return new Rendering([.. bodies.SelectMany(template => Objects(template.File, run.Render(template.File, template.Body, dot)))
                .OrderBy(rendered => InstallOrder.Of(rendered.Object.Kind)).ThenBy(rendered => rendered.Object.Kind, StringComparer.Ordinal)
                .ThenBy(rendered => rendered.Object.Name, StringComparer.Ordinal)]);
        }
        catch (TemplateException e)
        {
            throw new InstallException($"the chart cannot be rendered: {e.Message}", e);
        }
    }

    private static IEnumerable<RenderedObject> Objects(string file, string text)
    {
        foreach (var document in YamlText.Documents(text))
            yield return new RenderedObject(file, document.Trim('\n') + "\n", KubeObject.Parse(document, file));
    }
}

/// <summary>What a chart became, in the order in which it is applied.</summary>
public sealed record Rendering(IReadOnlyList<RenderedObject> Objects)
{
    public KubeObject? Find(string kind, string name) =>
        Objects.FirstOrDefault(rendered => rendered.Object.Kind == kind && rendered.Object.Name == name)?.Object;

    /// <summary>As Helm keeps it: every document behind the name of its template.</summary>
    public string Manifest(string chart)
    {
        var text = new StringBuilder();
        foreach (var rendered in Objects)
            text.Append("---\n# Source: ").Append(chart).Append('/').Append(rendered.Template).Append('\n').Append(rendered.Document);
        return text.ToString();
    }
}

/// <param name="Template">File of the chart.</param>
/// <param name="Document">YAML, with the template's comments.</param>
public sealed record RenderedObject(string Template, string Document, KubeObject Object);

/// <summary>What templates know of the release they belong to.</summary>
/// <param name="Revision">1 for the installation, one more with each upgrade.</param>
public sealed record ReleaseIdentity(string Name, string Namespace, int Revision = 1)
{
    public Map ToMap() => new()
    {
        ["Name"] = Name,
        ["Namespace"] = Namespace,
        ["Revision"] = (long)Revision,
        ["IsInstall"] = Revision == 1,
        ["IsUpgrade"] = Revision > 1,
        ["Service"] = "Helm",
    };
}
