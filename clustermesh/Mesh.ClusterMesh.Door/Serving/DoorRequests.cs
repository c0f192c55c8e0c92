using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Protocol;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;

namespace Mesh.ClusterMesh.Door.Serving;

/// <summary>
/// Every request comes through here and only what is named here is answered: the two calls of every reader, the four of old ones, and
/// GET /version. etcd's other calls are refused as to a user without the right, the admin included; what etcd does not know either is
/// unimplemented.
/// </summary>
internal sealed class DoorRequests(
    RangeService ranges, DoorLimits limits, DoorCounters counters, TimeProvider time)
{
    /// <summary>What troubleshooting tools of 1.13 to 1.20 look at; the versions of the etcd whose behaviour this is.</summary>
    private const string Version = """{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}""";

    private static readonly Dictionary<string, string[]> EtcdServices = new(StringComparer.Ordinal)
    {
        ["etcdserverpb.KV"] = ["Range", "Put", "DeleteRange", "Txn", "Compact"],
        ["etcdserverpb.Watch"] = ["Watch"],
        ["etcdserverpb.Lease"] = ["LeaseGrant", "LeaseRevoke", "LeaseKeepAlive", "LeaseTimeToLive", "LeaseLeases"],
        ["etcdserverpb.Cluster"] = ["MemberAdd", "MemberRemove", "MemberUpdate", "MemberList", "MemberPromote"],
        ["etcdserverpb.Maintenance"] = ["Alarm", "Status", "Defragment", "Hash", "HashKV", "Snapshot", "MoveLeader"],
        ["etcdserverpb.Auth"] =
        [
            "AuthEnable", "AuthDisable", "Authenticate", "UserAdd", "UserGet", "UserList", "UserDelete", "UserChangePassword",
            "UserGrantRole", "UserRevokeRole", "RoleAdd", "RoleGet", "RoleList", "RoleDelete", "RoleGrantPermission", "RoleRevokePermission",
        ],
        ["v3lockpb.Lock"] = ["Lock", "Unlock"],
        ["v3electionpb.Election"] = ["Campaign", "Proclaim", "Leader", "Observe", "Resign"],
    };

    public async Task ServeAsync(HttpContext context)
    {
        var connection = DoorConnection.Of(context.Features.Get<IConnectionItemsFeature>()!);
        if (!GrpcCall.IsGrpc(context))
        {
            await ServePlainAsync(context);
            return;
        }
        var call = new GrpcCall(context, limits.RequestBytes);
        try
        {
            await connection.AdmitAsync(counters, call.Aborted);
            await DispatchAsync(context.Request.Path.Value ?? "", call, connection);
        }
        catch (EtcdFault fault)
        {
            (fault.Code == StatusCode.Internal ? counters.Malformed : counters.Refusals).Increment();
            await RefuseAsync(context, call, fault);
        }
        catch (Exception e) when (e is OperationCanceledException or IOException or InvalidOperationException)
        {
            // The reader is gone, or its answer stalled; either way there is nobody to tell.
            context.Abort();
        }
        if (call.Aborted.IsCancellationRequested && connection.PunishReset())
            counters.ResetsPunished.Increment();
    }

    private static async Task RefuseAsync(HttpContext context, GrpcCall call, EtcdFault fault)
    {
        if (call.Aborted.IsCancellationRequested)
            return;
        if (!context.Response.HasStarted)
            await call.StartAsync();
        call.Finish(fault.Code, fault.Message);
    }

    private async Task DispatchAsync(string path, GrpcCall call, DoorConnection connection)
    {
        var known = path is "/etcdserverpb.KV/Range" or "/etcdserverpb.Watch/Watch" or "/etcdserverpb.Maintenance/Status"
            or "/etcdserverpb.Lease/LeaseGrant" or "/etcdserverpb.Lease/LeaseRevoke" or "/etcdserverpb.Lease/LeaseKeepAlive";
        if (!known)
            throw Unserved(path);
        if (connection.Access is not { Grants.IsNone: false, View: { } view })
            throw EtcdFault.PermissionDenied();
        if (!view.Cache.IsReady)
            throw EtcdFault.NoLeader();
        await (path switch
        {
            "/etcdserverpb.KV/Range" => ranges.ServeAsync(call, connection),
            "/etcdserverpb.Watch/Watch" => new WatchStream(call, connection, view, limits, counters, time).ServeAsync(),
            "/etcdserverpb.Lease/LeaseGrant" => LeaseService.GrantAsync(call, connection),
            "/etcdserverpb.Lease/LeaseRevoke" => LeaseService.RevokeAsync(call, connection),
            "/etcdserverpb.Lease/LeaseKeepAlive" => LeaseService.KeepAliveAsync(call, connection, counters),
            _ => StatusAsync(call, view),
        });
    }

    private static async Task StatusAsync(GrpcCall call, DoorView view)
    {
        await call.ReadOnlyAsync(StatusRequest.Parser);
        await call.StartAsync();
        call.Write(view.Status());
        call.Finish(StatusCode.OK);
    }

    private static EtcdFault Unserved(string path)
    {
        var slash = path.LastIndexOf('/');
        var (service, method) = slash > 0 ? (path[1..slash], path[(slash + 1)..]) : (path.TrimStart('/'), "");
        if (!EtcdServices.TryGetValue(service, out var methods))
            return EtcdFault.UnknownService(service);
        return Array.IndexOf(methods, method) >= 0 ? EtcdFault.PermissionDenied() : EtcdFault.UnknownMethod(service, method);
    }

    private static async Task ServePlainAsync(HttpContext context)
    {
        if (context.Request.Method == "GET" && context.Request.Path == "/version")
        {
            context.Response.ContentType = "application/json";
            context.Response.Headers[GrpcCall.DoorHeader] = GrpcCall.DoorVersion;
            await context.Response.WriteAsync(Version, context.RequestAborted);
            return;
        }
        context.Response.StatusCode = StatusCodes.Status404NotFound;
    }
}
