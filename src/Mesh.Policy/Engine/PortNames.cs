using Mesh.Kubernetes.Objects;
using Mesh.Kubernetes.Policies;
using Mesh.Model;
using Mesh.Policy.Rules;

namespace Mesh.Policy.Engine;

/// <summary>
/// The names that the pods of this cluster have for their ports, and rules with numbers in the place of names. Where a pod is spoken to,
/// its own names count; where it speaks, those of every pod, because a rule set does not know to whom. A name that nobody has allows
/// nothing. In a deny rule it denies nothing to the pod itself, which is known to have no such port, and every port of the protocol to
/// others: pods of other clusters do not tell their names.
/// </summary>
internal sealed class PortNames
{
    private readonly SortedDictionary<string, EquatableArray<KnownPort>> _pods = new(StringComparer.Ordinal);

    public static bool AreIn(IEnumerable<SpecRules> specs) =>
        specs.SelectMany(spec => spec.Rules).Any(rule => rule.Ports?.Any(port => port.Name is not null) == true);

    /// <summary>False when nothing has changed.</summary>
    public bool Set(string pod, IReadOnlyList<NamedPort> ports)
    {
        var told = new EquatableArray<KnownPort>([.. ports.Where(port => port is { Name.Length: > 0, Port: > 0 and <= ushort.MaxValue })
            .Select(port => new KnownPort(port.Name, ProtocolOf(port), (ushort)port.Port)).Where(port => port.Protocol != 0).Distinct()
            .OrderBy(port => port.Name, StringComparer.Ordinal).ThenBy(port => port.Protocol).ThenBy(port => port.Port)]);
        if (_pods.TryGetValue(pod, out var known) ? known.Equals(told) : !told.Items.Any())
            return false;
        if (!told.Items.Any())
            _pods.Remove(pod);
        else
            _pods[pod] = told;
        return true;
    }

    /// <param name="pod">The pod that is spoken to; null = any.</param>
    public SpecRules Resolve(SpecRules spec, string? pod) => !AreIn([spec]) ? spec : spec with
    {
        Rules = [.. spec.Rules.Select(rule => rule.Ports is not { } ports ? rule : rule with
        {
            Ports = [.. ports.SelectMany(port => port.Name is null ? [port] : Numbers(port, pod, rule.Deny))],
        })],
    };

    private List<PortSpec> Numbers(PortSpec port, string? pod, bool deny)
    {
        var found = _pods.Where(one => pod is null || one.Key == pod).SelectMany(one => one.Value.Items)
            .Where(one => one.Name == port.Name && one.Protocol == port.Protocol).Select(one => one.Port).Distinct().Order()
            .Select(number => port with { First = number, Last = number }).ToList();
        return found.Count == 0 && deny && pod is null ? [port with { First = 0, Last = ushort.MaxValue }] : found;
    }

    private readonly record struct KnownPort(string Name, byte Protocol, ushort Port);

    private static byte ProtocolOf(NamedPort port) => (port.Protocol ?? "TCP").ToUpperInvariant() switch
    {
        "" or "TCP" => 6,
        "UDP" => 17,
        "SCTP" => 132,
        _ => 0,
    };
}
