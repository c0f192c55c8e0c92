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

    /// <summary>However many stores share the pace. That a server is frozen is told sooner: its connection goes unanswered.</summary>
    private static readonly TimeSpan Longest = TimeSpan.FromSeconds(30);

    /// <summary>Where the questions are that far apart, only one in so many is also for the store's own complaints.</summary>
    private const int AlarmEvery = 4;
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(3);

    private readonly RangeRequest _request = new() { Key = ByteString.CopyFromUtf8(key), CountOnly = true };
    private bool _statusAllowed = true;
    private int _questions;
    private TimeSpan _wait;
    private long _proof;
    private volatile Finding _finding = new(StoreFault.None, null, null, null);

    /// <param name="Fault">Why the last question was not answered; None when it was.</param>
    /// <param name="Alarm">What the store says is wrong with itself.</param>
    private sealed record Finding(StoreFault Fault, string? Problem, string? Alarm, TimeSpan? ClockSkew);

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
            if (client.Status.Connected)
                await AskAsync(client.Current, cancellation).ConfigureAwait(false);
            _wait = AuditPace.OfLiveness.Book(Interval, Longest);
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
            using var call = endpoint.Probe.RangeAsync(_request, options);
            await call.ResponseAsync.ConfigureAwait(false);
            var skew = Skew(await call.ResponseHeadersAsync.ConfigureAwait(false), sent);
            Volatile.Write(ref _proof, client.Time.GetTimestamp());
            _finding = new Finding(StoreFault.None, null, _finding.Alarm, skew ?? _finding.ClockSkew);
            if (_statusAllowed && (_wait < 2 * Interval || _questions++ % AlarmEvery == 0))
                _finding = _finding with { Alarm = await AlarmAsync(endpoint, headers, cancellation).ConfigureAwait(false) };
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            cancellation.ThrowIfCancellationRequested();
            _finding = _finding with { Fault = EtcdCause.FaultOf(e), Problem = $"{endpoint.Address}: {EtcdCause.Text(e)}" };
        }
    }

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
