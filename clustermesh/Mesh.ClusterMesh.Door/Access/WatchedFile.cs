using System.Security.Cryptography;

namespace Mesh.ClusterMesh.Door.Access;

/// <summary>
/// Something read from files, read again when their content changes. A change that cannot be used keeps the last good value and is
/// an <see cref="Error"/> until the files are mended. Content is compared, not time stamps: a mounted secret is swapped by symlinks.
/// </summary>
internal sealed class WatchedFile<T>
    where T : class
{
    private readonly Lock _gate = new();
    private readonly string[] _paths;
    private readonly Func<byte[][], T> _parse;
    private readonly Action<string> _log;
    private byte[] _seen;
    private T _value;
    private string? _error;
    private long _version = 1;

    /// <param name="parse">Makes the value of the files' contents; any exception means that they cannot be used.</param>
    /// <exception cref="InvalidDataException">At the first reading there is no last good value to keep.</exception>
    public WatchedFile(string[] paths, Func<byte[][], T> parse, Action<string> log)
    {
        _paths = paths;
        _parse = parse;
        _log = log;
        try
        {
            var contents = Read();
            _value = parse(contents);
            _seen = Digest(contents);
        }
        catch (Exception e) when (IsUnusable(e))
        {
            throw new InvalidDataException($"{string.Join(", ", paths)}: {e.Message}", e);
        }
    }

    public T Value => Volatile.Read(ref _value);

    /// <summary>Grows with each new value.</summary>
    public long Version => Interlocked.Read(ref _version);

    /// <summary>Why the files as they are now are not what is in force; null when they are.</summary>
    public string? Error => Volatile.Read(ref _error);

    /// <summary>Reads the files again. True when a new value is in force.</summary>
    public bool Refresh()
    {
        lock (_gate)
        {
            try
            {
                var contents = Read();
                var digest = Digest(contents);
                if (digest.AsSpan().SequenceEqual(_seen))
                {
                    SetError(null);
                    return false;
                }
                Volatile.Write(ref _value, _parse(contents));
                _seen = digest;
                Interlocked.Increment(ref _version);
                SetError(null);
                _log($"door: {string.Join(", ", _paths)} changed and is in force");
                return true;
            }
            catch (Exception e) when (IsUnusable(e))
            {
                SetError($"{string.Join(", ", _paths)}: {e.Message}: the last good one stays in force");
                return false;
            }
        }
    }

    private void SetError(string? error)
    {
        if (error is not null && error != _error)
            _log($"door: {error}");
        Volatile.Write(ref _error, error);
    }

    private byte[][] Read() => Array.ConvertAll(_paths, File.ReadAllBytes);

    private static byte[] Digest(byte[][] contents) => SHA256.HashData(contents.SelectMany(content => SHA256.HashData(content)).ToArray());

    private static bool IsUnusable(Exception e) =>
        e is IOException or UnauthorizedAccessException or CryptographicException or InvalidDataException or ArgumentException
            or FormatException or YamlDotNet.Core.YamlException;
}
