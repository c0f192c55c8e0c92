using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Etcdserverpb;
using Grpc.Net.Client;
using Mesh.KVStore;

namespace Mesh.TestKit;

/// <summary>
/// A real etcd of several members: child processes on loopback ports of a test's own, gone with the test process whatever kills that.
/// Each member can be killed, stopped, paused and started again on its data.
/// </summary>
public sealed partial class EtcdCluster : IAsyncDisposable
{
    private const int SigKill = 9;
    private const int SigTerm = 15;
    private const int SigCont = 18;
    private const int SigStop = 19;
    private static readonly TimeSpan StartPatience = TimeSpan.FromSeconds(60);

    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-etcds-").FullName;
    private readonly (int Client, int Peer)[] _ports;
    private readonly Process?[] _members;

    private EtcdCluster(int members)
    {
        _ports = [.. Enumerable.Range(0, members).Select(_ => (EtcdServer.FreePort(), EtcdServer.FreePort()))];
        _members = new Process?[members];
    }

    public IReadOnlyList<string> Endpoints => [.. _ports.Select(port => Url(port.Client))];

    public EtcdOptions Options => new() { Endpoints = Endpoints };

    public static async Task<EtcdCluster> StartAsync(int members = 3)
    {
        var cluster = new EtcdCluster(members);
        for (var i = 0; i < members; i++)
            cluster.Begin(i);
        for (var i = 0; i < members; i++)
            await cluster.WaitAsync(i);
        return cluster;
    }

    public EtcdKVStore NewStore() => new(Options);

    /// <summary>The member that leads at present.</summary>
    public async Task<int> LeaderAsync()
    {
        for (var clock = Stopwatch.StartNew(); clock.Elapsed < StartPatience; await Task.Delay(20))
        {
            for (var i = 0; i < _members.Length; i++)
            {
                if (await StatusAsync(i) is { Leader: not 0 } status && status.Leader == status.Header.MemberId)
                    return i;
            }
        }
        throw new InvalidOperationException("the members have no leader");
    }

    public void Kill(int member) => End(member, SigKill);

    /// <summary>An orderly end: the leader hands over first.</summary>
    public void Stop(int member) => End(member, SigTerm);

    /// <summary>Connections stand, nothing answers.</summary>
    public void Pause(int member) => Signal(member, SigStop);

    public void Continue(int member) => Signal(member, SigCont);

    /// <summary>Returns when the member has caught up so far that it answers a read of its quorum.</summary>
    public async Task StartAsync(int member, bool ready = true)
    {
        Begin(member);
        if (ready)
            await WaitAsync(member);
    }

    public ValueTask DisposeAsync()
    {
        for (var i = 0; i < _members.Length; i++)
        {
            if (_members[i] is { HasExited: false })
                Kill(i);
            _members[i]?.Dispose();
        }
        Directory.Delete(_directory, recursive: true);
        return ValueTask.CompletedTask;
    }

    private static string Url(int port) => $"http://127.0.0.1:{port.ToString(CultureInfo.InvariantCulture)}";

    private void Begin(int member)
    {
        var (client, peer) = _ports[member];
        var names = _ports.Select((port, i) => $"m{i}={Url(port.Peer)}");
        _members[member] = ChildThread.Start(new ProcessStartInfo("etcd",
        [
            "--name", $"m{member}", "--data-dir", Path.Combine(_directory, $"m{member}"), "--unsafe-no-fsync",
            // Patient enough for a machine that does much else.
            "--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap", "--log-level", "fatal", "--log-outputs", "/dev/null",
            "--listen-client-urls", Url(client), "--advertise-client-urls", Url(client),
            "--listen-peer-urls", Url(peer), "--initial-advertise-peer-urls", Url(peer),
            "--initial-cluster", string.Join(',', names), "--initial-cluster-token", Path.GetFileName(_directory),
        ])
        { WorkingDirectory = _directory });
    }

    private async Task WaitAsync(int member)
    {
        using var channel = Channel(member);
        var kv = new KV.KVClient(channel);
        for (var clock = Stopwatch.StartNew(); ; await Task.Delay(20))
        {
            try
            {
                await kv.RangeAsync(new RangeRequest { Key = Google.Protobuf.ByteString.CopyFromUtf8("x") }, deadline: DateTime.UtcNow.AddSeconds(2));
                return;
            }
            catch (Grpc.Core.RpcException e)
            {
                if (clock.Elapsed > StartPatience)
                    throw new InvalidOperationException($"member {member} is not ready: {e.Status}", e);
            }
        }
    }

    private async Task<StatusResponse?> StatusAsync(int member)
    {
        if (_members[member] is null or { HasExited: true })
            return null;
        using var channel = Channel(member);
        try
        {
            return await new Maintenance.MaintenanceClient(channel).StatusAsync(new StatusRequest(), deadline: DateTime.UtcNow.AddSeconds(1));
        }
        catch (Grpc.Core.RpcException)
        {
            return null;
        }
    }

    private GrpcChannel Channel(int member) => GrpcChannel.ForAddress(Url(_ports[member].Client));

    private void End(int member, int signal)
    {
        Signal(member, signal);
        _members[member]!.WaitForExit();
    }

    private void Signal(int member, int signal)
    {
        if (Send(_members[member]!.Id, signal) != 0)
            throw new InvalidOperationException($"kill({_members[member]!.Id}, {signal}): errno {Marshal.GetLastPInvokeError()}");
    }

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int Send(int pid, int signal);
}
