using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
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

    /// <summary>Helm writes YAML otherwise than `mesh`: a mark that followed from the text would restart every agent when the cilium CLI changed
    /// what `mesh` installed. Of the same data, JSON with names in order is the same everywhere.</summary>
    [Theory]
    [InlineData("{}")]
    [InlineData("{cluster: {name: tokyo, id: 7}, devices: [eth0, eth1], extraConfig: {a: 'x <y> & z', tunnel-port: '8473'}}")]
    public void The_mark_of_the_configuration_follows_from_its_data_alone(string values)
    {
        var rendered = ChartRenderer.Render(Chart.OfThisProgram, YamlText.ParseMap(values, "values"), new("cilium", "kube-system"), ChartEnvironment.Nowhere);
        var data = (JsonObject)rendered.Find("ConfigMap", "cilium-config")!.Body["data"]!;
        var json = string.Join(',', data.OrderBy(line => line.Key, StringComparer.Ordinal).Select(line => $"\"{line.Key}\":\"{line.Value}\""));
        json = $"{{{json}}}".Replace("<", "\\u003c", StringComparison.Ordinal).Replace(">", "\\u003e", StringComparison.Ordinal)
            .Replace("&", "\\u0026", StringComparison.Ordinal);
        var mark = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(json)))[..16];
        foreach (var (kind, name) in new[] { ("DaemonSet", "cilium"), ("Deployment", "cilium-operator") })
        {
            var annotations = rendered.Find(kind, name)!.Body["spec"]!["template"]!["metadata"]!["annotations"]!;
            Assert.Equal(mark, (string?)annotations["mesh.cilium.io/config"]);
        }
    }

    private const string Head = "# Rendered from deploy/helm/cilium; a test compares them. To write it again after a change of the chart:\n"
        + "# MESH_WRITE_MANIFESTS=1 tests/Mesh.Install.Tests/bin/Debug/net10.0/Mesh.Install.Tests -class Mesh.Install.Tests.ManifestTests\n";
}
