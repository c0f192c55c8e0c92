using System.Text.Json;
using System.Text.RegularExpressions;
using Mesh.Cli;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Deploy.Tests;

public sealed partial class FilesTests
{
    [Theory]
    [InlineData("mesh-agent@.service")]
    [InlineData("mesh-apiserver.service")]
    public async Task A_unit_calls_a_command_that_there_is(string unit)
    {
        var line = File.ReadAllLines($"{Checkout.Root}/deploy/systemd/{unit}")
            .Single(text => text.StartsWith("ExecStart=/usr/bin/mesh ", StringComparison.Ordinal));
        var empty = Directory.CreateTempSubdirectory("mesh-unit-");
        try
        {
            var words = line["ExecStart=/usr/bin/mesh ".Length..].Replace("/var/lib/mesh", empty.FullName, StringComparison.Ordinal).Split(' ');
            var error = new StringWriter();
            Assert.Equal(1, await MeshCommand.RunAsync(words, TextWriter.Null, error));
            // It got as far as the cluster's directory: every word before was understood.
            Assert.Contains($"{empty.FullName} is no cluster yet", error.ToString(), StringComparison.Ordinal);
        }
        finally
        {
            empty.Delete(recursive: true);
        }
    }

    [Fact]
    public void Every_program_that_an_image_has_was_built_and_is_what_it_is_called()
    {
        var dockerfile = File.ReadAllText($"{Checkout.Root}/deploy/images/Dockerfile");
        var names = Linked().Matches(dockerfile).SelectMany(match => match.Groups[1].Value.Split(' '))
            .Concat(Named().Matches(dockerfile).Select(match => match.Groups[1].Value)).Distinct().ToList();
        Assert.Equal(["cilium", "cilium-dbg", "cilium-health", "clustermesh-apiserver", "mesh-agent", "mesh-operator"], names.Order(StringComparer.Ordinal));
        foreach (var name in names)
        {
            var usage = name switch
            {
                "mesh-agent" => "mesh-agent: programs one node's kernel",
                "clustermesh-apiserver" => "The clustermesh API server",
                "mesh-operator" => "Gives nodes their pod ranges",
                "cilium-health" => "How a node reaches the others",
                _ => "Mesh connects the pods and services",
            };
            Assert.Contains(usage, ChildThread.Run("bash", "-c", "exec -a \"$1\" \"$2\" --help", "bash", $"/usr/bin/{name}", Checkout.Program("mesh")),
                StringComparison.Ordinal);
        }
        // Where Cilium's CLI sends people whose relay is not connected.
        Assert.Contains("Names of peers", ChildThread.Run("bash", "-c", "exec -a clustermesh-apiserver \"$1\" kvstoremesh-dbg troubleshoot --help", "bash",
            Checkout.Program("mesh")), StringComparison.Ordinal);
        // A container runtime says what it wants in the environment.
        const string version = "echo '{\"cniVersion\":\"1.0.0\"}' | CNI_COMMAND=VERSION \"$1\"";
        Assert.Contains("supportedVersions", ChildThread.Run("sh", "-c", version, "sh", Checkout.Program("mesh-cni")), StringComparison.Ordinal);
    }

    [Fact]
    public void The_list_of_parts_names_packages_and_libraries()
    {
        using var parts = JsonDocument.Parse(ChildThread.Run($"{Checkout.Root}/deploy/images/sbom.sh"));
        var names = parts.RootElement.GetProperty("components").EnumerateArray().Select(part => part.GetProperty("purl").GetString()!).ToList();
        Assert.Contains(names, name => name.StartsWith("pkg:nuget/dotnet-etcd@", StringComparison.Ordinal));
        Assert.Contains(names, name => name.StartsWith("pkg:deb/debian/libbpf1@", StringComparison.Ordinal));
    }

    [GeneratedRegex("for name in ([a-z -]+); do ln -s mesh")]
    private static partial Regex Linked();

    [GeneratedRegex("COPY --from=programs /programs/mesh /usr/bin/([a-z-]+)\\n")]
    private static partial Regex Named();
}
