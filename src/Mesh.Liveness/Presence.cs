namespace Mesh.Liveness;

/// <summary>
/// Whether one thing, a node or a cluster, is in. It falls out at once; it comes back only after having answered well for a hold time
/// that doubles with every relapse, so that what comes and goes stays out.
/// </summary>
internal sealed class Presence(LivenessOptions options, bool isIn)
{
    private const int DoublingsMax = 16;

    private int _flaps;
    private TimeSpan? _goodSince;
    private TimeSpan? _inSince;

    public bool IsIn { get; private set; } = isIn;

    /// <summary>When it last went in or out; null = as it was found.</summary>
    public TimeSpan? Since { get; private set; }

    public int Transitions { get; private set; }

    /// <summary>What it has to wait for when it comes back.</summary>
    public TimeSpan Hold
    {
        get
        {
            var hold = options.Hold * Math.Pow(2, Math.Min(_flaps, DoublingsMax));
            return hold > options.HoldMax ? options.HoldMax : hold;
        }
    }

    /// <summary>What is left of the hold; null while in, or while nothing good has been heard.</summary>
    public TimeSpan? HoldLeft(TimeSpan now) =>
        IsIn || _goodSince is not { } since ? null : now - since >= Hold ? TimeSpan.Zero : Hold - (now - since);

    public void Fall(TimeSpan now)
    {
        if (!IsIn)
            return;
        _flaps = _inSince is { } since && now - since < options.FlapMemory ? _flaps + 1 : 0;
        IsIn = false;
        _goodSince = null;
        Turn(now);
    }

    /// <summary>While out: silent again. What good there was counts as another flap.</summary>
    public void Relapse()
    {
        if (IsIn || _goodSince is null)
            return;
        _goodSince = null;
        if (Hold < options.HoldMax)
            _flaps++;
    }

    /// <summary>While out: true when it goes in by this.</summary>
    public bool Rise(TimeSpan now, bool enoughAnswers)
    {
        if (IsIn)
            return false;
        _goodSince ??= now;
        if (!enoughAnswers || now - _goodSince < Hold)
            return false;
        GoIn(now);
        return true;
    }

    /// <summary>Without a hold: nothing bad is known of it any more.</summary>
    public void GoIn(TimeSpan now)
    {
        IsIn = true;
        _inSince = now;
        Turn(now);
    }

    private void Turn(TimeSpan now)
    {
        Since = now;
        Transitions++;
    }
}
