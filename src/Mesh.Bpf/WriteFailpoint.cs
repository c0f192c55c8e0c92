namespace Mesh.Bpf;

/// <summary>
/// Where a test stops a writer: called by the calling thread before each store into a map, be it a system call or a store into mapped
/// memory, with the map's name. Batches are then written one by one, so that there is a place between any two elements.
/// </summary>
internal static class WriteFailpoint
{
    [ThreadStatic]
    private static Action<string>? t_before;

    /// <summary>Of this thread; null outside of tests.</summary>
    internal static Action<string>? Before
    {
        get => t_before;
        set => t_before = value;
    }

    internal static void At(string map) => t_before?.Invoke(map);
}
