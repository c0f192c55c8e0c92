using System.Collections.Immutable;

namespace Mesh.KubeApi.Store;

/// <summary>Which resources are served: the built-in ones and those of CRDs, which come and go.</summary>
internal sealed class TypeRegistry
{
    private ImmutableDictionary<string, ResourceType> _types = BuiltIns.All.ToImmutableDictionary(type => type.Key);

    public IEnumerable<ResourceType> All => _types.Values.OrderBy(type => type.Group, StringComparer.Ordinal)
        .ThenBy(type => type.Plural, StringComparer.Ordinal);

    public ResourceType? Find(string group, string version, string plural) =>
        _types.TryGetValue($"{group}/{plural}", out var type) && type.Versions.Any(one => one.Name == version) ? type : null;

    /// <summary>By plural alone, or plural.group: for callers that name resources as people do.</summary>
    public ResourceType? Named(string name)
    {
        var dot = name.IndexOf('.', StringComparison.Ordinal);
        return dot < 0 ? All.FirstOrDefault(type => type.Plural == name) : _types.GetValueOrDefault($"{name[(dot + 1)..]}/{name[..dot]}");
    }

    public ResourceType? OfKind(string group, string kind) => _types.Values.FirstOrDefault(type => type.Group == group && type.Kind == kind);

    public void Serve(ResourceType type) => ImmutableInterlocked.Update(ref _types, types => types.SetItem(type.Key, type));

    public void Withdraw(string key) => ImmutableInterlocked.Update(ref _types, types => types.Remove(key));
}
