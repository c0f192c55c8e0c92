namespace Mesh.ClusterMesh.ApiServer.Converters;

/// <summary>What one object is to the other clusters: its keys and values, and why something of it stays at home.</summary>
/// <param name="Records">Empty when nothing is published.</param>
/// <param name="Problem">What must be mended; null when all is well, also when nothing is to be published.</param>
internal readonly record struct Publishable(IReadOnlyList<EtcdRecord> Records, string? Problem)
{
    public static readonly Publishable Nothing = new([], null);

    public static Publishable One(string key, byte[] value) => new([new EtcdRecord(key, value)], null);

    public static Publishable Refused(string problem) => new([], problem);
}

internal readonly record struct EtcdRecord(string Key, byte[] Value);
