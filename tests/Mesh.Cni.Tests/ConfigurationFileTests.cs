using System.Text.Json;
using Mesh.Agent.Cni;
using Mesh.TestKit;
using Xunit;

namespace Mesh.Cni.Tests;

/// <summary>The files that the container runtime reads, and the plugin in its directory.</summary>
public sealed class ConfigurationFileTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-cni-conf-").FullName;
    private readonly List<string> _log = [];

    private string Own => Path.Combine(_directory, "05-cilium.conflist");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private NetworkConfiguration With(bool exclusive, bool portMap = false) =>
        new(new CniOptions { ConfigurationPath = Own, Exclusive = exclusive, PortMap = portMap }, "/var/run/cilium/cilium.sock", _log.Add);

    private string[] Files() => [.. Directory.GetFiles(_directory).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    [Fact]
    public void It_can_be_read_by_runtimes_of_every_age()
    {
        With(exclusive: true, portMap: true).Ensure();
        var json = JsonDocument.Parse(File.ReadAllText(Own)).RootElement;
        Assert.Equal("0.3.1", json.GetProperty("cniVersion").GetString());
        Assert.Contains("1.1.0", json.GetProperty("cniVersions").EnumerateArray().Select(version => version.GetString()));
        Assert.Equal(["cilium-cni", "portmap"], json.GetProperty("plugins").EnumerateArray().Select(plugin => plugin.GetProperty("type").GetString()));
        Assert.False(json.GetProperty("plugins")[0].TryGetProperty("agent-socket", out _));
    }

    [Fact]
    public void Others_are_put_aside_when_exclusive_and_left_alone_when_not()
    {
        File.WriteAllText(Path.Combine(_directory, "00-first.conf"), "{}");
        File.WriteAllText(Path.Combine(_directory, "10-other.conflist"), "{}");
        File.WriteAllText(Path.Combine(_directory, "README.txt"), "");
        With(exclusive: false).Ensure();
        Assert.Equal(["00-first.conf", "05-cilium.conflist", "10-other.conflist", "README.txt"], Files());
        With(exclusive: true).Ensure();
        Assert.Equal(["00-first.conf.cilium_bak", "05-cilium.conflist", "10-other.conflist.cilium_bak", "README.txt"], Files());
        // One that is written later, too.
        File.WriteAllText(Path.Combine(_directory, "20-late.json"), "{}");
        With(exclusive: true).Ensure();
        Assert.Contains("20-late.json.cilium_bak", Files());
        With(exclusive: false).Ensure();
        Assert.Equal(["00-first.conf", "05-cilium.conflist", "10-other.conflist", "20-late.json", "README.txt"], Files());
    }

    [Fact]
    public void What_somebody_removed_or_changed_is_written_again_and_what_is_right_is_not()
    {
        var configuration = With(exclusive: true);
        configuration.Ensure();
        var written = _log.Count;
        configuration.Ensure();
        Assert.Equal(written, _log.Count);
        File.Delete(Own);
        configuration.Ensure();
        Assert.Equal(written + 1, _log.Count);
        Assert.True(File.Exists(Own));
    }

    [Fact]
    public void A_directory_that_cannot_be_written_is_told_once_and_tried_again()
    {
        File.WriteAllText(Path.Combine(_directory, "file"), "");
        var configuration = new NetworkConfiguration(
            new CniOptions { ConfigurationPath = Path.Combine(_directory, "file", "05-cilium.conflist") }, "/run/agent.sock", _log.Add);
        configuration.Ensure();
        configuration.Ensure();
        Assert.Single(_log);
        Assert.Contains("--write-cni-conf-when-ready", configuration.Problem, StringComparison.Ordinal);
        File.Delete(Path.Combine(_directory, "file"));
        configuration.Ensure();
        Assert.Null(configuration.Problem);
    }

    [Fact]
    public void Installed_while_it_is_called_and_uninstalled_with_the_others_back_in_their_place()
    {
        var plugin = Path.Combine(AppContext.BaseDirectory, "mesh-cni");
        var bin = Path.Combine(_directory, "bin");
        var confs = Directory.CreateDirectory(Path.Combine(_directory, "net.d")).FullName;
        ChildThread.Run(plugin, "install", "--cni-bin-dir", bin);
        using (File.OpenRead(Path.Combine(bin, "cilium-cni")))
            ChildThread.Run(plugin, "install", $"--cni-bin-dir={bin}");
        Assert.Equal(File.ReadAllBytes(plugin), File.ReadAllBytes(Path.Combine(bin, "cilium-cni")));
        Assert.True(File.GetUnixFileMode(Path.Combine(bin, "cilium-cni")).HasFlag(UnixFileMode.OtherExecute));
        Assert.Equal(["cilium-cni"], Directory.GetFiles(bin).Select(Path.GetFileName));

        File.WriteAllText(Path.Combine(confs, "05-cilium.conflist"), "{}");
        File.WriteAllText(Path.Combine(confs, "10-other.conflist.cilium_bak"), "{}");
        ChildThread.Run(plugin, "uninstall", "--cni-bin-dir", bin, "--cni-conf-dir", confs);
        Assert.Equal(["10-other.conflist"], Directory.GetFiles(confs).Select(Path.GetFileName));
        Assert.Empty(Directory.GetFiles(bin));
        Assert.Throws<InvalidOperationException>(() => ChildThread.Run(plugin, "install", "--cni-bin-dri", bin));
    }
}
