using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using Mesh.Kubernetes.Objects;

namespace Mesh.Kubernetes.Manifests;

/// <summary>
/// One manifest file: the objects that hold because of it, and its problems. The invariant: an object once taken over leaves only
/// when the file, readable from end to end, no longer defines it. While any document of the file cannot be attributed to an
/// object, everything the file ever defined stays; a broken object with a name keeps its previous version. A file that was there
/// before us may define what others have long taken over: until it was read without a fault, what it lacks means nothing.
/// </summary>
internal sealed class ManifestFile(string path, string shownAs, bool fromStart)
{
    private static readonly UTF8Encoding StrictUtf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private static readonly IReadOnlySet<ObjectKind> Any = new HashSet<ObjectKind>(Enum.GetValues<ObjectKind>());
    private static readonly IReadOnlySet<ObjectKind> None = new HashSet<ObjectKind>();

    private Dictionary<UInt128, ManifestDocument> _decoded = [];
    private bool _inDoubt = fromStart;

    public string Path { get; } = path;

    /// <summary>Path below the manifests directory: what problems name.</summary>
    public string ShownAs { get; } = shownAs;

    /// <summary>What the file looked like when it was last read; null before.</summary>
    public FileStamp? Stamp { get; set; }

    public IReadOnlyDictionary<ObjectKey, ManifestObject> Objects { get; private set; } = new Dictionary<ObjectKey, ManifestObject>();

    /// <summary>Where and what, without the time.</summary>
    public IReadOnlyList<(string Where, string Message)> Problems { get; private set; } = [];

    /// <summary>Kinds of which it defines, or may define, something that was never readable.</summary>
    public IReadOnlySet<ObjectKind> Incomplete { get; private set; } = None;

    /// <summary>The file is there and cannot be read: nothing of it changes.</summary>
    public void Unreadable(string reason)
    {
        Incomplete = _inDoubt ? Any : None;
        Problems = [(ShownAs, _inDoubt ? $"{reason}, and never could be: {Doubt}" : $"{reason}; its {Objects.Count} objects stay as they were")];
    }

    /// <summary>The file is gone, and so are its objects.</summary>
    public void Clear()
    {
        Objects = new Dictionary<ObjectKey, ManifestObject>();
        Problems = [];
        Incomplete = None;
    }

    /// <summary>Takes the content over. Documents whose text did not change are not decoded again.</summary>
    public void Load(byte[] content)
    {
        string text;
        try
        {
            text = StrictUtf8.GetString(content).TrimStart('\ufeff');
        }
        catch (DecoderFallbackException e)
        {
            Unreadable($"is not UTF-8 text at byte {e.Index}");
            return;
        }
        var previous = Objects;
        var objects = new Dictionary<ObjectKey, ManifestObject>();
        var problems = new List<(string, string)>();
        var decoded = new Dictionary<UInt128, ManifestDocument>();
        var broken = new List<ManifestFault>();
        foreach (var (number, firstLine, document) in Documents(text, decoded))
        {
            foreach (var found in document.Objects)
            {
                if (!objects.TryAdd(found.Object.Key, found))
                    problems.Add((Place(number, firstLine, found.Line), $"{found.Object.Key} is defined twice in this file: remove one"));
            }
            foreach (var fault in document.Faults)
            {
                broken.Add(fault);
                problems.Add((Place(number, firstLine, fault.Line), fault.Message + Consequence(fault, previous, _inDoubt)));
            }
        }
        _decoded = decoded;
        foreach (var (key, kept) in previous)
        {
            if (broken.Exists(fault => fault.Subject is null || fault.Subject == key))
                objects.TryAdd(key, kept);
        }
        Objects = objects;
        Problems = problems;
        _inDoubt &= broken.Count > 0;
        Incomplete = !_inDoubt ? None : broken.Where(fault => fault.Subject is not { } subject || !previous.ContainsKey(subject))
            .SelectMany(fault => fault.Kind is { } kind ? (IEnumerable<ObjectKind>)[kind] : Any).ToHashSet();
    }

    private IEnumerable<(int Number, int FirstLine, ManifestDocument Document)> Documents(
        string text, Dictionary<UInt128, ManifestDocument> decoded)
    {
        var json = Path.EndsWith(".json", StringComparison.Ordinal);
        IEnumerable<(int FirstLine, string Text)> parts = json ? [(1, text)] : Split(text);
        var number = 0;
        foreach (var (firstLine, part) in parts)
        {
            var bytes = Encoding.UTF8.GetBytes(part);
            var digest = MemoryMarshal.Read<UInt128>(SHA256.HashData(bytes));
            if (!_decoded.TryGetValue(digest, out var document))
                document = json ? ManifestDocument.DecodeJson(bytes) : ManifestDocument.DecodeYaml(part);
            decoded[digest] = document;
            yield return (++number, firstLine, document);
        }
    }

    /// <summary>Cuts at lines that begin with ---, as kubectl does: YAML allows none inside a document. So one broken document
    /// cannot hide the next. Documents without content are left out.</summary>
    internal static IEnumerable<(int FirstLine, string Text)> Split(string text)
    {
        var part = new StringBuilder();
        var firstLine = 1;
        var line = 0;
        var content = false;
        foreach (var raw in text.Split('\n'))
        {
            line++;
            var current = raw;
            if (raw.StartsWith("---", StringComparison.Ordinal) && (raw.Length == 3 || char.IsWhiteSpace(raw[3])))
            {
                if (content)
                    yield return (firstLine, part.ToString());
                part.Clear();
                content = false;
                firstLine = line;
                current = "   " + raw[3..];
            }
            content |= IsContent(current);
            // A directive line belongs before ---, which we cut away: it would be an error where it stands now.
            part.Append(raw.StartsWith('%') && !content ? "" : current).Append('\n');
        }
        if (content)
            yield return (firstLine, part.ToString());
    }

    private static bool IsContent(string line)
    {
        var text = line.AsSpan().Trim();
        return !text.IsEmpty && text[0] is not ('#' or '%') && text is not "...";
    }

    private string Place(int number, int firstLine, int line) => $"{ShownAs} document {number}, line {firstLine + line - 1}";

    private const string Doubt = "nothing that it may define is withdrawn or pruned until it is mended or removed";

    private static string Consequence(ManifestFault fault, IReadOnlyDictionary<ObjectKey, ManifestObject> previous, bool inDoubt)
    {
        if (fault.Subject is { } subject && previous.ContainsKey(subject))
            return "; its previous version stays";
        if (inDoubt)
            return $"; {Doubt}";
        return fault.Subject is null && previous.Count > 0 ? "; what the file defined before stays" : "";
    }
}

/// <param name="Written">Last modification, UTC ticks.</param>
/// <param name="Length">Bytes.</param>
internal readonly record struct FileStamp(long Written, long Length);
