namespace Mesh.KubeApi;

/// <summary>What goes wrong with a request.</summary>
public enum FaultKind
{
    /// <summary>429 with Retry-After.</summary>
    TooManyRequests,

    /// <summary>500 InternalError.</summary>
    InternalError,

    /// <summary>503 without a Status body: what a load balancer before a dead server says.</summary>
    BadGateway,

    /// <summary>403 whoever asks.</summary>
    Forbidden,

    /// <summary>401 whoever asks: a token that is no longer good.</summary>
    Unauthorized,

    /// <summary>410 Gone as HTTP status: the revision or continue token is too old.</summary>
    Gone,

    /// <summary>409 Conflict: somebody else wrote first.</summary>
    Conflict,

    /// <summary>200, half of the JSON, and the connection is cut. A watch: the first event is cut in half.</summary>
    HalfBody,

    /// <summary>The request is taken and never answered, until the client goes or the fault is taken back.</summary>
    Hang,

    /// <summary>The right answer in chunks of <see cref="Fault.ChunkBytes"/> with <see cref="Fault.Delay"/> between them.</summary>
    SlowChunks,

    /// <summary>The connection is closed without an answer.</summary>
    Disconnect,

    /// <summary>The right answer after <see cref="Fault.Delay"/>.</summary>
    Late,

    /// <summary>The write is done, and the connection closed before the answer: did it happen or not?</summary>
    LostAnswer,
}

/// <summary>A fault and the requests that it meets. Null matches all.</summary>
public sealed record Fault(FaultKind Kind)
{
    /// <summary>get, list, watch, create, update, patch, delete, deletecollection.</summary>
    public string? Verb { get; init; }

    /// <summary>Plural name: "pods"; with a subresource "pods/exec".</summary>
    public string? Resource { get; init; }

    public string? Namespace { get; init; }

    public string? Name { get; init; }

    /// <summary>User name as authenticated.</summary>
    public string? User { get; init; }

    /// <summary>How many requests it meets before it is over.</summary>
    public int Times { get; init; } = int.MaxValue;

    /// <summary>Seconds in Retry-After of <see cref="FaultKind.TooManyRequests"/>.</summary>
    public int RetryAfterSeconds { get; init; } = 1;

    public int ChunkBytes { get; init; } = 1;

    public TimeSpan Delay { get; init; } = TimeSpan.FromMilliseconds(1);
}

/// <summary>The faults asked for. They act until their <see cref="Fault.Times"/> are over or they are taken back.</summary>
public sealed class FaultPlan
{
    private readonly Lock _lock = new();
    private readonly List<Active> _active = [];

    /// <summary>Asks for a fault; disposing takes it back and lets hanging requests go on.</summary>
    public Active Add(Fault fault)
    {
        var active = new Active(this, fault);
        lock (_lock)
            _active.Add(active);
        return active;
    }

    /// <summary>Takes all faults back.</summary>
    public void Clear()
    {
        List<Active> all;
        lock (_lock)
            all = [.. _active];
        foreach (var active in all)
            active.Dispose();
    }

    internal Active? Meet(string verb, string resource, string @namespace, string name, string user)
    {
        lock (_lock)
        {
            foreach (var active in _active)
            {
                var fault = active.Fault;
                if ((fault.Verb ?? verb) == verb && (fault.Resource ?? resource) == resource && (fault.Namespace ?? @namespace) == @namespace
                    && (fault.Name ?? name) == name && (fault.User ?? user) == user && active.Met < fault.Times)
                {
                    active.Met++;
                    return active;
                }
            }
            return null;
        }
    }

    /// <summary>A fault in force.</summary>
    public sealed class Active : IDisposable
    {
        private readonly FaultPlan _plan;
        private readonly CancellationTokenSource _over = new();

        internal Active(FaultPlan plan, Fault fault)
        {
            _plan = plan;
            Fault = fault;
        }

        public Fault Fault { get; }

        /// <summary>How many requests it has met.</summary>
        public int Met { get; internal set; }

        /// <summary>Cancelled when the fault is taken back.</summary>
        internal CancellationToken Over => _over.Token;

        public void Dispose()
        {
            lock (_plan._lock)
                _plan._active.Remove(this);
            _over.Cancel();
        }
    }
}
