using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;

namespace Mesh.KubeApi.Streams;

/// <summary>
/// SPDY/3's header blocks: zlib with the dictionary of the SPDY/3 draft (§2.6.10.1), one context per direction for the whole
/// connection. .NET's ZLibStream takes no dictionary, so this calls libz.
/// </summary>
internal sealed unsafe partial class HeaderCompression : IDisposable
{
    private const int SyncFlush = 2;
    private const int NeedDictionary = 2;
    private const int BufferError = -5;

    /// <summary>Checksum (Adler-32) of the draft's dictionary: a letter wrong and nobody could read us.</summary>
    public const uint DictionaryChecksum = 0xe3c6a7c2;

    [StructLayout(LayoutKind.Sequential)]
    private struct ZStream
    {
        public byte* NextIn;
        public uint AvailableIn;
        public nuint TotalIn;
        public byte* NextOut;
        public uint AvailableOut;
        public nuint TotalOut;
        public byte* Message;
        public void* State;
        public void* Allocate;
        public void* Free;
        public void* Opaque;
        public int DataType;
        public nuint Checksum;
        public nuint Reserved;
    }

    [LibraryImport("libz.so.1", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int inflateInit_(ZStream* stream, string version, int size);

    [LibraryImport("libz.so.1")]
    private static partial int inflateSetDictionary(ZStream* stream, byte* dictionary, uint length);

    [LibraryImport("libz.so.1")]
    private static partial int inflate(ZStream* stream, int flush);

    [LibraryImport("libz.so.1")]
    private static partial int inflateEnd(ZStream* stream);

    [LibraryImport("libz.so.1", StringMarshalling = StringMarshalling.Utf8)]
    private static partial int deflateInit_(ZStream* stream, int level, string version, int size);

    [LibraryImport("libz.so.1")]
    private static partial int deflateSetDictionary(ZStream* stream, byte* dictionary, uint length);

    [LibraryImport("libz.so.1")]
    private static partial int deflate(ZStream* stream, int flush);

    [LibraryImport("libz.so.1")]
    private static partial int deflateEnd(ZStream* stream);

    [LibraryImport("libz.so.1")]
    private static partial nuint adler32(nuint start, byte* bytes, uint length);

    private static readonly string[] Words =
    [
        "options", "head", "post", "put", "delete", "trace", "accept", "accept-charset", "accept-encoding", "accept-language", "accept-ranges", "age",
        "allow", "authorization", "cache-control", "connection", "content-base", "content-encoding", "content-language", "content-length",
        "content-location", "content-md5", "content-range", "content-type", "date", "etag", "expect", "expires", "from", "host", "if-match",
        "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "last-modified", "location", "max-forwards", "pragma",
        "proxy-authenticate", "proxy-authorization", "range", "referer", "retry-after", "server", "te", "trailer", "transfer-encoding", "upgrade",
        "user-agent", "vary", "via", "warning", "www-authenticate", "method", "get", "status", "200 OK", "version", "HTTP/1.1", "url", "public",
        "set-cookie", "keep-alive", "origin",
    ];

    private const string Tail = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative "
        + "Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not "
        + "Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, "
        + "GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
        + "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

    private static readonly byte[] Dictionary = MakeDictionary();

    // In native memory: libz keeps the address of its stream.
    private readonly ZStream* _in = (ZStream*)NativeMemory.AllocZeroed((nuint)sizeof(ZStream));
    private readonly ZStream* _out = (ZStream*)NativeMemory.AllocZeroed((nuint)sizeof(ZStream));

    public HeaderCompression()
    {
        Check(inflateInit_(_in, "1.2.11", sizeof(ZStream)), "inflateInit");
        Check(deflateInit_(_out, 6, "1.2.11", sizeof(ZStream)), "deflateInit");
        fixed (byte* dictionary = Dictionary)
            Check(deflateSetDictionary(_out, dictionary, (uint)Dictionary.Length), "deflateSetDictionary");
    }

    private static byte[] MakeDictionary()
    {
        var bytes = new MemoryStream();
        Span<byte> length = stackalloc byte[4];
        foreach (var word in Words)
        {
            BinaryPrimitives.WriteInt32BigEndian(length, word.Length);
            bytes.Write(length);
            bytes.Write(Encoding.ASCII.GetBytes(word));
        }
        bytes.Write(Encoding.ASCII.GetBytes(Tail));
        return bytes.ToArray();
    }

    public static uint Checksum()
    {
        fixed (byte* dictionary = Dictionary)
            return (uint)adler32(1, dictionary, (uint)Dictionary.Length);
    }

    private static void Check(int result, string what)
    {
        if (result is not (0 or BufferError))
            throw new InvalidDataException($"{what} of libz: {result}");
    }

    private static byte[] Run(ZStream* stream, ReadOnlySpan<byte> input, bool inflating)
    {
        var output = new MemoryStream();
        var buffer = stackalloc byte[4096];
        fixed (byte* bytes = input)
        {
            stream->NextIn = bytes;
            stream->AvailableIn = (uint)input.Length;
            do
            {
                stream->NextOut = buffer;
                stream->AvailableOut = 4096;
                var result = inflating ? inflate(stream, SyncFlush) : deflate(stream, SyncFlush);
                if (result == NeedDictionary && inflating)
                {
                    fixed (byte* dictionary = Dictionary)
                        Check(inflateSetDictionary(stream, dictionary, (uint)Dictionary.Length), "inflateSetDictionary");
                    continue;
                }
                Check(result, inflating ? "inflate" : "deflate");
                output.Write(new ReadOnlySpan<byte>(buffer, 4096 - (int)stream->AvailableOut));
            }
            while (stream->AvailableIn > 0 || stream->AvailableOut == 0);
        }
        return output.ToArray();
    }

    public Dictionary<string, string> Read(ReadOnlySpan<byte> block)
    {
        var plain = Run(_in, block, inflating: true);
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        var at = 4;
        for (var left = BinaryPrimitives.ReadInt32BigEndian(plain); left > 0; left--)
        {
            var name = Word(plain, ref at);
            headers[name] = Word(plain, ref at);
        }
        return headers;
    }

    private static string Word(byte[] plain, ref int at)
    {
        var length = BinaryPrimitives.ReadInt32BigEndian(plain.AsSpan(at));
        var word = Encoding.UTF8.GetString(plain, at + 4, length);
        at += 4 + length;
        return word;
    }

    /// <summary>A header block without headers: all that an answer needs.</summary>
    public byte[] Empty() => Run(_out, [0, 0, 0, 0], inflating: false);

    public void Dispose()
    {
        _ = inflateEnd(_in);
        _ = deflateEnd(_out);
        NativeMemory.Free(_in);
        NativeMemory.Free(_out);
    }
}
