namespace Mesh.KVStore;

/// <summary>
/// Bounds how many long lists of the process are read at once. Hundreds of peers that come together would else share the processors in so
/// many parts that none of their pages arrives in time, and all begin again. Lists that fit into a short first page need no turn; the
/// others stand in line, first come first served. A turn ends after a while by itself, so that a slow server, or one that means to be slow,
/// keeps nobody waiting: its list then goes on beside the others. For any thread.
/// </summary>
/// <param name="turns">Lists at once.</param>
/// <param name="longest">After so long the next in line begins too.</param>
public sealed class ListTurns(int turns, TimeSpan longest, TimeProvider time) : IDisposable
{
    /// <summary>Keys of the page that needs no turn.</summary>
    public const int FirstPage = 500;

    /// <summary>First come, first served.</summary>
    private readonly SemaphoreSlim _free = new(turns, turns);
    private int _waiting;

    /// <summary>More than the processors alone would need: the next server may be far away.</summary>
    public static ListTurns OfProcess { get; } = new(Math.Max(8, 2 * Environment.ProcessorCount), TimeSpan.FromSeconds(10), TimeProvider.System);

    /// <summary>How many stand in line.</summary>
    public int Waiting => Volatile.Read(ref _waiting);

    /// <returns>Dispose it at the end of the list.</returns>
    public async Task<IDisposable> TakeAsync(CancellationToken cancellation)
    {
        Interlocked.Increment(ref _waiting);
        try
        {
            await _free.WaitAsync(cancellation).ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
        }
        return new Turn(_free, longest, time);
    }

    /// <summary>When no list is under way any more.</summary>
    public void Dispose() => _free.Dispose();

    private sealed class Turn : IDisposable
    {
        private readonly ITimer _end;
        private SemaphoreSlim? _taken;

        public Turn(SemaphoreSlim taken, TimeSpan longest, TimeProvider time)
        {
            _taken = taken;
            _end = time.CreateTimer(_ => GiveBack(), null, longest, Timeout.InfiniteTimeSpan);
        }

        public void Dispose()
        {
            GiveBack();
            _end.Dispose();
        }

        private void GiveBack() => Interlocked.Exchange(ref _taken, null)?.Release();
    }
}
