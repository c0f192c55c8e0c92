using System.Net.Sockets;
using Mesh.Datapath.Liveness;
using Mesh.Model;

namespace Mesh.Agent.Probes;

/// <summary>
/// Follows up what the programs ejected: each such backend is tried by a connection of our own, at once and then less and less often.
/// One that answers is let in; one that does not stays out, the sockets that still wait for it are closed, and its node is suspected.
/// With the agent dead only the deadline in the map counts.
/// </summary>
internal sealed class EjectionStage(BackendHealth backends, SocketCloser sockets, Func<Ejection, CancellationToken, Task<bool>> answers,
    Action<uint> suspect, TimeProvider time, Action<string> log)
{
    private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(25);
    private static readonly TimeSpan FirstPause = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(8);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan DatagramPatience = TimeSpan.FromMilliseconds(500);

    /// <summary>Trials at a time.</summary>
    private const int Concurrent = 64;

    private readonly Dictionary<uint, Followed> _followed = [];
    private volatile IReadOnlyList<Ejection> _ejected = [];

    /// <summary>What is ejected now. From any thread.</summary>
    public IReadOnlyList<Ejection> Ejected => _ejected;

    /// <summary>Whether the backend takes a connection, or does not refuse a datagram, from this node's own address.</summary>
    public static async Task<bool> AnswersAsync(Ejection ejection, CancellationToken cancellation)
    {
        if (ejection.Address.Protocol == L4Protocol.UDP)
            return await TakesDatagramsAsync(ejection, cancellation);
        if (ejection.Address.Protocol != L4Protocol.TCP)
            return false;
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(Patience);
        using var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(ejection.Address.Address.ToIPAddress(), ejection.Address.Port, deadline.Token);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return false;
        }
    }

    /// <summary>An empty datagram: who listens may answer it or not, where nobody does the kernel says so. That it is silent is no proof
    /// against it: it was ejected because it had refused one.</summary>
    private static async Task<bool> TakesDatagramsAsync(Ejection ejection, CancellationToken cancellation)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        deadline.CancelAfter(DatagramPatience);
        using var socket = new Socket(SocketType.Dgram, ProtocolType.Udp);
        try
        {
            await socket.ConnectAsync(ejection.Address.Address.ToIPAddress(), ejection.Address.Port, deadline.Token);
            await socket.SendAsync(Array.Empty<byte>(), deadline.Token);
            await socket.ReceiveAsync(new byte[1], deadline.Token);
            return true;
        }
        catch (SocketException e)
        {
            return e.SocketErrorCode == SocketError.MessageSize;
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            return true;
        }
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        using var timer = new PeriodicTimer(Interval, time);
        while (await timer.WaitForNextTickAsync(cancellation))
            await TurnAsync(cancellation);
    }

    internal async Task TurnAsync(CancellationToken cancellation)
    {
        foreach (var slot in backends.TakeNew())
            _followed.TryAdd(slot, new Followed(time.GetTimestamp(), FirstPause));
        if (_followed.Count == 0)
            return;
        var due = new List<Ejection>();
        foreach (var (slot, followed) in _followed.ToList())
        {
            if (followed.Trial is { IsCompleted: false })
                continue;
            if (backends.Find(slot) is not { } ejection)
                _followed.Remove(slot);
            else if (followed.Trial is { } trial)
                Conclude(ejection, followed, await trial);
            else if (time.GetElapsedTime(followed.At) >= TimeSpan.Zero)
                due.Add(ejection);
        }
        var open = Concurrent - _followed.Values.Count(followed => followed.Trial is not null);
        foreach (var ejection in due.Take(Math.Max(0, open)))
        {
            var followed = _followed[ejection.Slot];
            if (!followed.Said)
                log($"liveness: backend {ejection.Address} is ejected: a connection to it failed");
            // The programs' first deadline is as long as a trial: one that is not answered would come to its end behind it.
            if (ejection.Left < 2 * Patience)
                backends.Keep(ejection, 2 * Patience);
            _followed[ejection.Slot] = followed with { Said = true, Trial = answers(ejection, cancellation) };
        }
        _ejected = [.. _followed.Keys.Select(backends.Find).OfType<Ejection>()];
    }

    private void Conclude(Ejection ejection, Followed followed, bool answered)
    {
        if (answered)
        {
            backends.Readmit(ejection);
            _followed.Remove(ejection.Slot);
            log($"liveness: backend {ejection.Address} answers again");
            return;
        }
        // Out until two trials later at least, so that only a trial lets it in while we live.
        backends.Keep(ejection, 2 * followed.Pause + 2 * Patience);
        suspect(ejection.Node);
        if (!followed.Confirmed)
            sockets.Close();
        var pause = followed.Pause * 2 < LongestPause ? followed.Pause * 2 : LongestPause;
        _followed[ejection.Slot] = followed with
        {
            At = time.GetTimestamp() + (long)(followed.Pause.TotalSeconds * time.TimestampFrequency),
            Pause = pause,
            Trial = null,
            Confirmed = true,
        };
    }

    /// <param name="At">Time stamp of the next trial.</param>
    /// <param name="Pause">From that one to the next but one.</param>
    private sealed record Followed(long At, TimeSpan Pause)
    {
        public Task<bool>? Trial { get; init; }

        public bool Said { get; init; }

        public bool Confirmed { get; init; }
    }
}
