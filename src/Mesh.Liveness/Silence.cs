namespace Mesh.Liveness;

/// <summary>
/// What one target owes us: the probes sent since the last one it answered. An answer to a probe forgives all that were sent before it.
/// Restarting forgets what is owed, for when the observer itself may have lost the answers.
/// </summary>
internal sealed class Silence(LivenessOptions options)
{
    private const int Remembered = 128;

    private readonly TimeSpan[] _sentAt = new TimeSpan[Remembered];
    private uint _next;
    private uint _firstOpen;
    private double _smoothed;
    private double _variation;

    /// <summary>When the first unanswered probe was sent; null when none is.</summary>
    public TimeSpan? Since { get; private set; }

    public TimeSpan? LastSent { get; private set; }

    /// <summary>When the last answer came.</summary>
    public TimeSpan? LastAnswer { get; private set; }

    /// <summary>When the latest probe that was answered had been sent: at that time, and later, there was a way there and back.</summary>
    public TimeSpan? ProvedAt { get; private set; }

    public long Sent { get; private set; }

    public long Answered { get; private set; }

    /// <summary>Answers since the last probe that became overdue.</summary>
    public int GoodInRow { get; set; }

    /// <summary>Smoothed time of an answer; zero before the first.</summary>
    public TimeSpan RoundTrip => TimeSpan.FromMilliseconds(_smoothed);

    /// <summary>After this a probe is overdue.</summary>
    public TimeSpan Patience => Longer(options.Patience, 4);

    /// <summary>After this a probe raises doubt.</summary>
    public TimeSpan DoubtAfter => Longer(options.DoubtAfter, 2);

    public uint Send(TimeSpan now)
    {
        _sentAt[_next % Remembered] = now;
        Since ??= now;
        LastSent = now;
        Sent++;
        return _next++;
    }

    /// <summary>False when the answer is to no probe that we still know.</summary>
    public bool Answer(uint sequence, TimeSpan now)
    {
        if (_next - sequence is 0 or > Remembered)
            return false;
        var sent = _sentAt[sequence % Remembered];
        Measure((now - sent).TotalMilliseconds);
        LastAnswer = now;
        if (ProvedAt is null || sent > ProvedAt)
            ProvedAt = sent;
        Answered++;
        GoodInRow++;
        // Sequences may wrap: compare distances from the next one.
        if (_next - sequence <= _next - _firstOpen)
        {
            _firstOpen = sequence + 1;
            Since = _firstOpen == _next ? null : _sentAt[_firstOpen % Remembered];
        }
        return true;
    }

    /// <summary>Forgets what is owed.</summary>
    public void Restart()
    {
        _firstOpen = _next;
        Since = null;
    }

    /// <summary>Open probes whose patience is over; counts no further than <paramref name="enough"/>.</summary>
    public int Overdue(TimeSpan now, int enough)
    {
        var patience = Patience;
        var overdue = 0;
        // Older ones than are remembered are overdue long since.
        var first = _next - _firstOpen > Remembered ? _next - Remembered : _firstOpen;
        for (var sequence = first; sequence != _next && overdue < enough; sequence++)
        {
            if (now - _sentAt[sequence % Remembered] < patience)
                break;
            overdue++;
        }
        return overdue;
    }

    private TimeSpan Longer(TimeSpan least, double variations)
    {
        var usual = TimeSpan.FromMilliseconds(_smoothed + variations * _variation);
        return usual < least ? least : usual > TimeSpan.FromSeconds(1) ? TimeSpan.FromSeconds(1) : usual;
    }

    private void Measure(double milliseconds)
    {
        if (Answered == 0)
        {
            (_smoothed, _variation) = (milliseconds, milliseconds / 2);
            return;
        }
        _variation += (Math.Abs(milliseconds - _smoothed) - _variation) / 4;
        _smoothed += (milliseconds - _smoothed) / 8;
    }
}
