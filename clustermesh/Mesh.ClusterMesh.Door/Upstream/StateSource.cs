using Etcdserverpb;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.ClusterMesh.Door.Protocol;
using Mesh.ClusterMesh.Door.Serving;

namespace Mesh.ClusterMesh.Door.Upstream;

/// <summary>The state view and what keeps it: the cluster's etcd, followed into memory, and the record of its lineage.</summary>
internal sealed class StateSource
{
    private static readonly TimeSpan ConfirmTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan StatusInterval = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan StatusTimeout = TimeSpan.FromSeconds(1);
    private const string LineageFile = "door-lineage.json";

    private readonly Maintenance.MaintenanceClient _maintenance;
    private readonly TimeProvider _time;
    private StatusResponse _etcdStatus = new();
    private long _statusAsked;

    public StateSource(DoorOptions options, CallInvoker etcd, TimeProvider time, Action<string> log)
    {
        _time = time;
        _maintenance = new Maintenance.MaintenanceClient(etcd);
        Lineage = new Lineage(options.StateDir is { } dir ? Path.Combine(dir, LineageFile) : null);
        Follower = new EtcdFollower(etcd, Cache, Lineage, options.Limits, time, log, options.SharesEra);
        var confirmation = options.ConfirmReads ? new ReadConfirmation(Follower.ConfirmedRevisionAsync, Cache, ConfirmTimeout) : null;
        View = new DoorView(Cache, confirmation, EtcdStatus);
    }

    public WatchCache Cache { get; } = new();

    public Lineage Lineage { get; }

    public EtcdFollower Follower { get; }

    public DoorView View { get; }

    /// <summary>Called every second or so: writes down how far readers may have come, and asks etcd how it is.</summary>
    public async Task ReviewAsync(CancellationToken cancellation)
    {
        if (Cache.IsReady)
        {
            var view = Cache.View;
            Lineage.Advance(view.History.Head, view.Ids.ClusterId);
        }
        if (_time.GetElapsedTime(_statusAsked) < StatusInterval)
            return;
        _statusAsked = _time.GetTimestamp();
        try
        {
            var deadline = _time.GetUtcNow().UtcDateTime + StatusTimeout;
            Volatile.Write(ref _etcdStatus, await _maintenance.StatusAsync(new StatusRequest(), deadline: deadline, cancellationToken: cancellation));
        }
        catch (RpcException)
        {
            // The follower notices the same and says so; the last answer stays.
        }
    }

    /// <summary>Etcd's own words of a few seconds ago under this door's header.</summary>
    private StatusResponse EtcdStatus()
    {
        var view = Cache.View;
        var status = Volatile.Read(ref _etcdStatus).Clone();
        status.Header = ResponseHeaderBytes.Message(view.Ids, view.History.Head.Revision);
        if (Follower.Status is { Connected: false } upstream)
            status.Errors.Add($"the door does not follow its etcd since {upstream.Since:u}: {upstream.Error}");
        return status;
    }
}
