namespace Mesh.KVStore;

/// <summary>What one watch last did, written by its loop and read by the status. A timestamp of 0 means never.</summary>
internal sealed class WatchState(string prefix, TimeProvider time)
{
    private long _message;
    private long _audit;
    private long _relist;
    private int _relists;
    private volatile bool _listing = true;
    private volatile bool _streaming;
    private volatile bool _inLine;
    private volatile bool _compacted;
    private volatile string? _reason;

    public bool Listing
    {
        set => _listing = value;
    }

    public bool InLine
    {
        set => _inLine = value;
    }

    public bool Streaming
    {
        set => _streaming = value;
    }

    public WatchStatus Status => new(prefix, _listing, _streaming, Age(ref _message), Age(ref _audit), Volatile.Read(ref _relists), _reason,
        Age(ref _relist), _compacted)
    {
        InLine = _inLine,
    };

    public void Heard() => Volatile.Write(ref _message, time.GetTimestamp());

    public void Audited() => Volatile.Write(ref _audit, time.GetTimestamp());

    public void Relisted(string reason, bool compacted)
    {
        _reason = reason;
        _compacted = compacted;
        _listing = true;
        Interlocked.Increment(ref _relists);
        Volatile.Write(ref _relist, time.GetTimestamp());
    }

    private TimeSpan? Age(ref long at) => Volatile.Read(ref at) is var then and not 0 ? time.GetElapsedTime(then) : null;
}
