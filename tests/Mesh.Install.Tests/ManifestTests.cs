using Mesh.Install.Charts;
using Mesh.Install.Text;
using Xunit;

namespace Mesh.Install.Tests;

/// <summary>deploy/kubernetes is what the chart renders to: who applies files and who installs get the same objects.</summary>
public class ManifestTests
{
    [Theory]
    [InlineData("cilium.yaml", "")]
    [InlineData("clustermesh.yaml", "clustermesh: {useAPIServer: true, apiserver: {tls: {auto: {enabled: false}}}}")]
    public void Manifests_are_what_the_chart_renders(string file, string values)
    {
        var path = $"deploy/kubernetes/{file}";
        var rendered = ChartRenderer.Render(Chart.OfThisProgram, YamlText.ParseMap(values, "values"), new("cilium", "kube-system"), ChartEnvironment.Nowhere)
            .Manifest("cilium");
        var text = Head + rendered;
        if (Environment.GetEnvironmentVariable("MESH_WRITE_MANIFESTS") == "1")
            File.WriteAllText(Path.Combine(Repository.Root, path), text);

        Assert.Equal(Repository.Read(path), text);
    }

    private const string Head = "# Rendered from deploy/helm/cilium; a test compares them. To write it again after a change of the chart:\n"
        + "# MESH_WRITE_MANIFESTS=1 tests/Mesh.Install.Tests/bin/Debug/net10.0/Mesh.Install.Tests -class Mesh.Install.Tests.ManifestTests\n";
}
