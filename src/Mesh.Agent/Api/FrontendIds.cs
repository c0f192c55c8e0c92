using Mesh.Model;

namespace Mesh.Agent.Api;

/// <summary>Numbers for people: each frontend keeps its own while it exists, and no number is used twice.</summary>
internal sealed class FrontendIds
{
    private readonly Lock _lock = new();
    private readonly Dictionary<L3n4Addr, long> _ids = [];
    private long _last;

    /// <param name="frontends">All there are at present; the ids of others are given up.</param>
    public IReadOnlyDictionary<L3n4Addr, long> Of(IReadOnlyCollection<L3n4Addr> frontends)
    {
        lock (_lock)
        {
            foreach (var gone in _ids.Keys.Except(frontends).ToList())
                _ids.Remove(gone);
            foreach (var frontend in frontends.Order())
                if (!_ids.ContainsKey(frontend))
                    _ids[frontend] = ++_last;
            return new Dictionary<L3n4Addr, long>(_ids);
        }
    }
}
