using System.Runtime.InteropServices;
using Mesh.Bpf.Btf;
using Mesh.Bpf.Native;

namespace Mesh.Bpf;

/// <summary>
/// A compiled BPF object file: open, set constants, say where maps come from, load, take programs and maps.
/// What is taken owns its own descriptors, so the object may be disposed once it has been taken.
/// Not thread-safe; used by one loader.
/// </summary>
public sealed unsafe class BpfObject : IDisposable
{
    private readonly BpfObjectHandle _handle;
    private readonly ElfFile _elf;
    private readonly GCHandle _bytes;
    private bool _loaded;

    private BpfObject(string name, byte[] bytes)
    {
        Name = name;
        _elf = ElfFile.Parse(name, bytes);
        _bytes = GCHandle.Alloc(bytes, GCHandleType.Pinned);
        fixed (byte* nameBytes = System.Text.Encoding.UTF8.GetBytes(name + "\0"))
        {
            var namePointer = (nint)nameBytes;
            var ((opened, errno), log) = LibbpfLog.Capture(() =>
            {
                var options = new Libbpf.ObjectOpenOptions
                {
                    Size = (nuint)sizeof(Libbpf.ObjectOpenOptions),
                    ObjectName = (byte*)namePointer,
                };
                var result = Libbpf.ObjectOpenMem((byte*)_bytes.AddrOfPinnedObject(), (nuint)bytes.Length, &options);
                return (result, Marshal.GetLastPInvokeError());
            });
            if (opened == 0)
            {
                _bytes.Free();
                throw VerifierException.From(errno, name, log);
            }
            _handle = new BpfObjectHandle(opened);
        }
    }

    public string Name { get; }

    /// <summary>The ELF file, as it was opened. Valid until the object is disposed.</summary>
    public ReadOnlySpan<byte> Content => (byte[])_bytes.Target!;

    /// <summary>Types of the object, for layout checks.</summary>
    public BtfReader Types => _elf.Types;

    public static BpfObject Open(string path) => new(Path.GetFileName(path), File.ReadAllBytes(path));

    /// <param name="name">For messages and for the names of internal maps.</param>
    /// <param name="bytes">The ELF file; not copied, must not be changed while the object lives.</param>
    public static BpfObject Open(string name, byte[] bytes) => new(name, bytes);

    /// <summary>Names of the maps the object declares, without libbpf's internal ones (.rodata, .bss).</summary>
    public IReadOnlyList<string> MapNames
    {
        get
        {
            var names = new List<string>();
            for (var map = Libbpf.NextMap(_handle, 0); map != 0; map = Libbpf.NextMap(_handle, map))
                if (Libbpf.MapIsInternal(map) == 0)
                    names.Add(Text(Libbpf.MapName(map)));
            return names;
        }
    }

    /// <summary>Names of the programs, in the order of the file.</summary>
    public IReadOnlyList<string> ProgramNames
    {
        get
        {
            var names = new List<string>();
            for (var program = Libbpf.NextProgram(_handle, 0); program != 0; program = Libbpf.NextProgram(_handle, program))
                names.Add(Text(Libbpf.ProgramName(program)));
            return names;
        }
    }

    /// <summary>True when the object has a `const volatile` variable of this name; one that no program reads is not there.</summary>
    public bool HasConstant(string variable) => _elf.Symbol(variable, ".rodata") is not null;

    /// <summary>Sets a `const volatile` variable before <see cref="Load"/>; the verifier then knows it and drops dead branches.</summary>
    public void SetConstant<TValue>(string variable, TValue value)
        where TValue : unmanaged
    {
        if (_loaded)
            throw new InvalidOperationException($"{Name}: constants are set before the load");
        var symbol = _elf.Symbol(variable, ".rodata")
            ?? throw new ArgumentException($"{Name} has no constant named {variable}", nameof(variable));
        if (symbol.Size != (ulong)sizeof(TValue))
            throw new ArgumentException($"{Name}: constant {variable} has {symbol.Size} bytes, {typeof(TValue).Name} has {sizeof(TValue)}");
        nuint size;
        var start = (byte*)Libbpf.MapInitialValue(MapHandle(".rodata"), &size);
        if (start is null || symbol.Offset + symbol.Size > size)
            throw new InvalidOperationException($"{Name}: constant {variable} lies outside .rodata");
        *(TValue*)(start + symbol.Offset) = value;
    }

    /// <summary>The map as the object declares it; its id is 0.</summary>
    public MapInfo Declared(string map)
    {
        var handle = MapHandle(map);
        return new MapInfo(Libbpf.MapType(handle), 0, Libbpf.MapKeySize(handle), Libbpf.MapValueSize(handle), Libbpf.MapMaxEntries(handle),
            Libbpf.MapFlags(handle), map);
    }

    /// <summary>The map is taken from this path when it is pinned there, else created and pinned there by <see cref="Load"/>.</summary>
    public void SetPinPath(string map, string path) =>
        BpfException.ThrowIfNegative(Libbpf.MapSetPinPath(MapHandle(map), path), $"{Name}: map {map}: set pin path {path}");

    /// <summary>Uses an existing map instead of creating one. Its type and sizes must be as declared.</summary>
    public void Reuse(string map, BpfFd fd) =>
        BpfException.ThrowIfNegative(Libbpf.MapReuseFd(MapHandle(map), fd.Number), $"{Name}: map {map}: reuse descriptor");

    /// <summary>Before <see cref="Load"/>; ignored by the kernel when the map is reused.</summary>
    public void SetMaxEntries(string map, uint entries) =>
        BpfException.ThrowIfNegative(Libbpf.MapSetMaxEntries(MapHandle(map), entries), $"{Name}: map {map}: set max entries {entries}");

    /// <summary>Creates the maps and loads the programs.</summary>
    /// <exception cref="VerifierException">The verifier refused a program.</exception>
    /// <exception cref="BpfException">Anything else, with libbpf's own words.</exception>
    public void Load()
    {
        var (result, log) = LibbpfLog.Capture(() => Libbpf.ObjectLoad(_handle));
        if (result < 0)
            throw VerifierException.From(-result, Name, log);
        _loaded = true;
    }

    /// <summary>A loaded program; the caller disposes it.</summary>
    public BpfProgram Program(string name)
    {
        var program = ProgramHandle(name);
        if (!_loaded)
            throw new InvalidOperationException($"{Name} is not loaded");
        return Program(name, Syscalls.Duplicate(Libbpf.ProgramFd(program), $"{Name}: program {name}"));
    }

    /// <summary>A program of this object that the kernel holds already; the object need not be loaded. The caller disposes it.</summary>
    /// <param name="fd">Of the program; owned by the answer.</param>
    public BpfProgram Program(string name, BpfFd fd)
    {
        var program = ProgramHandle(name);
        return new BpfProgram(name, Text(Libbpf.ProgramSection(program)), Libbpf.ProgramExpectedAttachType(program), fd);
    }

    public bool HasMap(string name) => Libbpf.FindMap(_handle, name) != 0;

    /// <summary>A loaded map; the caller disposes it.</summary>
    /// <exception cref="BpfException">The sizes of key or value are not those of the map.</exception>
    public BpfMap<TKey, TValue> Map<TKey, TValue>(string name)
        where TKey : unmanaged
        where TValue : unmanaged
        => new(name, MapFd(name));

    /// <summary>A descriptor of a loaded map; the caller disposes it.</summary>
    public BpfFd MapFd(string name)
    {
        if (!_loaded)
            throw new InvalidOperationException($"{Name} is not loaded");
        return Syscalls.Duplicate(Libbpf.MapFd(MapHandle(name)), $"{Name}: map {name}");
    }

    /// <summary>A loaded memory-mappable array; the caller disposes it.</summary>
    public MmapArray<TValue> Array<TValue>(string name)
        where TValue : unmanaged
        => new(name, MapFd(name));

    public void Dispose()
    {
        if (_handle.IsClosed)
            return;
        _handle.Dispose();
        _bytes.Free();
    }

    private nint ProgramHandle(string name)
    {
        var program = Libbpf.FindProgram(_handle, name);
        return program != 0
            ? program
            : throw new ArgumentException($"{Name} has no program named {name}; it has {string.Join(", ", ProgramNames)}", nameof(name));
    }

    private nint MapHandle(string name)
    {
        var map = Libbpf.FindMap(_handle, name);
        return map != 0
            ? map
            : throw new ArgumentException($"{Name} has no map named {name}; it has {string.Join(", ", MapNames)}", nameof(name));
    }

    private static string Text(byte* utf8) => Marshal.PtrToStringUTF8((nint)utf8) ?? "";
}
