using System.Net;
using Mesh.Agent.Ipam;
using Mesh.AgentApi;
using Mesh.ControlPlane;
using Mesh.ControlPlane.Endpoints;
using Mesh.Kubernetes;
using Mesh.Model;
using Endpoint = Mesh.ControlPlane.Endpoints.Endpoint;

namespace Mesh.Agent.Endpoints;

/// <summary>
/// The pods of this node, as whoever made them has registered them. A registration is on disk before it is answered, and is taken
/// up again at the next start, with the interface looked up anew: its index is only as old as the kernel's namespace.
/// </summary>
internal sealed class EndpointRegistry
{
    /// <summary>Its name among the sources the endpoints table waits for.</summary>
    public const string Name = "registered endpoints";

    private readonly Lock _lock = new();
    private readonly DesiredState _state;
    private readonly EndpointsWriter _writer;
    private readonly EndpointFiles _files;
    private readonly Func<string, int> _indexOf;
    private readonly TimeProvider _time;
    private readonly PodAddresses _addresses;
    private readonly TaskCompletionSource _restored = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Dictionary<ushort, EndpointChangeRequest> _registered = [];
    private readonly Dictionary<string, SourceProblem> _problems = new(StringComparer.Ordinal);
    private ushort _last;

    /// <param name="indexOf">Index of an interface in the node's network namespace, 0 when there is none.</param>
    /// <param name="addresses">Is told of every address that an endpoint has, and of every one that it has no more.</param>
    public EndpointRegistry(DesiredState state, EndpointsWriter writer, EndpointFiles files, PodAddresses addresses, Func<string, int> indexOf,
        TimeProvider time)
    {
        _addresses = addresses;
        _state = state;
        _writer = writer;
        _files = files;
        _indexOf = indexOf;
        _time = time;
        state.Endpoints.AddInitializer(Name);
        state.Endpoints.SealInitializers();
    }

    /// <summary>Registrations that could not be taken up again.</summary>
    public IReadOnlyList<SourceProblem> Problems
    {
        get
        {
            lock (_lock)
                return [.. _problems.Values];
        }
    }

    /// <summary>Completes when what earlier runs left has been taken up: whoever registers or removes before that is early.</summary>
    public Task Restored => _restored.Task;

    /// <summary>Takes up what earlier runs left on disk. Called once, after the objects are known: they give the identities.</summary>
    public void Restore()
    {
        lock (_lock)
        {
            foreach (var request in _files.ReadAll(Reject))
            {
                // The kernel removes both ends of a pod's device with its namespace: that pod ended while nobody listened.
                if (request.Attachment is not null && IsGone(request))
                    _files.Delete(request.Id);
                else if (Check(request) is { } fault)
                    Reject($"endpoint {request.Id} ({request.K8sNamespace}/{request.K8sPodName})", fault);
                else
                    Take(request);
            }
            _state.Endpoints.InitializerDone(Name);
        }
        _restored.TrySetResult();
    }

    /// <summary>Registers a pod, or replaces what was registered of it: the id stays.</summary>
    /// <exception cref="EndpointRefusedException">The request is impossible; nothing has changed.</exception>
    public Endpoint Register(EndpointChangeRequest request)
    {
        lock (_lock)
        {
            var known = Find(request.K8sNamespace ?? "", request.K8sPodName ?? "", request.ContainerInterfaceName);
            var id = known ?? (request.Id is > 0 and <= ushort.MaxValue ? (ushort)request.Id : FreeId());
            var complete = request with { Id = id, SyncBuildEndpoint = false };
            if (Check(complete) is { } fault)
                throw new EndpointRefusedException(HttpStatusCode.BadRequest, fault);
            if (known is null && _registered.ContainsKey(id))
                throw new EndpointRefusedException(HttpStatusCode.Conflict, $"endpoint {id} is another pod: register with id 0 to be given a free one");
            if (AddressTaken(complete) is { } taken)
                throw new EndpointRefusedException(HttpStatusCode.Conflict, taken);
            if (_addresses.Refusal(KeyOf(complete), AddressesOf(complete)) is { } reserved)
                throw new EndpointRefusedException(HttpStatusCode.Conflict, reserved);
            try
            {
                _files.Write(complete);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                throw new EndpointRefusedException(HttpStatusCode.InternalServerError, $"the registration cannot be kept in --state-dir: {e.Message}");
            }
            return Take(complete);
        }
    }

    /// <summary>False when there is no such endpoint.</summary>
    /// <param name="reference">"7", "endpoint-id:7", "cilium-local:7", "pod-name:ns/name", "cep-name:ns/name", "container-id:ID" or
    /// "cni-attachment-id:ID:IFNAME".</param>
    public bool Remove(string reference)
    {
        lock (_lock)
        {
            if (Resolve(reference) is not { } id)
                return false;
            Drop(id);
            return true;
        }
    }

    /// <summary>Removes pods that plugins made and whose device has gone with the pod's namespace: nobody will ask for their end.</summary>
    /// <returns>Their names.</returns>
    public IReadOnlyList<string> RemoveVanished() => RemoveWhere(IsGone);

    /// <summary>Removes pods of this network that are none of the attachments.</summary>
    /// <returns>Their names.</returns>
    public IReadOnlyList<string> RemoveAllBut(string network, IReadOnlySet<string> attachments) =>
        RemoveWhere(request => request.CniNetwork == network && !attachments.Contains(request.Attachment!));

    /// <summary>What was registered; null when there is no such endpoint.</summary>
    public EndpointChangeRequest? Registration(ushort id)
    {
        lock (_lock)
            return _registered.GetValueOrDefault(id);
    }

    private List<string> RemoveWhere(Func<EndpointChangeRequest, bool> leaves)
    {
        lock (_lock)
        {
            var leaving = _registered.Where(pair => pair.Value.Attachment is not null && leaves(pair.Value)).ToList();
            foreach (var (id, _) in leaving)
                Drop(id);
            return [.. leaving.Select(pair => $"{pair.Value.K8sNamespace}/{pair.Value.K8sPodName} ({pair.Value.InterfaceName})")];
        }
    }

    private void Drop(ushort id)
    {
        _files.Delete(id);
        _writer.Remove(id);
        if (_registered.Remove(id, out var request))
            _addresses.Registered(NameOf(request), AddressesOf(request), []);
    }

    private bool IsGone(EndpointChangeRequest request) => _indexOf(request.InterfaceName ?? "") == 0;

    private static string NameOf(EndpointChangeRequest request) => $"{request.K8sNamespace}/{request.K8sPodName}";

    /// <summary>By which its addresses were reserved.</summary>
    private static string KeyOf(EndpointChangeRequest request) => request.Attachment ?? NameOf(request);

    /// <summary>Null when there is no such endpoint.</summary>
    public ushort? Resolve(string reference)
    {
        var colon = reference.IndexOf(':', StringComparison.Ordinal);
        var (scheme, name) = colon < 0 ? ("endpoint-id", reference) : (reference[..colon], reference[(colon + 1)..]);
        lock (_lock)
        {
            switch (scheme)
            {
                case "endpoint-id" or "cilium-local":
                    return ushort.TryParse(name, out var id) && _registered.ContainsKey(id) ? id : null;
                case "pod-name" or "cep-name" when name.Split('/') is [var ns, var pod]:
                    return Find(ns, pod, null);
                case "container-id":
                    return FirstOf(request => request.ContainerId == name);
                case "cni-attachment-id":
                    return FirstOf(request => request.Attachment == name);
                default:
                    return null;
            }
        }
    }

    private Endpoint Take(EndpointChangeRequest request)
    {
        var id = (ushort)request.Id;
        var before = _registered.GetValueOrDefault(id);
        _registered[id] = request;
        _addresses.Registered(NameOf(request), before is null ? [] : AddressesOf(before), [.. AddressesOf(request)]);
        _ = MacText.TryParse(request.Mac, out var podMac);
        _ = MacText.TryParse(request.HostMac, out var hostMac);
        return _writer.Register(new Endpoint(id, request.K8sNamespace!, request.K8sPodName!, request.InterfaceName!,
            _indexOf(request.InterfaceName!), podMac, hostMac, new EquatableArray<IpAddr>(AddressesOf(request)), 0));
    }

    /// <summary>Null when the request can be registered, otherwise the field, its value and what is allowed.</summary>
    private string? Check(EndpointChangeRequest request)
    {
        if (!IsName(request.K8sNamespace))
            return $"k8s-namespace '{request.K8sNamespace}' must name the pod's namespace";
        if (!IsName(request.K8sPodName))
            return $"k8s-pod-name '{request.K8sPodName}' must name the pod";
        if (!MacText.TryParse(request.Mac, out _))
            return $"mac '{request.Mac}' must be the link-layer address of the pod's side, such as 0a:00:00:00:00:01";
        if (!MacText.TryParse(request.HostMac, out _))
            return $"host-mac '{request.HostMac}' must be the link-layer address of the node's side";
        if (!IsAddress(request.Addressing?.Ipv4, v6: false))
            return $"addressing.ipv4 '{request.Addressing?.Ipv4}' is not an IPv4 address";
        if (!IsAddress(request.Addressing?.Ipv6, v6: true))
            return $"addressing.ipv6 '{request.Addressing?.Ipv6}' is not an IPv6 address";
        if (!AddressesOf(request).Any())
            return "addressing is empty: give the pod's ipv4, its ipv6, or both";
        if (string.IsNullOrEmpty(request.InterfaceName) || _indexOf(request.InterfaceName) == 0)
            return $"interface-name '{request.InterfaceName}': the node's network namespace has no such interface: create it, then register";
        return null;
    }

    private string? AddressTaken(EndpointChangeRequest request)
    {
        var wanted = AddressesOf(request).ToHashSet();
        foreach (var (id, other) in _registered)
            if (id != request.Id && AddressesOf(other).FirstOrDefault(wanted.Contains) is { IsUnspecified: false } address)
                return $"address {address} belongs to endpoint {id} ({other.K8sNamespace}/{other.K8sPodName}): remove that one first";
        return null;
    }

    private void Reject(string where, string message) => _problems[where] = new SourceProblem(where, message, _time.GetUtcNow());

    /// <param name="device">Of the pod, where plugins gave it several; null for any.</param>
    private ushort? Find(string @namespace, string pod, string? device) => FirstOf(request => request.K8sNamespace == @namespace
        && request.K8sPodName == pod && (device is null || request.ContainerInterfaceName is null || request.ContainerInterfaceName == device));

    private ushort? FirstOf(Func<EndpointChangeRequest, bool> wanted)
    {
        foreach (var (id, request) in _registered)
            if (wanted(request))
                return id;
        return null;
    }

    /// <summary>The next after the last given: an id just given back is not somebody else's at once.</summary>
    private ushort FreeId()
    {
        for (var tries = 0; tries < ushort.MaxValue; tries++)
        {
            _last = _last == ushort.MaxValue ? (ushort)1 : (ushort)(_last + 1);
            if (!_registered.ContainsKey(_last))
                return _last;
        }
        throw new EndpointRefusedException(HttpStatusCode.InsufficientStorage, $"all {ushort.MaxValue} endpoint ids are in use");
    }

    private static IEnumerable<IpAddr> AddressesOf(EndpointChangeRequest request) =>
        from text in new[] { request.Addressing?.Ipv4, request.Addressing?.Ipv6 }
        let parsed = (Ok: IpAddr.TryParse(text, out var ip), Ip: ip)
        where parsed.Ok
        select parsed.Ip;

    private static bool IsAddress(string? text, bool v6) =>
        string.IsNullOrEmpty(text) || (IpAddr.TryParse(text, out var address) && address.IsV6 == v6 && !address.IsUnspecified);

    private static bool IsName(string? text) => text is { Length: > 0 and <= 253 } && !text.AsSpan().ContainsAny(" /:");
}

/// <summary>A request that cannot be carried out; the message says why and is the answer's body.</summary>
internal sealed class EndpointRefusedException(HttpStatusCode status, string message) : Exception(message)
{
    public HttpStatusCode Status => status;
}
