using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Loader;

/// <summary>All that a program relies on in a map: when two builds agree on it, their programs may share the map.</summary>
/// <param name="Type">enum bpf_map_type.</param>
/// <param name="Types">Checksum of key and value with all their members.</param>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct MapShape(uint Type, uint KeySize, uint ValueSize, uint MaxEntries, uint Flags, uint Types)
{
    internal static MapShape Of(BpfObject one, string map)
    {
        var declared = one.Declared(map);
        return new MapShape(declared.Type, declared.KeySize, declared.ValueSize, declared.MaxEntries, declared.Flags,
            one.Types.MapTypes(map) ?? throw new InvalidDataException($"{one.Name}: map {map} has no types"));
    }

    /// <summary>Entries of the one mean the same in the other, and there is room for them.</summary>
    internal bool Takes(MapShape other) => this with { MaxEntries = 0, Flags = 0 } == other with { MaxEntries = 0, Flags = 0 }
        && MaxEntries >= other.MaxEntries;

    /// <summary>Name of a layout: the version and a checksum of all shapes and of what C and C# have in common.</summary>
    internal static string LayoutName(IReadOnlyDictionary<string, MapShape> shapes)
    {
        // FNV-1a: stable between builds and machines.
        var hash = 2166136261u;
        foreach (var (name, shape) in shapes.OrderBy(pair => pair.Key, StringComparer.Ordinal))
        {
            foreach (var c in name)
                hash = (hash ^ c) * 16777619;
            foreach (var number in (uint[])[shape.Type, shape.KeySize, shape.ValueSize, shape.MaxEntries, shape.Flags, shape.Types])
                hash = (hash ^ number) * 16777619;
        }
        hash = (hash ^ (uint)Abi.Word) * 16777619;
        return $"v{Abi.Version}-{hash:x8}";
    }
}

/// <summary>Name of a map as a key of a map.</summary>
[InlineArray(Length)]
internal struct MapNameKey
{
    private const int Length = 32;
    private byte _first;

    internal static MapNameKey From(string name)
    {
        MapNameKey key = default;
        Encoding.ASCII.GetBytes(name, ((Span<byte>)key)[..(Length - 1)]);
        return key;
    }

    public override string ToString() => Encoding.ASCII.GetString(this).TrimEnd('\0');
}

/// <summary>For tests: another layout than the one that was compiled.</summary>
internal sealed record LayoutVariant
{
    /// <summary>Maps with room for another number of entries than compiled.</summary>
    internal IReadOnlyDictionary<string, uint> MaxEntries { get; init; } = new Dictionary<string, uint>();

    /// <summary>Maps that are taken to have other keys or values.</summary>
    internal IReadOnlySet<string> OtherTypes { get; init; } = new HashSet<string>();

    /// <summary>Directory of objects compiled from other sources; null = those of this build.</summary>
    internal string? Objects { get; init; }

    /// <summary>Serves at once, whatever the maps hold: what the order of a switch is there to prevent.</summary>
    internal bool Hasty { get; init; }

    /// <summary>Called before each step that another process could see: where a test dies.</summary>
    internal Action<string>? Failpoint { get; init; }

    internal Dictionary<string, MapShape> Of(IReadOnlyDictionary<string, MapShape> compiled) => compiled.ToDictionary(pair => pair.Key, pair => pair.Value with
    {
        MaxEntries = MaxEntries.GetValueOrDefault(pair.Key, pair.Value.MaxEntries),
        Types = OtherTypes.Contains(pair.Key) ? ~pair.Value.Types : pair.Value.Types,
    });
}
