using System.Runtime;
using Mesh.StateDB;

namespace Mesh.Agent;

/// <summary>
/// Gives memory back to the system after a burst. The first list of a large cluster needs several times what is kept of it, and
/// the runtime would hold on to that for as long as nobody else asks. One compacting collection, once the burst is over, pauses
/// the agent for about a tenth of a second; the kernel forwards without it.
/// </summary>
internal static class BurstMemory
{
    /// <summary>Changed rows that make a burst.</summary>
    private const long BurstRows = 20_000;

    /// <summary>How long the table must be still before a burst counts as over.</summary>
    private static readonly TimeSpan Stillness = TimeSpan.FromSeconds(1);

    /// <summary>Runs until cancelled.</summary>
    public static async Task ReturnAsync<TKey, TRow>(ITable<TKey, TRow> table, TimeProvider time, CancellationToken cancellation)
        where TKey : notnull
        where TRow : class
    {
        using var timer = new PeriodicTimer(Stillness, time);
        long collectedAt = 0, before = 0;
        while (await timer.WaitForNextTickAsync(cancellation))
        {
            var revision = table.Revision;
            if (revision == before && revision - collectedAt >= BurstRows)
            {
                GCSettings.LargeObjectHeapCompactionMode = GCLargeObjectHeapCompactionMode.CompactOnce;
                GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
                collectedAt = revision;
            }
            before = revision;
        }
    }
}
