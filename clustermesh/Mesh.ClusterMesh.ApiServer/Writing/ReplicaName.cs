namespace Mesh.ClusterMesh.ApiServer.Writing;

/// <summary>
/// What this replica is called among those that might write. With a state directory it keeps its name over a restart, so that it need
/// not wait for the lease of its own former life; the directory is locked, so that no two replicas bear one name.
/// </summary>
internal sealed class ReplicaName : IDisposable
{
    private readonly FileStream? _lock;

    private ReplicaName(string value, FileStream? exclusive) => (Value, _lock) = (value, exclusive);

    public string Value { get; }

    /// <exception cref="IOException">The directory cannot be used, or another replica uses it. The message says which.</exception>
    public static ReplicaName Of(string? stateDirectory)
    {
        var fresh = $"{Environment.MachineName}-{Guid.NewGuid().ToString("N")[..8]}";
        if (stateDirectory is null)
            return new ReplicaName(fresh, null);
        Directory.CreateDirectory(stateDirectory);
        FileStream file;
        try
        {
            file = new FileStream(Path.Combine(stateDirectory, "replica"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException e)
        {
            throw new IOException($"--state-dir {stateDirectory} is in use by another API server: give this one another", e);
        }
        using var reader = new StreamReader(file, leaveOpen: true);
        if (reader.ReadToEnd().Trim() is { Length: > 0 } known)
            return new ReplicaName(known, file);
        using var writer = new StreamWriter(file, leaveOpen: true);
        writer.Write(fresh);
        return new ReplicaName(fresh, file);
    }

    public void Dispose() => _lock?.Dispose();
}
