using System.Net;
using System.Net.Sockets;
using Mesh.Joining.Listening;
using Mesh.Joining.Protocol;

namespace Mesh.Joining.Checks;

/// <summary>
/// The issuer's half of a probe: it hears at the tunnel's port, sends to the address the request came from and to no other, and tries
/// the taker's door. Each ends by itself after ten seconds; eight at a time.
/// </summary>
internal sealed class ProbeSessions(JoinListenerOptions options) : IAsyncDisposable
{
    private const int SessionsMax = 8;
    private static readonly TimeSpan Life = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan BindPatience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan BindPause = TimeSpan.FromMilliseconds(10);

    private readonly Lock _gate = new();
    private readonly Dictionary<IPEndPoint, (ProbeEar Ear, int Users)> _ears = [];
    private readonly Dictionary<string, Session> _sessions = new(StringComparer.Ordinal);
    private readonly CancellationTokenSource _stop = new();

    public async Task<ProbeAnswer> StartAsync(ProbeRequest request, IPAddress remote, IPAddress local, CancellationToken cancellation)
    {
        var nonce = ProbeEar.ParseNonce(request.Nonce);
        if (request.Port is < 1024 or > 65535)
            throw JoinException.Malformed($"UDP {request.Port} is not a tunnel's port");
        if (request.DoorAddresses.Count > ClusterFacts.AddressesMax || !request.DoorAddresses.All(ClusterFacts.IsDoorAddress))
            throw JoinException.Malformed("the door addresses must be https://HOST:PORT");
        var (ear, reason) = await TakeEarAsync(new IPEndPoint(local, request.Port), cancellation);
        var session = new Session(nonce, ear, DoorTrials.TryAsync(request.DoorAddresses, request.Authorities, options.OpenSocket, options.Time, _stop.Token));
        lock (_gate)
        {
            if (_sessions.Count >= SessionsMax || !_sessions.TryAdd(request.Nonce, session))
            {
                Release(ear);
                throw new JoinException("busy", "too many probes at a time: try again in a moment");
            }
        }
        ear?.Expect(nonce);
        session.Ending = EndAsync(request.Nonce, session);
        var (mtu, sent) = (0, Array.Empty<int>());
        try
        {
            if (request.Listening)
                (mtu, sent) = ProbeDatagram.Send(options.OpenSocket, local, new IPEndPoint(remote, request.Port), nonce);
        }
        catch (SocketException e)
        {
            reason ??= $"datagrams cannot be sent to {remote}: {InWords.Of(e)}";
        }
        return new ProbeAnswer(ear is not null, reason, mtu, sent);
    }

    public async Task<ProbeResultAnswer> ResultAsync(ProbeResultRequest request, CancellationToken cancellation)
    {
        Session? session;
        lock (_gate)
            session = _sessions.GetValueOrDefault(request.Nonce);
        if (session is null)
            throw new JoinException("not-begun", "there is no such probe, or it ended: begin again");
        var heard = session.Ear is null ? [] : await session.Ear.HeardAsync(session.Nonce, request.Sent, Patience, cancellation);
        var doors = await session.Doors.WaitAsync(cancellation);
        await session.Over.CancelAsync();
        return new ProbeResultAnswer(heard, doors);
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        Task[] endings;
        lock (_gate)
            endings = [.. _sessions.Values.Select(session => session.Ending)];
        await Task.WhenAll(endings);
        _stop.Dispose();
    }

    private async Task EndAsync(string key, Session session)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token, session.Over.Token);
        await Task.Delay(Life, either.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await ((Task)session.Doors).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        session.Ear?.Forget(session.Nonce);
        ProbeEar? unused;
        lock (_gate)
        {
            _sessions.Remove(key);
            unused = Release(session.Ear);
        }
        if (unused is not null)
            await unused.DisposeAsync();
        session.Over.Dispose();
    }

    /// <summary>The port may be held for a moment by a plan of this same cluster.</summary>
    private async Task<(ProbeEar? Ear, string? Reason)> TakeEarAsync(IPEndPoint address, CancellationToken cancellation)
    {
        var began = options.Time.GetTimestamp();
        while (true)
        {
            string? reason;
            lock (_gate)
            {
                if (_ears.TryGetValue(address, out var shared))
                {
                    _ears[address] = (shared.Ear, shared.Users + 1);
                    return (shared.Ear, null);
                }
                (var ear, reason) = ProbeEar.Open(options.OpenSocket, address);
                if (ear is not null)
                {
                    _ears[address] = (ear, 1);
                    return (ear, null);
                }
            }
            if (options.Time.GetElapsedTime(began) > BindPatience)
                return (null, reason);
            await Task.Delay(BindPause, cancellation);
        }
    }

    /// <summary>The ear that nobody needs any more; for the caller to dispose. Hold the gate.</summary>
    private ProbeEar? Release(ProbeEar? ear)
    {
        foreach (var (address, shared) in _ears)
        {
            if (shared.Ear != ear)
                continue;
            if (shared.Users > 1)
            {
                _ears[address] = (shared.Ear, shared.Users - 1);
                return null;
            }
            _ears.Remove(address);
            return shared.Ear;
        }
        return null;
    }

    private sealed class Session(ulong nonce, ProbeEar? ear, Task<IReadOnlyList<DoorTrial>> doors)
    {
        public ulong Nonce => nonce;

        public ProbeEar? Ear => ear;

        public Task<IReadOnlyList<DoorTrial>> Doors => doors;

        public CancellationTokenSource Over { get; } = new();

        public Task Ending { get; set; } = Task.CompletedTask;
    }
}
