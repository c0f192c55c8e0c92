using System.Text.Json;
using Mesh.AgentApi;

namespace Mesh.Agent.Start;

/// <summary>STATE_DIR/agent-runtime-config.json, written at each start for those who look into the pod: see <see cref="RuntimeConfiguration"/>.</summary>
internal static class RuntimeConfigurationFile
{
    /// <exception cref="IOException">The state directory takes no file.</exception>
    public static void Write(AgentOptions options)
    {
        Directory.CreateDirectory(options.StateDirectory);
        var path = Path.Combine(options.StateDirectory, RuntimeConfiguration.FileName);
        File.WriteAllBytes(path + ".new", JsonSerializer.SerializeToUtf8Bytes(Of(options), AgentApiJson.Indented.RuntimeConfiguration));
        File.Move(path + ".new", path, overwrite: true);
    }

    internal static RuntimeConfiguration Of(AgentOptions options) => new()
    {
        ClusterName = options.Cluster.Name,
        ClusterId = options.Cluster.Id,
        EnableIPv4Masquerade = options.Masquerade.IPv4,
        EnableIPv6Masquerade = options.Masquerade.IPv6,
    };
}
