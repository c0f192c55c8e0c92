using Mesh.Kubernetes.Objects;
using Mesh.Kubernetes.Policies;
using Mesh.Model;
using Mesh.Policy.Rules;

namespace Mesh.Policy.Engine;

/// <summary>What the engine has to know about its place.</summary>
public sealed record PolicyEngineOptions
{
    /// <summary>Name of the own cluster.</summary>
    public required string Cluster { get; init; }

    /// <summary>A selector that names no cluster means the own one (flag policy-default-local-cluster).</summary>
    public bool DefaultLocalCluster { get; init; } = true;

    /// <summary>What policies deny is counted, and passes (flag policy-audit-mode).</summary>
    public bool Audit { get; init; }

    /// <summary>How long a pod that ran without policy in a direction has its flows remembered before its first rules hold: answers that
    /// are on their way must not be cut. New pods are judged at once.</summary>
    public TimeSpan Learning { get; init; }

    /// <summary>Above all numbers that the kernel may still hold from an earlier run: sets are never mixed.</summary>
    public uint FirstSet { get; init; } = EndpointPolicyRow.FirstSet;

    /// <summary>Address ranges and their identities as an earlier run left them in the kernel.</summary>
    public IReadOnlyList<KeyValuePair<IpPrefix, uint>> KnownRanges { get; init; } = [];
}

/// <summary>
/// Policies, identities, namespaces and endpoints in; rows of the policies table out. Told what has changed, it works out no more
/// than that: an identity touches the sets whose selectors mean it, an object the endpoints that it selects. A changed object makes
/// new rule sets; the old ones leave when no endpoint holds them any more. Not thread-safe.
/// </summary>
public sealed class PolicyEngine
{
    /// <summary>How long a range nobody names any more keeps its identity.</summary>
    public static readonly TimeSpan RangeLinger = TimeSpan.FromSeconds(10);

    private readonly PolicyEngineOptions _options;
    private readonly TimeProvider _time;
    private readonly SpecRulesOf _rulesOf;
    private readonly SortedDictionary<string, Policy> _policies = new(StringComparer.Ordinal);
    private readonly Dictionary<uint, PeerIdentity> _identities = [];

    /// <summary>As they were told, before the labels of their namespaces.</summary>
    private readonly Dictionary<uint, (IReadOnlyList<string> Labels, string Cluster)> _told = [];
    private readonly Dictionary<string, IReadOnlyDictionary<string, string>> _namespaces = new(StringComparer.Ordinal);
    private readonly SortedDictionary<ushort, EndpointState> _endpoints = [];
    private readonly PortNames _names = new();
    private readonly SelectorCache _selectors = new();
    private readonly Dictionary<string, RuleSet> _sets = new(StringComparer.Ordinal);
    private readonly RangeIdentities _ranges;
    private readonly Dictionary<PolicyKey, PolicyRow?> _rows = [];
    private readonly Dictionary<PolicyKey, PolicyRow?> _words = [];
    private readonly SortedSet<string> _problems = new(StringComparer.Ordinal);
    private readonly HashSet<uint> _touched = [];
    private bool _all;
    private uint _nextSet;

    public PolicyEngine(PolicyEngineOptions options, TimeProvider time)
    {
        _options = options;
        _time = time;
        _rulesOf = new SpecRulesOf(options.Cluster, options.DefaultLocalCluster);
        _nextSet = Math.Max(options.FirstSet, EndpointPolicyRow.FirstSet);
        _ranges = new RangeIdentities(options.KnownRanges, time.GetUtcNow());
        foreach (var (number, word) in NumericIdentity.Reserved)
            if (number != NumericIdentity.Unknown)
                _identities[number] = new PeerIdentity(number, ReservedLabels(number, word));
        foreach (var (range, number) in _ranges.All)
            AddRange(range, number);
    }

    public PolicyEngineOptions Options => _options;

    /// <summary>Grows with each change of policies.</summary>
    public long Revision { get; private set; } = 1;

    /// <summary>Objects by name, with their rules and what of them is not done.</summary>
    public IEnumerable<Policy> Policies => _policies.Values;

    /// <summary>What could not be done, one line each.</summary>
    public IReadOnlyCollection<string> Problems => _problems;

    /// <summary>Ranges that rules name → identity. Their addresses may show it once the table's rows are in the kernel.</summary>
    public IReadOnlyList<KeyValuePair<IpPrefix, uint>> Ranges => [.. _ranges.Named];

    public int Sets => _sets.Count;

    public int Selectors => _selectors.Count;

    /// <param name="policy">Of one of the three kinds.</param>
    public void SetPolicy(KubernetesObject policy)
    {
        RemovePolicy(policy.Key);
        var reading = PolicyReading.Of(policy);
        _policies[policy.Key.ToString()] = new Policy(policy.Key, _rulesOf.Make(policy.Key, reading), reading.Unsupported);
    }

    public void RemovePolicy(ObjectKey key)
    {
        _all = true;
        Revision++;
        if (_policies.Remove(key.ToString(), out var policy))
            _rulesOf.Free(policy.Specs);
    }

    /// <param name="labels">Of the Namespace object.</param>
    public void SetNamespace(string name, IReadOnlyDictionary<string, string>? labels)
    {
        if (labels is null)
            _namespaces.Remove(name);
        else
            _namespaces[name] = labels;
        foreach (var (id, who) in _identities)
            if (who.Namespace == name && _told.TryGetValue(id, out var told) && told.Cluster == _options.Cluster)
                _touched.Add(id);
    }

    /// <param name="labels">"source:key=value", as they stand in the identities table.</param>
    public void SetIdentity(uint id, IReadOnlyList<string> labels, string cluster)
    {
        // Reserved numbers mean the same everywhere, whatever anybody says.
        if (id < NumericIdentity.FirstAllocatable || RangeIdentities.IsRange(id))
            return;
        _told[id] = (labels, cluster);
        _touched.Add(id);
    }

    public void RemoveIdentity(uint id)
    {
        if (_told.Remove(id))
            _touched.Add(id);
    }

    /// <summary>What a pod of this cluster calls its ports: rules that name a port mean its number, of the pod itself where it is spoken
    /// to, of any pod where it speaks.</summary>
    /// <param name="pod">namespace/name.</param>
    /// <param name="ports">Empty when the pod has gone.</param>
    public void SetNamedPorts(string pod, IReadOnlyList<NamedPort> ports)
    {
        if (!_names.Set(pod, ports))
            return;
        foreach (var endpoint in _endpoints.Values)
            endpoint.Stale |= endpoint.Pod == pod || endpoint.Egress?.HasNames == true;
    }

    /// <param name="identity">0 = not known yet.</param>
    /// <param name="pod">namespace/name.</param>
    public void SetEndpoint(ushort id, uint identity, string pod = "")
    {
        var effective = identity == 0 ? NumericIdentity.Init : identity;
        if (!_endpoints.TryGetValue(id, out var endpoint))
            _endpoints[id] = new EndpointState { Identity = effective, Pod = pod, Stale = true };
        else if (endpoint.Identity != effective || endpoint.Pod != pod)
            (endpoint.Identity, endpoint.Pod, endpoint.Stale) = (effective, pod, true);
    }

    public void RemoveEndpoint(ushort id)
    {
        if (!_endpoints.Remove(id, out var endpoint))
            return;
        Leave(id, endpoint.Ingress);
        Leave(id, endpoint.Egress);
        _words[PolicyKey.Endpoint(id)] = null;
    }

    /// <summary>Works out what has changed since the last call. In the order in which it must reach the kernel: verdicts, then the words
    /// that make packets ask for them; deletions last, and then only after every packet has left the old words.</summary>
    public IReadOnlyList<KeyValuePair<PolicyKey, PolicyRow?>> Take()
    {
        ApplyIdentities();
        foreach (var (id, endpoint) in _endpoints)
            if (_all || endpoint.Stale || (endpoint.Due is { } due && due <= _time.GetUtcNow()))
                Decide(id, endpoint);
        _all = false;
        foreach (var number in _ranges.Forget(_time.GetUtcNow() - RangeLinger))
        {
            _identities.Remove(number);
            Judge(number, null);
            _words[PolicyKey.Range(number)] = null;
        }
        var changes = _rows.Concat(_words).ToList();
        _rows.Clear();
        _words.Clear();
        return [.. changes.OrderBy(change => change.Value is null ? 2 : change.Key.Kind == PolicyKeyKind.Verdict ? change.Key.Id == 0 ? 1 : 0 : 1)];
    }

    /// <summary>When <see cref="Take"/> has something to do though nothing has changed; null when never.</summary>
    public DateTimeOffset? NextDue => _endpoints.Values.Min(endpoint => endpoint.Due);

    /// <summary>The sets of an endpoint; null where the direction is not enforced.</summary>
    internal (RuleSet? Ingress, RuleSet? Egress, bool Decided)? SetsOf(ushort endpoint) =>
        _endpoints.TryGetValue(endpoint, out var state) ? (state.Ingress, state.Egress, state.Decided) : null;

    internal uint IdentityOf(ushort endpoint) => _endpoints[endpoint].Identity;

    internal PeerIdentity? Identity(uint id) => _identities.GetValueOrDefault(id);

    /// <summary>Endpoints by id.</summary>
    public IReadOnlyList<EndpointEnforcement> Enforcement() =>
    [
        .. _endpoints.Select(pair => new EndpointEnforcement(pair.Key, pair.Value.Identity, pair.Value.Decided, pair.Value.Ingress?.Number,
            pair.Value.Egress?.Number, (pair.Value.Ingress?.Rows.Count + 1 ?? 0) + (pair.Value.Egress?.Rows.Count + 1 ?? 0))),
    ];

    private void ApplyIdentities()
    {
        foreach (var id in _touched)
        {
            if (_told.TryGetValue(id, out var told))
                _identities[id] = new PeerIdentity(id, WithNamespace(told.Labels, told.Cluster));
            else
                _identities.Remove(id);
            Judge(id, _identities.GetValueOrDefault(id));
            foreach (var endpoint in _endpoints.Values)
                endpoint.Stale |= endpoint.Identity == id;
        }
        _touched.Clear();
    }

    /// <summary>Labels that a pod has from its namespace, where its identity does not carry them itself.</summary>
    private IEnumerable<string> WithNamespace(IReadOnlyList<string> labels, string cluster)
    {
        var place = labels.FirstOrDefault(label => label.StartsWith($"k8s:{LabelSelector.NamespaceLabel}=", StringComparison.Ordinal));
        if (cluster != _options.Cluster || place is null
            || !_namespaces.TryGetValue(place[(place.IndexOf('=', StringComparison.Ordinal) + 1)..], out var its))
            return labels;
        // The identity's own come later, and win.
        return its.Select(label => $"k8s:{LabelSelector.NamespaceLabelsPrefix}{label.Key}={label.Value}").Concat(labels);
    }

    private void Judge(uint identity, PeerIdentity? who)
    {
        foreach (var set in _selectors.Ask(identity, who))
            if (who is not null)
            {
                if (set.Judge(identity) is { } verdict)
                    _rows[PolicyKey.Verdict(set.Number, identity)] = verdict;
            }
            else if (set.Rows.Remove(identity))
            {
                _rows[PolicyKey.Verdict(set.Number, identity)] = null;
            }
    }

    private void Decide(ushort id, EndpointState endpoint)
    {
        endpoint.Stale = false;
        var (wasOpen, now) = (endpoint.Decided && !endpoint.Fresh, _time.GetUtcNow());
        var who = _identities.GetValueOrDefault(endpoint.Identity);
        // Of whom nothing is known no policy can be said to select or not: with any policy there, nothing passes until it is.
        endpoint.Decided = who is not null || _policies.Count == 0;
        var before = (endpoint.Ingress, endpoint.Egress);
        endpoint.Ingress = SetFor(id, who, PolicyDirection.Ingress);
        endpoint.Egress = SetFor(id, who, PolicyDirection.Egress);
        endpoint.Fresh = false;
        endpoint.IngressFrom = From(wasOpen, before.Ingress, endpoint.Ingress, endpoint.IngressFrom, now);
        endpoint.EgressFrom = From(wasOpen, before.Egress, endpoint.Egress, endpoint.EgressFrom, now);
        _words[PolicyKey.Endpoint(id)] = endpoint.Decided
            ? new EndpointPolicyRow(Word(endpoint.Ingress, endpoint.IngressFrom), Word(endpoint.Egress, endpoint.EgressFrom), _options.Audit)
            : new EndpointPolicyRow(EndpointPolicyRow.Undecided, EndpointPolicyRow.Undecided, false);
        if (before.Ingress != endpoint.Ingress)
            Leave(id, before.Ingress);
        if (before.Egress != endpoint.Egress)
            Leave(id, before.Egress);
    }

    /// <summary>From when a direction's rules hold; null = now.</summary>
    private DateTimeOffset? From(bool wasOpen, RuleSet? before, RuleSet? after, DateTimeOffset? from, DateTimeOffset now)
    {
        if (after is null || _options.Learning == TimeSpan.Zero)
            return null;
        var begins = before is null && wasOpen ? now + _options.Learning : from;
        return begins > now ? begins : null;
    }

    private static uint Word(RuleSet? set, DateTimeOffset? from) =>
        set is null ? EndpointPolicyRow.Unenforced : from is null ? set.Number : EndpointPolicyRow.Learning;

    /// <summary>The set of all specs that select the pod; null when none does, and the direction is not enforced.</summary>
    private RuleSet? SetFor(ushort endpoint, PeerIdentity? who, PolicyDirection direction)
    {
        if (who is null)
            return null;
        var specs = _policies.Values.SelectMany(policy => policy.Specs).Where(spec => spec.Direction == direction && who.Meets(spec.Subject)).ToList();
        // Beginning pods are shut off as long as there are policies that may be meant for them.
        if (specs.Count == 0 && !(who.Id == NumericIdentity.Init && _policies.Count > 0))
            return null;
        if (specs.Count == 0)
            specs.Add(new SpecRules(0, default, "", LabelSelector.Everything, direction, DefaultDeny: true, []));
        var key = $"{direction} {string.Join(',', specs.Select(spec => spec.Serial))}";
        var named = PortNames.AreIn(specs);
        if (named)
        {
            specs = [.. specs.Select(spec => _names.Resolve(spec, direction == PolicyDirection.Ingress ? _endpoints[endpoint].Pod : null))];
            key += $" {string.Join(' ', specs.SelectMany(spec => spec.Rules).SelectMany(rule => rule.Ports ?? []))}";
        }
        if (!_sets.TryGetValue(key, out var set))
            _sets[key] = set = Make(specs, named);
        set.Endpoints.Add(endpoint);
        return set;
    }

    private RuleSet Make(List<SpecRules> specs, bool named)
    {
        foreach (var range in specs.SelectMany(spec => spec.Rules).SelectMany(rule => rule.Peers).OfType<RangeSelector>()
            .SelectMany(one => one.Named).Distinct())
            if (_ranges.Use(range, out var number))
                AddRange(range, number);
        var set = new RuleSet(_nextSet++, specs, _selectors, _identities.Values, problem => _problems.Add(problem)) { HasNames = named };
        foreach (var (identity, verdict) in set.Rows)
            _rows[PolicyKey.Verdict(set.Number, identity)] = verdict;
        _rows[PolicyKey.Verdict(set.Number, 0)] = set.Default;
        return set;
    }

    private void AddRange(IpPrefix range, uint number)
    {
        var who = new PeerIdentity(number, [$"reserved:{NumericIdentity.Reserved[NumericIdentity.World]}"], range);
        _identities[number] = who;
        Judge(number, who);
        _words[PolicyKey.Range(number)] = new RangeRow(range);
    }

    private void Leave(ushort endpoint, RuleSet? set)
    {
        if (set is null || !set.Endpoints.Remove(endpoint) || set.Endpoints.Count > 0)
            return;
        set.Release(_selectors);
        foreach (var range in set.Ranges)
            _ranges.Release(range, _time.GetUtcNow());
        _sets.Remove(_sets.First(pair => pair.Value == set).Key);
        foreach (var identity in set.Rows.Keys)
            _rows[PolicyKey.Verdict(set.Number, identity)] = null;
        _rows[PolicyKey.Verdict(set.Number, 0)] = null;
    }

    private static IEnumerable<string> ReservedLabels(uint number, string word) => number switch
    {
        NumericIdentity.KubeApiserver => [$"reserved:{word}", "reserved:remote-node"],
        NumericIdentity.WorldIPv4 or NumericIdentity.WorldIPv6 => [$"reserved:{word}", "reserved:world"],
        _ => [$"reserved:{word}"],
    };

    private sealed class EndpointState
    {
        public uint Identity { get; set; }

        /// <summary>namespace/name.</summary>
        public string Pod { get; set; } = "";

        public bool Stale { get; set; }

        public bool Decided { get; set; }

        /// <summary>Not decided before: no flow of its can be running.</summary>
        public bool Fresh { get; set; } = true;

        public DateTimeOffset? IngressFrom { get; set; }

        public DateTimeOffset? EgressFrom { get; set; }

        public DateTimeOffset? Due => new[] { IngressFrom, EgressFrom }.Min();

        public RuleSet? Ingress { get; set; }

        public RuleSet? Egress { get; set; }
    }
}

/// <summary>A policy object as it is in force.</summary>
/// <param name="Unsupported">Fields that are not done, with what holds in their place.</param>
public sealed record Policy(ObjectKey Key, IReadOnlyList<SpecRules> Specs, IReadOnlyList<string> Unsupported);

/// <param name="Decided">False while nothing passes because the pod's labels are not known.</param>
/// <param name="Ingress">Number of the rule set; null when the direction is not enforced.</param>
/// <param name="Rows">Verdicts of its sets.</param>
public sealed record EndpointEnforcement(ushort Id, uint Identity, bool Decided, uint? Ingress, uint? Egress, int Rows);
