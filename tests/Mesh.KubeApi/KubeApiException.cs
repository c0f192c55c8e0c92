using System.Globalization;
using System.Text.Json.Nodes;

namespace Mesh.KubeApi;

/// <summary>An answer other than success: becomes a v1 Status with HTTP code, reason and message, as a kube-apiserver words them.</summary>
public sealed class KubeApiException(int code, string reason, string message, JsonObject? details = null) : Exception(message)
{
    /// <summary>HTTP status code, 400 to 599.</summary>
    public int Code { get; } = code;

    /// <summary>Machine-readable reason: NotFound, Conflict, Invalid, …</summary>
    public string Reason { get; } = reason;

    /// <summary>Seconds that the client should wait; null = not said.</summary>
    public int? RetryAfterSeconds { get; init; }

    private static JsonObject About(string resource, string group, string name) => new()
    {
        ["name"] = name,
        ["group"] = group == "" ? null : group,
        ["kind"] = resource,
    };

    private static string Qualified(string resource, string group) => group == "" ? resource : $"{resource}.{group}";

    public static KubeApiException NotFound(string resource, string group, string name) =>
        new(404, "NotFound", $"{Qualified(resource, group)} \"{name}\" not found", About(resource, group, name));

    /// <summary>The path names no resource that is served.</summary>
    public static KubeApiException NoSuchPath() => new(404, "NotFound", "the server could not find the requested resource", []);

    public static KubeApiException AlreadyExists(string resource, string group, string name) =>
        new(409, "AlreadyExists", $"{Qualified(resource, group)} \"{name}\" already exists", About(resource, group, name));

    public static KubeApiException Conflict(string resource, string group, string name, string why) =>
        new(409, "Conflict", $"Operation cannot be fulfilled on {Qualified(resource, group)} \"{name}\": {why}", About(resource, group, name));

    /// <summary>Somebody else wrote since the caller read.</summary>
    public static KubeApiException Stale(string resource, string group, string name) => Conflict(resource, group, name,
        "the object has been modified; please apply your changes to the latest version and try again");

    public static KubeApiException BadRequest(string why) => new(400, "BadRequest", why);

    public static KubeApiException Forbidden(string resource, string group, string name, string why) => new(403, "Forbidden",
        $"{Qualified(resource, group)}{(name == "" ? "" : $" \"{name}\"")} is forbidden: {why}", About(resource, group, name));

    public static KubeApiException Unauthorized() => new(401, "Unauthorized", "Unauthorized");

    public static KubeApiException MethodNotAllowed() =>
        new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", []);

    public static KubeApiException Expired(string why) => new(410, "Expired", why);

    public static KubeApiException UnsupportedMediaType(string allowed) => new(415, "UnsupportedMediaType",
        $"the body of the request was in an unknown format - accepted media types include: {allowed}");

    public static KubeApiException Internal(string why) => new(500, "InternalError", $"Internal error occurred: {why}");

    public static KubeApiException Unavailable(string why) => new(503, "ServiceUnavailable", why);

    public static KubeApiException TooManyRequests(int retryAfterSeconds) => new(429, "TooManyRequests",
        "Too many requests, please try again later.", new() { ["retryAfterSeconds"] = retryAfterSeconds })
    {
        RetryAfterSeconds = retryAfterSeconds,
    };

    /// <summary>The object was understood and is not allowed to be so; all causes at once.</summary>
    public static KubeApiException Invalid(string kind, string group, string name, IReadOnlyList<Cause> causes)
    {
        var about = About(kind, group, name);
        about["causes"] = new JsonArray([.. causes.Select(cause => (JsonNode)new JsonObject
        {
            ["reason"] = cause.Reason,
            ["message"] = cause.Message,
            ["field"] = cause.Field,
        })]);
        var all = causes.Count == 1 ? $"{causes[0].Field}: {causes[0].Message}"
            : $"[{string.Join(", ", causes.Select(cause => $"{cause.Field}: {cause.Message}"))}]";
        return new(422, "Invalid", $"{(group == "" ? kind : $"{kind}.{group}")} \"{name}\" is invalid: {all}", about);
    }

    /// <summary>One thing wrong with one field: reason FieldValueInvalid, FieldValueRequired, …</summary>
    public sealed record Cause(string Field, string Reason, string Message)
    {
        public static Cause Required(string field, string why = "") =>
            new(field, "FieldValueRequired", why == "" ? "Required value" : $"Required value: {why}");

        public static Cause Invalid(string field, string value, string why) => new(field, "FieldValueInvalid", $"Invalid value: {value}: {why}");

        public static Cause Unsupported(string field, string value, IEnumerable<string> allowed) => new(field, "FieldValueNotSupported",
            $"Unsupported value: {value}: supported values: {string.Join(", ", allowed.Select(one => $"\"{one}\""))}");
    }

    /// <summary>The v1 Status object that goes over the wire.</summary>
    public JsonObject ToStatus()
    {
        var status = new JsonObject
        {
            ["kind"] = "Status",
            ["apiVersion"] = "v1",
            ["metadata"] = new JsonObject(),
            ["status"] = "Failure",
            ["message"] = Message,
            ["reason"] = Reason,
        };
        if (details is not null)
        {
            var copy = (JsonObject)details.DeepClone();
            foreach (var empty in copy.Where(pair => pair.Value is null).Select(pair => pair.Key).ToList())
                copy.Remove(empty);
            status["details"] = copy;
        }
        status["code"] = Code;
        return status;
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Code} {Reason}: {Message}");
}
