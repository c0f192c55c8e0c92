using System.Buffers.Binary;
using System.Text;

namespace Mesh.Bpf.Btf;

/// <summary>One member of a struct, with the offset and size in bytes.</summary>
public readonly record struct BtfMember(string Name, uint Offset, uint Size);

/// <summary>A struct or union as the C compiler laid it out.</summary>
public sealed record BtfStruct(string Name, uint Size, IReadOnlyList<BtfMember> Members);

/// <summary>
/// Reads struct layouts and enum values from BTF (Documentation/bpf/btf.rst), the type information that clang writes into each
/// object: how C# structs are checked against the C ones that the programs were really compiled with.
/// </summary>
public sealed class BtfReader
{
    private const ushort Magic = 0xeb9f;
    private const int MaxDepth = 32;

    private readonly string _source;
    private readonly ReadOnlyMemory<byte> _strings;
    private readonly List<TypeRecord> _types = [new TypeRecord("", Kind.Void, 0, 0, false, default)];

    private BtfReader(string source, ReadOnlyMemory<byte> strings)
    {
        _source = source;
        _strings = strings;
    }

    private enum Kind
    {
        Void = 0,
        Int = 1,
        Pointer = 2,
        Array = 3,
        Struct = 4,
        Union = 5,
        Enum = 6,
        Forward = 7,
        Typedef = 8,
        Volatile = 9,
        Const = 10,
        Restrict = 11,
        Func = 12,
        FuncProto = 13,
        Var = 14,
        DataSection = 15,
        Float = 16,
        DeclTag = 17,
        TypeTag = 18,
        Enum64 = 19,
    }

    /// <param name="source">Named in errors.</param>
    /// <param name="section">Contents of .BTF.</param>
    public static BtfReader Parse(string source, ReadOnlyMemory<byte> section)
    {
        var bytes = section.Span;
        if (bytes.Length < 24 || BinaryPrimitives.ReadUInt16LittleEndian(bytes) != Magic)
            throw new InvalidDataException($"{source}: no BTF");
        var headerLength = U32(bytes, 4);
        var (typeOffset, typeLength) = (U32(bytes, 8), U32(bytes, 12));
        var (stringOffset, stringLength) = (U32(bytes, 16), U32(bytes, 20));
        if ((ulong)headerLength + typeOffset + typeLength > (ulong)bytes.Length
            || (ulong)headerLength + stringOffset + stringLength > (ulong)bytes.Length)
            throw new InvalidDataException($"{source}: BTF is cut short");
        var reader = new BtfReader(source, section.Slice((int)(headerLength + stringOffset), (int)stringLength));
        reader.ReadTypes(section.Slice((int)(headerLength + typeOffset), (int)typeLength));
        return reader;
    }

    /// <summary>The named struct; null when the object does not use it (clang leaves unused types out).</summary>
    public BtfStruct? Struct(string name)
    {
        var id = _types.FindIndex(type => type.Kind == Kind.Struct && type.Name == name);
        return id < 0 ? null : Layout(_types[id]);
    }

    /// <summary>Names of all structs, for messages.</summary>
    public IEnumerable<string> StructNames =>
        _types.Where(type => type.Kind == Kind.Struct && type.Name.Length > 0).Select(type => type.Name);

    /// <summary>Values of the named enum; null when the object does not use it.</summary>
    public IReadOnlyDictionary<string, long>? Enum(string name)
    {
        var id = _types.FindIndex(type => type.Kind == Kind.Enum && type.Name == name);
        if (id < 0)
            return null;
        var values = new Dictionary<string, long>();
        var body = _types[id].Body.Span;
        for (var at = 0; at < body.Length; at += 8)
            values[Text(U32(body, at))] = (int)U32(body, at + 4);
        return values;
    }

    /// <summary>A checksum of the key and the value of a declared map, with every member of theirs: the same in every build that lays
    /// them out alike. Null when the object declares no such map.</summary>
    public uint? MapTypes(string map)
    {
        var variable = _types.Find(type => type.Kind == Kind.Var && type.Name == map);
        if (variable.Kind != Kind.Var)
            return null;
        var hash = 2166136261u;
        var body = TypeOf(variable.SizeOrType).Body.Span;
        for (var at = 0; at < body.Length; at += 12)
            if (Text(U32(body, at)) is "key" or "value")
                // Declared as pointers, so that a size of any kind can be said.
                Describe(TypeOf(U32(body, at + 4)).SizeOrType, 0, ref hash);
        return hash;
    }

    private TypeRecord TypeOf(uint id) => id < _types.Count ? _types[(int)id]
        : throw new InvalidDataException($"{_source}: BTF type {id} is out of range");

    private void Describe(uint id, int depth, ref uint hash)
    {
        if (depth > MaxDepth)
            throw new InvalidDataException($"{_source}: BTF type {id} refers to itself");
        var type = TypeOf(id);
        var body = type.Body.Span;
        switch (type.Kind)
        {
            case Kind.Typedef or Kind.Volatile or Kind.Const or Kind.Restrict or Kind.TypeTag:
                Describe(type.SizeOrType, depth + 1, ref hash);
                break;
            case Kind.Array:
                Add(ref hash, "[]", U32(body, 8));
                Describe(U32(body, 0), depth + 1, ref hash);
                break;
            case Kind.Struct or Kind.Union:
                Add(ref hash, type.Name, type.SizeOrType);
                for (var at = 0; at < body.Length; at += 12)
                {
                    Add(ref hash, Text(U32(body, at)), U32(body, at + 8));
                    Describe(U32(body, at + 4), depth + 1, ref hash);
                }
                break;
            default:
                Add(ref hash, "", type.Kind == Kind.Pointer ? 8 : type.SizeOrType);
                break;
        }

        // FNV-1a.
        static void Add(ref uint hash, string name, uint number)
        {
            foreach (var c in name)
                hash = (hash ^ c) * 16777619;
            hash = (hash ^ number) * 16777619;
        }
    }

    private BtfStruct Layout(TypeRecord type)
    {
        var members = new List<BtfMember>();
        var body = type.Body.Span;
        for (var at = 0; at < body.Length; at += 12)
        {
            var offset = U32(body, at + 8);
            if (type.KindFlag && offset >> 24 != 0)
                throw new InvalidDataException($"{_source}: struct {type.Name} has a bit field, which no ABI of ours may have");
            members.Add(new BtfMember(Text(U32(body, at)), (type.KindFlag ? offset & 0xffffff : offset) / 8, SizeOf(U32(body, at + 4), 0)));
        }
        return new BtfStruct(type.Name, type.SizeOrType, members);
    }

    private uint SizeOf(uint id, int depth)
    {
        if (id >= _types.Count || depth > MaxDepth)
            throw new InvalidDataException($"{_source}: BTF type {id} is out of range or refers to itself");
        var type = _types[(int)id];
        return type.Kind switch
        {
            Kind.Int or Kind.Struct or Kind.Union or Kind.Enum or Kind.Enum64 or Kind.Float or Kind.DataSection => type.SizeOrType,
            Kind.Pointer => 8,
            Kind.Array => SizeOf(U32(type.Body.Span, 0), depth + 1) * U32(type.Body.Span, 8),
            Kind.Typedef or Kind.Volatile or Kind.Const or Kind.Restrict or Kind.TypeTag or Kind.Var => SizeOf(type.SizeOrType, depth + 1),
            _ => 0,
        };
    }

    private void ReadTypes(ReadOnlyMemory<byte> section)
    {
        for (var at = 0; at < section.Length;)
        {
            if (section.Length - at < 12)
                throw new InvalidDataException($"{_source}: BTF is cut short");
            var bytes = section.Span[at..];
            var info = U32(bytes, 4);
            var (count, kind, kindFlag) = ((int)(info & 0xffff), (Kind)(info >> 24 & 0x1f), info >> 31 != 0);
            var length = kind switch
            {
                Kind.Int or Kind.Var or Kind.DeclTag => 4,
                Kind.Array => 12,
                Kind.Struct or Kind.Union or Kind.DataSection or Kind.Enum64 => 12 * count,
                Kind.Enum or Kind.FuncProto => 8 * count,
                _ => 0,
            };
            if (kind > Kind.Enum64 || section.Length - at - 12 < length)
                throw new InvalidDataException($"{_source}: BTF type {_types.Count} is of an unknown kind {kind} or cut short");
            _types.Add(new TypeRecord(Text(U32(bytes, 0)), kind, U32(bytes, 8), count, kindFlag, section.Slice(at + 12, length)));
            at += 12 + length;
        }
    }

    private string Text(uint offset)
    {
        if (offset >= _strings.Length)
            throw new InvalidDataException($"{_source}: BTF name {offset} is out of range");
        var rest = _strings.Span[(int)offset..];
        var end = rest.IndexOf((byte)0);
        return Encoding.UTF8.GetString(end < 0 ? rest : rest[..end]);
    }

    private static uint U32(ReadOnlySpan<byte> bytes, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(bytes[offset..]);

    private readonly record struct TypeRecord(string Name, Kind Kind, uint SizeOrType, int Count, bool KindFlag, ReadOnlyMemory<byte> Body);
}
