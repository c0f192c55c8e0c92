using Etcdserverpb;
using Grpc.Core;

namespace Mesh.KVStore;

/// <summary>What the store answered to the audit of one watch.</summary>
/// <param name="Header">Whose answer it is, and the revision it is of.</param>
/// <param name="Count">Keys in the watch's range.</param>
/// <param name="Changed">Names and revisions of those that changed since the last audit.</param>
internal readonly record struct AuditAnswer(ResponseHeader Header, long Count, IReadOnlyList<Mvccpb.KeyValue> Changed);

/// <summary>
/// The audits of all watches of one store. A question costs the two processes far more than what it reads, and a peer has half a dozen
/// watches; so those that read one etcd are due together and ask together, in one transaction that only reads. A server that does not
/// grant that is asked one by one. Doors are: they are asked every second, each watch at its own time.
/// </summary>
/// <param name="stop">The end of the store.</param>
internal sealed class EtcdAudits(EtcdClient client, CancellationToken stop)
{
    /// <summary>How long the first waits for the others. Their clocks are one, but their loops take turns.</summary>
    private static readonly TimeSpan Gathering = TimeSpan.FromMilliseconds(50);

    /// <summary>etcd's own bound for a transaction (--max-txn-ops).</summary>
    private const int QuestionsMax = 128;

    private readonly Lock _lock = new();
    private readonly Dictionary<EtcdEndpoint, Gathered> _gathering = [];
    private Task _round = Task.CompletedTask;

    private sealed class Gathered
    {
        public List<(RangeRequest Question, TaskCompletionSource<AuditAnswer> Answer)> Questions { get; } = [];

        public Task Asking { get; set; } = Task.CompletedTask;
    }

    /// <summary>Asks along with the audits whether the store lives, where it is asked rarely; null while nobody wants to know.</summary>
    public EtcdLiveness? Liveness { get; set; }

    /// <summary>The next round of the store's watches: the same moment, and one timer, for all of them.</summary>
    /// <param name="interval">Between two rounds; a tenth of it is left to chance, so that many stores do not ask at once.</param>
    public Task RoundAsync(TimeSpan interval)
    {
        lock (_lock)
        {
            if (_round.IsCompleted)
                _round = Task.Delay(interval * (0.9 + (0.1 * client.Random.NextDouble())), client.Time);
            return _round;
        }
    }

    /// <summary>Asks on the connection of the watches, together with whoever asks the same server at this moment.</summary>
    /// <param name="question">Serializable: the very member, and the very memory, that feeds the stream.</param>
    public async Task<AuditAnswer> AskAsync(EtcdEndpoint endpoint, RangeRequest question, CancellationToken cancellation)
    {
        if (endpoint.IsDoor || endpoint.ReadsOneByOne)
            return await AskAloneAsync(endpoint, question, cancellation).ConfigureAwait(false);
        var answer = new TaskCompletionSource<AuditAnswer>(TaskCreationOptions.RunContinuationsAsynchronously);
        Task asking;
        lock (_lock)
        {
            if (!_gathering.TryGetValue(endpoint, out var gathered))
            {
                _gathering[endpoint] = gathered = new Gathered();
                gathered.Asking = AskTogetherAsync(endpoint, gathered);
            }
            gathered.Questions.Add((question, answer));
            asking = gathered.Asking;
        }
        // Whoever goes leaves the question to the others; it ends by its deadline or with the store.
        await asking.WaitAsync(cancellation).ConfigureAwait(false);
        return await answer.Task.ConfigureAwait(false);
    }

    /// <summary>Never fails: each question has its own answer.</summary>
    private async Task AskTogetherAsync(EtcdEndpoint endpoint, Gathered gathered)
    {
        await Task.Yield();
        await Task.Delay(Gathering, client.Time, stop).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        lock (_lock)
            _gathering.Remove(endpoint);
        foreach (var questions in gathered.Questions.Chunk(QuestionsMax))
        {
            try
            {
                var answers = questions.Length == 1 || endpoint.ReadsOneByOne ? null
                    : await TransactAsync(endpoint, questions, Liveness is { IsRare: true } rare ? rare : null).ConfigureAwait(false);
                for (var i = 0; i < questions.Length; i++)
                {
                    questions[i].Answer.SetResult(
                        answers?[i] ?? await AskAloneAsync(endpoint, questions[i].Question, stop).ConfigureAwait(false));
                }
            }
            catch (Exception e)
            {
                foreach (var (_, answer) in questions)
                    answer.TrySetException(e);
            }
        }
    }

    /// <summary>Null when the server does not take such a question.</summary>
    /// <param name="liveness">Whose question goes along. It makes the server see to it that it still has a quorum, and then answer all of
    /// them from its own memory as before; one that cannot is asked again without.</param>
    private async Task<AuditAnswer?[]?> TransactAsync(
        EtcdEndpoint endpoint, (RangeRequest Question, TaskCompletionSource<AuditAnswer> Answer)[] questions, EtcdLiveness? liveness)
    {
        var transaction = new TxnRequest();
        foreach (var (question, _) in questions)
            transaction.Success.Add(new RequestOp { RequestRange = question });
        if (liveness is not null)
            transaction.Success.Add(new RequestOp { RequestRange = liveness.Question });
        try
        {
            var headers = await client.HeadersAsync(endpoint, stop).ConfigureAwait(false);
            var sent = client.Time.GetUtcNow();
            var deadline = liveness is null ? client.Options.ListDeadline : EtcdLiveness.Deadline;
            using var call = endpoint.Probe.TxnAsync(transaction, new CallOptions(headers, sent.UtcDateTime + deadline, stop));
            var answer = await call.ResponseAsync.ConfigureAwait(false);
            if (answer.Responses.Count != transaction.Success.Count)
                return Refused();
            liveness?.Proved(await call.ResponseHeadersAsync.ConfigureAwait(false), sent);
            return [.. answer.Responses.Take(questions.Length)
                .Select(one => (AuditAnswer?)new AuditAnswer(answer.Header, one.ResponseRange.Count, one.ResponseRange.Kvs))];
        }
        catch (RpcException e) when (EtcdCause.IsPermissionDenied(e)
            || e.StatusCode is StatusCode.Unimplemented or StatusCode.InvalidArgument or StatusCode.ResourceExhausted)
        {
            return Refused();
        }
        catch (RpcException e) when (liveness is not null && !stop.IsCancellationRequested)
        {
            liveness.Failed(endpoint, e);
            return await TransactAsync(endpoint, questions, null).ConfigureAwait(false);
        }

        AuditAnswer?[]? Refused()
        {
            endpoint.ReadsOneByOne = true;
            return null;
        }
    }

    private async Task<AuditAnswer> AskAloneAsync(EtcdEndpoint endpoint, RangeRequest question, CancellationToken cancellation)
    {
        var answer = await client.OnceAsync(endpoint, client.Options.ListDeadline,
            (server, options) => server.Probe.RangeAsync(question, options), cancellation).ConfigureAwait(false);
        return new AuditAnswer(answer.Header, answer.Count, answer.Kvs);
    }
}
