using System.Globalization;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>
/// Asks the store, while somebody watches it, whether it still lives: a silent watch looks the same whether nothing happens or the
/// server was stopped. The read goes through the store's consensus, on the connection of the watches, and is the newest proof when
/// nothing else came. It also learns what a reader would never be told: that the store is full, and how far apart the clocks are.
/// Nothing is done about a failure here; it is told in the status.
/// </summary>
/// <param name="key">A key that this user may read; it need not exist.</param>
internal sealed class EtcdLiveness(EtcdClient client, string key)
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(4);

    /// <summary>However many stores share the pace. That a server is frozen is told sooner: its connection goes unanswered. And the audits
    /// of its watches bring the question along before that.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(60);

    /// <summary>Where the questions are that far apart, only one in so many is also for the store's own complaints.</summary>
    private const int AlarmEvery = 4;
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(3);

    private bool _statusAllowed = true;
    private int _questions = 1;
    private TimeSpan _wait;
    private long _proof;
    private volatile Finding _finding = new(StoreFault.None, null, null, null);

    /// <param name="Fault">Why the last question was not answered; None when it was.</param>
    /// <param name="Alarm">What the store says is wrong with itself.</param>
    private sealed record Finding(StoreFault Fault, string? Problem, string? Alarm, TimeSpan? ClockSkew);

    /// <summary>Linearizable: whoever answers it has a quorum.</summary>
    public RangeRequest Question { get; } = new() { Key = ByteString.CopyFromUtf8(key), CountOnly = true };

    /// <summary>So many stores share the pace that whoever asks this one anyway had better ask along.</summary>
    public bool IsRare => _wait >= 2 * Interval;

    /// <summary>Null before the first. Between two questions that the store can answer, whatever comes on their connection is as good: it
    /// is pinged more often than asked.</summary>
    public TimeSpan? ProofAge
    {
        get
        {
            var proof = Volatile.Read(ref _proof);
            if (proof == 0)
                return null;
            if (_finding.Fault == StoreFault.None && client.Current.HeardAt is { } heard && heard > proof)
                proof = heard;
            return client.Time.GetElapsedTime(proof);
        }
    }

    public KVStoreStatus AddTo(KVStoreStatus status)
    {
        var finding = _finding;
        return status with
        {
            ProofAge = ProofAge,
            ProofProblem = finding.Problem,
            Fault = status.Fault != StoreFault.None ? status.Fault
                : finding.Fault != StoreFault.None ? finding.Fault
                : finding.Alarm is null ? StoreFault.None
                : finding.Alarm.Contains("NOSPACE", StringComparison.Ordinal) ? StoreFault.NoSpace : StoreFault.Other,
            Alarm = finding.Alarm,
            ClockSkew = finding.ClockSkew,
        };
    }

    /// <summary>Runs until cancelled.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        while (true)
        {
            // While it is disconnected the watches themselves try, and say why it fails.
            var proved = Volatile.Read(ref _proof) is var proof and not 0 && client.Time.GetElapsedTime(proof) < _wait;
            if (client.Status.Connected && !(proved && IsRare && _questions++ % AlarmEvery != 0))
                await AskAsync(client.Current, cancellation).ConfigureAwait(false);
            _wait = client.Options.LivenessPace.Book(Interval, Longest);
            await Task.Delay(_wait, client.Time, cancellation).ConfigureAwait(false);
        }
    }

    private async Task AskAsync(EtcdEndpoint endpoint, CancellationToken cancellation)
    {
        try
        {
            var headers = await client.HeadersAsync(endpoint, cancellation).ConfigureAwait(false);
            var options = new CallOptions(headers, client.Time.GetUtcNow().UtcDateTime + Deadline, cancellation);
            var sent = client.Time.GetUtcNow();
            using var call = endpoint.Probe.RangeAsync(Question, options);
            await call.ResponseAsync.ConfigureAwait(false);
            Proved(await call.ResponseHeadersAsync.ConfigureAwait(false), sent);
            if (_statusAllowed)
                _finding = _finding with { Alarm = await AlarmAsync(endpoint, headers, cancellation).ConfigureAwait(false) };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            cancellation.ThrowIfCancellationRequested();
            Failed(endpoint, e);
        }
    }

    /// <summary>The question was answered.</summary>
    /// <param name="headers">Of the answer.</param>
    /// <param name="sent">When it was asked.</param>
    public void Proved(Metadata headers, DateTimeOffset sent)
    {
        Volatile.Write(ref _proof, client.Time.GetTimestamp());
        _finding = new Finding(StoreFault.None, null, _finding.Alarm, Skew(headers, sent) ?? _finding.ClockSkew);
    }

    /// <summary>The question was asked and not answered.</summary>
    public void Failed(EtcdEndpoint endpoint, Exception e) =>
        _finding = _finding with { Fault = EtcdCause.FaultOf(e), Problem = $"{endpoint.Address}: {EtcdCause.Text(e)}" };

    private async Task<string?> AlarmAsync(EtcdEndpoint endpoint, Metadata headers, CancellationToken cancellation)
    {
        try
        {
            using var call = endpoint.Maintenance.StatusAsync(new StatusRequest(),
                new CallOptions(headers, client.Time.GetUtcNow().UtcDateTime + Deadline, cancellation));
            var answer = await call.ResponseAsync.ConfigureAwait(false);
            return answer.Errors.Count == 0 ? null : string.Join("; ", answer.Errors);
        }
        catch (RpcException e) when (EtcdCause.IsPermissionDenied(e) || e.StatusCode == StatusCode.Unimplemented)
        {
            // A store that does not say how it is to everybody.
            _statusAllowed = false;
            return null;
        }
    }

    /// <summary>How far the server's clock is ahead of ours, if it says what time it is (doors do, etcd does not); whole seconds.</summary>
    private TimeSpan? Skew(Metadata headers, DateTimeOffset sent)
    {
        if (!DateTimeOffset.TryParse(headers.GetValue("date"), CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var theirs))
            return null;
        // The stamp is cut to the second, and may be of any moment between question and answer.
        var received = client.Time.GetUtcNow();
        if (theirs > received)
            return theirs - received;
        return theirs.AddSeconds(1) < sent ? theirs.AddSeconds(1) - sent : TimeSpan.Zero;
    }
}
