using System.Net;

namespace Mesh.Kubernetes.Api;

/// <summary>What went wrong with a request, as far as whoever asked has to act on it.</summary>
public enum KubeFault
{
    /// <summary>400: the request makes no sense to the server.</summary>
    BadRequest,

    /// <summary>401: the server does not know us.</summary>
    Unauthorized,

    /// <summary>403: RBAC or an admission denies it.</summary>
    Forbidden,

    /// <summary>404: no such object, or no such resource at all.</summary>
    NotFound,

    /// <summary>409 with reason AlreadyExists: a create came second.</summary>
    AlreadyExists,

    /// <summary>409: the object has changed since it was read, or another field manager owns a field.</summary>
    Conflict,

    /// <summary>410: the resource version or continue token is too old; list again.</summary>
    Gone,

    /// <summary>422: the object breaks its schema.</summary>
    Invalid,

    /// <summary>429: asked too often; wait as long as <see cref="KubeApiException.RetryAfter"/> says.</summary>
    TooManyRequests,

    /// <summary>5xx.</summary>
    ServerError,

    /// <summary>No connection, or it broke.</summary>
    Unreachable,

    /// <summary>The server took the request and did not answer in time.</summary>
    Timeout,

    /// <summary>The server answered with what is no answer, such as half a JSON.</summary>
    BadAnswer,

    /// <summary>Any other refusal; see <see cref="KubeApiException.Status"/>.</summary>
    Other,
}

/// <summary>The one exception of this client: a request that was refused, or never answered. The message is one line that names the
/// request and what the server said.</summary>
public sealed class KubeApiException : Exception
{
    public KubeApiException(KubeFault fault, string message, Exception? inner = null)
        : base(message, inner) => Fault = fault;

    public KubeFault Fault { get; }

    /// <summary>0 when no answer came.</summary>
    public HttpStatusCode Status { get; init; }

    /// <summary>The server's own word, such as "AlreadyExists"; "" when it gave none.</summary>
    public string Reason { get; init; } = "";

    /// <summary>What the server said, without the request in front.</summary>
    public string ServerMessage { get; init; } = "";

    /// <summary>How long the server wants us to wait; null when it did not say.</summary>
    public TimeSpan? RetryAfter { get; init; }

    /// <summary>Fields that broke a schema, or that another field manager owns: "spec.x: why".</summary>
    public IReadOnlyList<string> Causes { get; init; } = [];

    /// <summary>Trying the same again later may help; nothing about the request itself is wrong.</summary>
    public bool IsTransient => Fault is KubeFault.TooManyRequests or KubeFault.ServerError or KubeFault.Unreachable or KubeFault.Timeout
        or KubeFault.BadAnswer;

    internal static KubeFault FaultOf(HttpStatusCode status, string reason) => (int)status switch
    {
        400 => KubeFault.BadRequest,
        401 => KubeFault.Unauthorized,
        403 => KubeFault.Forbidden,
        404 => KubeFault.NotFound,
        409 when reason == "AlreadyExists" => KubeFault.AlreadyExists,
        409 => KubeFault.Conflict,
        410 => KubeFault.Gone,
        422 => KubeFault.Invalid,
        429 => KubeFault.TooManyRequests,
        504 => KubeFault.Timeout,
        >= 500 => KubeFault.ServerError,
        _ => KubeFault.Other,
    };
}
