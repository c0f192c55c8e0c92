using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.Agent.Cni;

/// <summary>
/// The network configuration list on the node: written when pods can be added, kept as it should be while the agent runs, and never
/// removed by it: with the file gone the node would be not ready, and running pods could not be taken down. `mesh-cni uninstall` removes it.
/// Runtimes of every age read it: the version named first is the oldest that has lists, the others stand beside it.
/// </summary>
internal sealed class NetworkConfiguration(CniOptions options, string socketPath, Action<string> log)
{
    /// <summary>Added to the name of another network's configuration that has been put aside.</summary>
    public const string AsideExtension = ".cilium_bak";

    private const string PluginType = "cilium-cni";
    private static readonly string[] Versions = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    private readonly byte[] _content = Content(options, socketPath);
    private string? _told;

    /// <summary>Null while all is as it should be.</summary>
    public string? Problem { get; private set; }

    public static byte[] Content(CniOptions options, string socketPath)
    {
        using var stream = new MemoryStream();
        using (var json = new Utf8JsonWriter(stream, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            json.WriteString("cniVersion", Versions[0]);
            json.WriteStartArray("cniVersions");
            foreach (var version in Versions)
                json.WriteStringValue(version);
            json.WriteEndArray();
            json.WriteString("name", "cilium");
            json.WriteStartArray("plugins");
            json.WriteStartObject();
            json.WriteString("type", PluginType);
            if (socketPath != AgentClient.DefaultSocketPath)
                json.WriteString("agent-socket", Path.GetFullPath(socketPath));
            json.WriteEndObject();
            if (options.PortMap)
            {
                json.WriteStartObject();
                json.WriteString("type", "portmap");
                json.WriteStartObject("capabilities");
                json.WriteBoolean("portMappings", true);
                json.WriteEndObject();
                json.WriteEndObject();
            }
            json.WriteEndArray();
            json.WriteEndObject();
        }
        stream.Write("\n"u8);
        return stream.ToArray();
    }

    /// <summary>Writes the file if it is not there or another, and puts the others aside or back. What cannot be done is told once, and
    /// tried again at the next call.</summary>
    public void Ensure()
    {
        if (options.ConfigurationPath is not { } path)
            return;
        try
        {
            var directory = Path.GetDirectoryName(Path.GetFullPath(path))!;
            Directory.CreateDirectory(directory);
            if (!File.Exists(path) || !File.ReadAllBytes(path).AsSpan().SequenceEqual(_content))
            {
                // Its extension is none that a runtime reads; renamed, it is there whole or not at all.
                var aside = Path.Combine(directory, $".{Path.GetFileName(path)}.new");
                File.WriteAllBytes(aside, _content);
                File.Move(aside, path, overwrite: true);
                log($"{path} written: the container runtime may add pods");
            }
            // Only after ours is there: the node always has one network.
            foreach (var other in options.Exclusive ? Others(directory, path) : [])
            {
                File.Move(other, other + AsideExtension, overwrite: true);
                log($"{other} belongs to another network: renamed to {Path.GetFileName(other)}{AsideExtension} (--cni-exclusive=false leaves it)");
            }
            if (!options.Exclusive)
                RestoreOthers(directory, log);
            Problem = _told = null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            Problem = $"--write-cni-conf-when-ready {path}: {e.Message}: the container runtime of this node does not know the network";
            if (Problem != _told)
                log(Problem);
            _told = Problem;
        }
    }

    /// <summary>Gives the configurations that were put aside their names back, unless something else has the name by now.</summary>
    public static void RestoreOthers(string directory, Action<string> log)
    {
        foreach (var aside in Directory.EnumerateFiles(directory, "*" + AsideExtension))
        {
            var name = aside[..^AsideExtension.Length];
            if (File.Exists(name))
                continue;
            File.Move(aside, name);
            log($"{name} given back its name");
        }
    }

    private static List<string> Others(string directory, string own) => [.. Directory.EnumerateFiles(directory)
        .Where(file => Path.GetExtension(file) is ".conf" or ".conflist" or ".json"
            && Path.GetFileName(file) != Path.GetFileName(own) && !Path.GetFileName(file).StartsWith('.'))];
}
