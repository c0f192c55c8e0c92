using System.Buffers.Binary;
using System.Text;

namespace Mesh.Bpf.Btf;

/// <summary>
/// The little that we read ourselves from a compiled object (ELF64, little endian): the .BTF section and where a variable lies in
/// its section. Every offset is checked: a damaged file is an error that names it, never a wild read.
/// </summary>
internal sealed class ElfFile
{
    private const int HeaderSize = 64;
    private const int SectionHeaderSize = 64;
    private const int SymbolSize = 24;
    private const uint SymbolTable = 2;

    private readonly string _name;
    private readonly byte[] _bytes;
    private readonly List<Section> _sections = [];
    private readonly Lazy<BtfReader> _types;

    private ElfFile(string name, byte[] bytes)
    {
        _name = name;
        _bytes = bytes;
        _types = new Lazy<BtfReader>(() => BtfReader.Parse(_name, SectionBytes(Find(".BTF") ?? throw Damaged("has no .BTF section"))));
    }

    internal BtfReader Types => _types.Value;

    internal static ElfFile Parse(string name, byte[] bytes)
    {
        var file = new ElfFile(name, bytes);
        if (bytes.Length < HeaderSize || !bytes.AsSpan(0, 6).SequenceEqual<byte>([0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1]))
            throw file.Damaged("is not a 64-bit little-endian ELF object");
        var table = file.U64(0x28);
        var count = file.U16(0x3c);
        var nameIndex = file.U16(0x3e);
        if (file.U16(0x3a) != SectionHeaderSize || nameIndex >= count)
            throw file.Damaged("has an impossible section table");
        var headers = new List<(uint Name, Section Section)>();
        for (var i = 0; i < count; i++)
        {
            var at = table + (ulong)i * SectionHeaderSize;
            headers.Add((file.U32(at), new Section("", file.U32(at + 4), file.U64(at + 24), file.U64(at + 32), file.U32(at + 40))));
        }
        foreach (var (offset, section) in headers)
            file._sections.Add(section with { Name = file.Text(headers[nameIndex].Section, offset) });
        return file;
    }

    /// <summary>Where a variable lies within the section; null when there is no such variable in it.</summary>
    internal (ulong Offset, ulong Size)? Symbol(string variable, string section)
    {
        if (_sections.Find(candidate => candidate.Type == SymbolTable) is not { } table || table.Link >= _sections.Count)
            return null;
        for (ulong at = table.Offset; at + SymbolSize <= table.Offset + table.Size; at += SymbolSize)
        {
            var index = U16(at + 6);
            if (index < _sections.Count && _sections[index].Name == section && Text(_sections[(int)table.Link], U32(at)) == variable)
                return (U64(at + 8), U64(at + 16));
        }
        return null;
    }

    private Section? Find(string name) => _sections.Find(section => section.Name == name);

    private ReadOnlyMemory<byte> SectionBytes(Section section) =>
        section.Offset <= (ulong)_bytes.Length && section.Size <= (ulong)_bytes.Length - section.Offset
            ? _bytes.AsMemory((int)section.Offset, (int)section.Size)
            : throw Damaged($"is cut short in section {section.Name}");

    private string Text(Section strings, uint offset)
    {
        var bytes = SectionBytes(strings).Span;
        if (offset >= bytes.Length)
            throw Damaged("has a name outside its string table");
        var rest = bytes[(int)offset..];
        var end = rest.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? rest : rest[..end]);
    }

    private ReadOnlySpan<byte> At(ulong offset, int size) => offset <= (ulong)_bytes.Length && (ulong)size <= (ulong)_bytes.Length - offset
        ? _bytes.AsSpan((int)offset, size)
        : throw Damaged("is cut short");

    private ushort U16(ulong offset) => BinaryPrimitives.ReadUInt16LittleEndian(At(offset, 2));

    private uint U32(ulong offset) => BinaryPrimitives.ReadUInt32LittleEndian(At(offset, 4));

    private ulong U64(ulong offset) => BinaryPrimitives.ReadUInt64LittleEndian(At(offset, 8));

    private InvalidDataException Damaged(string what) => new($"BPF object {_name} {what}");

    private sealed record Section(string Name, uint Type, ulong Offset, ulong Size, uint Link);
}
