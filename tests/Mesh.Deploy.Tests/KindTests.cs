using Mesh.TestKit;
using Xunit;

namespace Mesh.Deploy.Tests;

/// <summary>The script of the two kind clusters, with stand-ins of all programs that it calls: what it asks of them, the first time and when it is run
/// again over clusters that stand.</summary>
public sealed class KindTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory("mesh-kind-").FullName;

    public KindTests()
    {
        foreach (var file in new[] { "deploy/kind/two-clusters.sh", "deploy/helm/cilium/Chart.yaml" })
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(_root, file))!);
            File.Copy($"{Checkout.Root}/{file}", Path.Combine(_root, file));
        }
        Program("deploy/images/sbom.sh", "echo '{}'");
        Program("bin/docker", "");
        Program("bin/kubectl", "");
        Program("bin/kind",
            "case \"$1 $2\" in 'get clusters') cat clusters 2>/dev/null || true ;; 'create cluster') cat >/dev/null; echo $4 >>clusters ;; esac");
        Program("out/bin/mesh", "case $1 in install) touch installed-$3 ;; config) test -e installed-$4 ;; esac");
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    [Fact]
    public void It_installs_what_it_has_built_and_goes_on_where_it_ended()
    {
        var calls = Run();
        var version = Mesh.Install.Charts.Chart.OfThisProgram.AppVersion;
        // Built, loaded and asked for under one name: no value has to say it.
        foreach (var image in new[] { "agent", "apiserver", "operator" })
        {
            Assert.Contains($"docker build --quiet --target {image} --tag mesh/{image}:{version} --file deploy/images/Dockerfile .", calls);
            Assert.Contains($"kind load docker-image --name osaka mesh/{image}:{version}", calls);
        }
        Assert.DoesNotContain(calls, call => call.Contains("image.", StringComparison.Ordinal));
        Assert.Equal("mesh/agent", Mesh.Install.Charts.Chart.OfThisProgram.Values.At("image.repository"));
        Assert.Contains("mesh install --context kind-osaka --set cluster.name=osaka --set cluster.id=2 "
            + "--set ipam.operator.clusterPoolIPv4PodCIDRList={10.2.0.0/16}", calls);
        Assert.Equal("mesh connectivity test --context kind-tokyo --multi-cluster kind-osaka", calls[^1]);

        var again = Run();
        Assert.DoesNotContain(again, call => call.StartsWith("kind create", StringComparison.Ordinal)
            || call.StartsWith("mesh install", StringComparison.Ordinal));
        Assert.Equal(2, again.Count(call => call.StartsWith("mesh upgrade --context kind-", StringComparison.Ordinal)));
    }

    private List<string> Run()
    {
        File.Delete(Path.Combine(_root, "calls"));
        ChildThread.Run("sh", "-c", "PATH=\"$1/bin:$PATH\" \"$1/deploy/kind/two-clusters.sh\"", "sh", _root);
        return [.. File.ReadAllLines(Path.Combine(_root, "calls"))];
    }

    private void Program(string path, string body)
    {
        var file = Path.Combine(_root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        File.WriteAllText(file, $"#!/bin/sh\necho \"$(basename $0) $*\" >>calls\n{body}\n");
        File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }
}
