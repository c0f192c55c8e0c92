namespace Mesh.Lab.Processes;

/// <summary>
/// A process's log. Its writer appends and never reopens, so it is bounded by copying the tail aside and emptying the file in place.
/// </summary>
internal static class LogFile
{
    private const long BytesMax = 4 << 20;
    private const int BytesKept = 1 << 20;

    /// <summary>Lines written between the copy and the cut are lost; that is the price of never touching the writer.</summary>
    public static void Trim(string path)
    {
        var file = new FileInfo(path);
        if (!file.Exists || file.Length <= BytesMax)
            return;
        File.WriteAllText($"{path}.old", Tail(path, BytesKept));
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        stream.SetLength(0);
    }

    /// <summary>Null when nothing was written.</summary>
    public static string? LastLine(string path) => Tail(path, 4096).Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault();

    /// <summary>The last bytes as text; "" when there is no file.</summary>
    public static string Tail(string path, int bytes)
    {
        if (!File.Exists(path))
            return "";
        using var stream = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        stream.Seek(-Math.Min(stream.Length, bytes), SeekOrigin.End);
        using var reader = new StreamReader(stream);
        return reader.ReadToEnd();
    }
}
