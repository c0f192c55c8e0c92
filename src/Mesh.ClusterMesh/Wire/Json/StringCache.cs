using System.Text;

namespace Mesh.ClusterMesh.Wire.Json;

/// <summary>Gives equal short texts the same string object: 200,000 ipcache entries name a few hundred nodes and namespaces.
/// Direct-mapped and of fixed size: a collision costs an allocation, never memory. Not for use by several threads at once.</summary>
internal sealed class StringCache
{
    private const int Slots = 4096;
    private const int LongestCached = 64;

    private readonly string?[] _slots = new string?[Slots];

    public string Get(ReadOnlySpan<byte> utf8)
    {
        if (utf8.IsEmpty)
            return "";
        if (utf8.Length > LongestCached)
            return Encoding.UTF8.GetString(utf8);
        var hash = new HashCode();
        hash.AddBytes(utf8);
        ref var slot = ref _slots[hash.ToHashCode() & Slots - 1];
        if (slot is null || !Ascii.Equals(utf8, slot))
            slot = Encoding.UTF8.GetString(utf8);
        return slot;
    }
}
