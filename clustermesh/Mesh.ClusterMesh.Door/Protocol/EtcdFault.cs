using Grpc.Core;

namespace Mesh.ClusterMesh.Door.Protocol;

/// <summary>A refusal in etcd's own codes and texts (its rpctypes), so that every client understands it.</summary>
internal sealed class EtcdFault(StatusCode code, string detail) : Exception(detail)
{
    public StatusCode Code { get; } = code;

    /// <summary>As it stands in a watch's cancel_reason: Go's text of the same status.</summary>
    public string Reason => $"rpc error: code = {Code} desc = {Message}";

    public static EtcdFault PermissionDenied() => new(StatusCode.PermissionDenied, "etcdserver: permission denied");

    public static EtcdFault Compacted() => new(StatusCode.OutOfRange, "etcdserver: mvcc: required revision has been compacted");

    public static EtcdFault FutureRevision() => new(StatusCode.OutOfRange, "etcdserver: mvcc: required revision is a future revision");

    public static EtcdFault EmptyKey() => new(StatusCode.InvalidArgument, "etcdserver: key is not provided");

    public static EtcdFault TooManyRequests() => new(StatusCode.ResourceExhausted, "etcdserver: too many requests");

    public static EtcdFault LeaseNotFound() => new(StatusCode.NotFound, "etcdserver: requested lease not found");

    public static EtcdFault LeaseExists() => new(StatusCode.FailedPrecondition, "etcdserver: lease already exists");

    public static EtcdFault LeaseTtlTooLarge() => new(StatusCode.OutOfRange, "etcdserver: too large lease TTL");

    public static EtcdFault TimedOut() => new(StatusCode.Unavailable, "etcdserver: request timed out");

    /// <summary>The door has not read its etcd yet, or has just found another one.</summary>
    public static EtcdFault NoLeader() => new(StatusCode.Unavailable, "etcdserver: no leader");

    public static EtcdFault UnknownMethod(string service, string method) =>
        new(StatusCode.Unimplemented, $"unknown method {method} for service {service}");

    public static EtcdFault UnknownService(string service) => new(StatusCode.Unimplemented, $"unknown service {service}");

    public static EtcdFault TooLarge(long size, int limit) =>
        new(StatusCode.ResourceExhausted, $"grpc: received message larger than max ({size} vs. {limit})");

    public static EtcdFault Malformed(string what) => new(StatusCode.Internal, $"grpc: {what}");
}
