using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Mesh.Bpf;
using Mesh.Datapath.Maps;

namespace Mesh.Datapath.Loader;

/// <summary>
/// The programs that an earlier start has loaded, pinned under BPFROOT/LAYOUT/programs/OBJECT_DIGEST/PROGRAM. The digest is of all that
/// makes a program what it is: the object's bytes, the node's constants, and which maps of the kernel it looks into. A start that comes
/// to the same digest takes what is there, so that a restart costs the verifier nothing; any other loads anew and replaces it.
/// </summary>
/// <param name="pins">The layout's directory, on a bpffs.</param>
internal sealed class ProgramPins(PinDirectory pins)
{
    /// <summary>A pinned name has no dots in a bpffs.</summary>
    private const string ObjectSuffix = ".bpf.o";

    /// <summary>All programs of the object that are pinned for these constants and maps; null when one is missing. The caller disposes
    /// them.</summary>
    /// <param name="one">Opened, not loaded.</param>
    /// <param name="config">What the object's constants are set to.</param>
    /// <param name="pinOf">Where each map of the object is pinned.</param>
    internal List<BpfProgram>? TryTake(BpfObject one, NodeConfig config, Func<string, string> pinOf)
    {
        if (TryDigest(one, config, pinOf) is not { } digest)
            return null;
        var taken = new List<BpfProgram>();
        foreach (var name in one.ProgramNames)
        {
            if (BpfFd.TryOpenPinned(Path.Combine(DirectoryOf(one, digest), name)) is { } fd)
                taken.Add(one.Program(name, fd));
        }
        if (taken.Count == one.ProgramNames.Count)
            return taken;
        taken.ForEach(program => program.Dispose());
        return null;
    }

    /// <summary>Pins what was just loaded, and unpins what was pinned of this object before. Links hold their programs themselves.</summary>
    internal void Keep(BpfObject one, NodeConfig config, Func<string, string> pinOf, IEnumerable<BpfProgram> programs)
    {
        if (TryDigest(one, config, pinOf) is not { } digest)
            return;
        foreach (var earlier in Directory.Exists(pins.Programs) ? Directory.GetDirectories(pins.Programs, StemOf(one) + "_*") : [])
            Directory.Delete(earlier, recursive: true);
        var directory = DirectoryOf(one, digest);
        Directory.CreateDirectory(directory);
        foreach (var program in programs)
            program.Pin(Path.Combine(directory, program.Name));
    }

    /// <summary>Null while a map of the object is not pinned: then nothing can have been loaded onto it.</summary>
    private static string? TryDigest(BpfObject one, NodeConfig config, Func<string, string> pinOf)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(one.Content);
        hash.AppendData(MemoryMarshal.AsBytes(new ReadOnlySpan<NodeConfig>(in config)));
        foreach (var map in one.MapNames)
        {
            using var pinned = BpfFd.TryOpenPinned(pinOf(map), readOnly: true);
            if (pinned is null)
                return null;
            hash.AppendData(Encoding.UTF8.GetBytes($"{map}={MapInfo.Of(pinned, map).Id};"));
        }
        return Convert.ToHexStringLower(hash.GetHashAndReset())[..32];
    }

    private string DirectoryOf(BpfObject one, string digest) => Path.Combine(pins.Programs, $"{StemOf(one)}_{digest}");

    private static string StemOf(BpfObject one) => one.Name.Replace(ObjectSuffix, "", StringComparison.Ordinal);
}
