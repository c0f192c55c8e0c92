using Mesh.Model;

namespace Mesh.Policy.Engine;

/// <summary>
/// Numbers for the address ranges that rules name. They hold on this node alone (scope 0x01, never on the wire). A range keeps its
/// number as long as the kernel may know it: over a restart of the agent, and for a while after the last rule that named it, because
/// its addresses stop showing the number a moment later.
/// </summary>
public sealed class RangeIdentities
{
    public const uint Scope = 0x01000000;
    private const uint ScopeMask = 0xff000000;

    private readonly Dictionary<IpPrefix, Entry> _ranges = [];
    private readonly HashSet<uint> _taken = [];
    private uint _next = Scope + 1;

    /// <param name="known">What an earlier run left in the kernel. Ranges that nobody names soon are given up like others.</param>
    internal RangeIdentities(IEnumerable<KeyValuePair<IpPrefix, uint>> known, DateTimeOffset now)
    {
        foreach (var (range, number) in known)
            if (IsRange(number) && _taken.Add(number))
                _ranges[range] = new Entry(number, 0, now);
    }

    /// <summary>True for a number of this kind.</summary>
    public static bool IsRange(uint identity) => (identity & ScopeMask) == Scope;

    /// <summary>Ranges that rules name, with their identities.</summary>
    internal IEnumerable<KeyValuePair<IpPrefix, uint>> Named =>
        _ranges.Where(pair => pair.Value.Uses > 0).Select(pair => KeyValuePair.Create(pair.Key, pair.Value.Number));

    internal IEnumerable<KeyValuePair<IpPrefix, uint>> All => _ranges.Select(pair => KeyValuePair.Create(pair.Key, pair.Value.Number));

    /// <returns>True when the range is new.</returns>
    internal bool Use(IpPrefix range, out uint number)
    {
        if (_ranges.TryGetValue(range, out var entry))
        {
            number = entry.Number;
            _ranges[range] = entry with { Uses = entry.Uses + 1 };
            return false;
        }
        while (!_taken.Add(_next))
            _next++;
        number = _next++;
        _ranges[range] = new Entry(number, 1, default);
        return true;
    }

    internal void Release(IpPrefix range, DateTimeOffset now) =>
        _ranges[range] = _ranges[range] with { Uses = _ranges[range].Uses - 1, UnusedSince = now };

    /// <summary>Gives up what nobody has named since then.</summary>
    internal IReadOnlyList<uint> Forget(DateTimeOffset unusedSince)
    {
        var gone = _ranges.Where(pair => pair.Value.Uses == 0 && pair.Value.UnusedSince <= unusedSince).ToList();
        foreach (var (range, entry) in gone)
        {
            _ranges.Remove(range);
            _taken.Remove(entry.Number);
        }
        return [.. gone.Select(pair => pair.Value.Number)];
    }

    private readonly record struct Entry(uint Number, int Uses, DateTimeOffset UnusedSince);
}
