using System.Security.Cryptography;

namespace Mesh.KVStore;

/// <summary>
/// Something made of files, made again when their content changes. A content that cannot be used keeps the last good value and is a
/// <see cref="Problem"/> until the files are mended. Contents are compared, not time stamps: mounted secrets are swapped by links.
/// </summary>
/// <param name="parse">Makes the value of the files' contents; an exception means that they cannot be used.</param>
internal sealed class LastGood<T>(string[] paths, Func<byte[][], T> parse)
    where T : class
{
    /// <summary>Somebody who replaces files one by one needs a moment between the first and the last.</summary>
    private const int Looks = 3;

    private readonly Lock _gate = new();
    private byte[]? _seen;
    private T? _value;
    private string? _problem;

    /// <summary>The newest that could be used; null before there was any.</summary>
    public T? Value => Volatile.Read(ref _value);

    /// <summary>Why the files as they are now cannot be used; null when they can.</summary>
    public string? Problem => Volatile.Read(ref _problem);

    /// <summary>Looks at the files. Null when there is nothing usable, neither now nor from before.</summary>
    public T? Refresh()
    {
        lock (_gate)
        {
            for (var look = 1; ; look++)
            {
                try
                {
                    Load();
                    Volatile.Write(ref _problem, null);
                    return _value;
                }
                catch (Exception) when (look < Looks)
                {
                    // Caught between two renames, perhaps.
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException or ArgumentException
                    or FormatException or NotSupportedException)
                {
                    Volatile.Write(ref _problem, $"{e.Message}{(_value is null ? "" : " (the last good one stays in use)")}");
                    return _value;
                }
            }
        }
    }

    private void Load()
    {
        var contents = Array.ConvertAll(paths, File.ReadAllBytes);
        var digest = SHA256.HashData(contents.SelectMany(content => SHA256.HashData(content)).ToArray());
        if (_seen is not null && digest.AsSpan().SequenceEqual(_seen))
            return;
        Volatile.Write(ref _value, parse(contents));
        _seen = digest;
    }
}
