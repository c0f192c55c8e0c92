namespace Mesh.Agent.Publishing;

/// <summary>Who this agent is among all that ever ran: drawn once and kept in STATE_DIR/agent-id, so that a restart is told from another
/// node with the same name.</summary>
internal static class AgentName
{
    /// <exception cref="IOException">The directory cannot be written.</exception>
    public static string Of(string stateDirectory)
    {
        var path = Path.Combine(stateDirectory, "agent-id");
        if (File.Exists(path) && Guid.TryParse(File.ReadAllText(path).Trim(), out var known))
            return known.ToString("N");
        var drawn = Guid.NewGuid().ToString("N");
        Directory.CreateDirectory(stateDirectory);
        File.WriteAllText(path + ".new", drawn + "\n");
        File.Move(path + ".new", path, overwrite: true);
        return drawn;
    }
}
