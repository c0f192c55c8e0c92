using Mesh.Model;

namespace Mesh.Agent.Ipam;

/// <summary>
/// The addresses of one pod range, in the order in which they are to be given: first those that nobody has had, upwards, then those that
/// have been given back, the longest free first: whoever still speaks to a pod that is gone must not reach its successor's.
/// It keeps no record of what is in use, but asks; so it cannot leak. Used under its owner's lock.
/// </summary>
internal sealed class AddressPool
{
    private readonly UInt128 _first;
    private readonly UInt128 _last;
    private readonly Queue<IpAddr> _freed = new();
    private readonly HashSet<IpAddr> _freedOnce = [];
    private UInt128 _next;

    /// <param name="range">Of it the first address names the range and is not given, nor the last of IPv4; ranges of one or two
    /// addresses are given whole.</param>
    public AddressPool(IpPrefix range)
    {
        Range = range;
        var base_ = range.Address.Value;
        var bits = range.Address.Bits - range.Length;
        var end = bits >= 128 ? UInt128.MaxValue : base_ + (UInt128.One << bits) - 1;
        var whole = bits <= 1;
        _first = whole ? base_ : base_ + 1;
        _last = whole || range.Address.IsV6 ? end : end - 1;
        _next = _first;
    }

    public IpPrefix Range { get; }

    /// <summary>Addresses that may be given to pods and the router, at most <see cref="long.MaxValue"/>.</summary>
    public long Size => (long)UInt128.Min(_last - _first + 1, long.MaxValue);

    /// <summary>The address that the node's router takes where nobody says otherwise: the first.</summary>
    public static IpAddr RouterOf(IpPrefix range) => new AddressPool(range).First;

    private IpAddr First => At(_first);

    /// <summary>The next address that is not in use; null when all are.</summary>
    public IpAddr? Next(Func<IpAddr, bool> inUse)
    {
        for (; _next <= _last && _next >= _first; _next++)
            if (!inUse(At(_next)) && !_freedOnce.Contains(At(_next)))
                return At(_next++);
        for (var tries = _freed.Count; tries > 0; tries--)
        {
            var address = _freed.Dequeue();
            if (!inUse(address))
            {
                _freedOnce.Remove(address);
                return address;
            }
            _freed.Enqueue(address);
        }
        // In use when we passed by, and freed by somebody who does not tell: the node's own addresses.
        for (var value = _first; value <= _last && value >= _first && value < _next; value++)
            if (!inUse(At(value)))
                return At(value);
        return null;
    }

    /// <summary>Nobody has it any more: last in the queue.</summary>
    public void Freed(IpAddr address)
    {
        if (Range.Contains(address) && address.Value >= _first && address.Value <= _last && _freedOnce.Add(address))
            _freed.Enqueue(address);
    }

    /// <summary>Begin above what is in use: what earlier runs gave and got back is not given at once.</summary>
    public void StartAbove(IpAddr address)
    {
        if (!Range.Contains(address) || address.Value < _next || address.Value >= _last)
            return;
        for (var value = _next; value < address.Value && _freed.Count < short.MaxValue; value++)
            Freed(At(value));
        _next = address.Value + 1;
    }

    private IpAddr At(UInt128 value) => Range.Address.IsV6 ? IpAddr.V6(value) : IpAddr.V4((uint)value);
}
