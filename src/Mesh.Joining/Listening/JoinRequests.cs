using System.Net;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Mesh.Joining.Checks;
using Mesh.Joining.Files;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;

namespace Mesh.Joining.Listening;

/// <summary>
/// The issuer's side of the join, one request at a time. Every request proves the token's secret; from the first "begin" on also the key
/// that the token is bound to. Any request may come again: it does what is left to do and gives the same answer.
/// </summary>
internal sealed class JoinRequests(JoinListenerOptions options, TokenLedger ledger, JoinCounters counters) : IAsyncDisposable
{
    private readonly AttemptLimit _attempts = new(options.Time);
    private readonly ProbeSessions _probes = new(options);

    // Joins change the same files: one after the other.
    private readonly SemaphoreSlim _one = new(1, 1);

    public async ValueTask DisposeAsync()
    {
        await _probes.DisposeAsync();
        _one.Dispose();
    }

    /// <summary>Completes what an earlier run had worked out and had begun to write.</summary>
    public void Recover()
    {
        foreach (var journal in Journal.All(options.JoinDirectory, accepted: true).Where(j => j.Phase == JournalPhase.Planned))
        {
            Write(journal);
            options.Log($"join of {journal.Peer}: completed after an interruption");
        }
    }

    /// <returns>False when the connection is to be closed.</returns>
    public async Task<bool> ServeOneAsync(Stream stream, IPAddress remote, IPAddress local, TimeSpan timeout, CancellationToken stop)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(stop);
        patience.CancelAfter(timeout);
        byte[] body;
        var status = "200 OK";
        var keep = true;
        try
        {
            if (await HttpMessage.ReadAsync(stream, Calls.BodyMax, patience.Token) is not { } request)
                return false;
            body = await AnswerAsync(request, remote, local, patience.Token);
        }
        catch (JoinException e)
        {
            counters.Refusal(e.Code);
            (status, keep) = (StatusOf(e.Code), e.Code is not ("malformed" or "oversize" or "rate-limited"));
            body = Json(new RefusalAnswer(e.Code, e.Message), JoinCompactJson.Default.RefusalAnswer);
        }
        await HttpMessage.WriteAsync(stream, $"HTTP/1.1 {status}", body, patience.Token, ("Connection", keep ? "keep-alive" : "close"));
        return keep;
    }

    private async Task<byte[]> AnswerAsync(HttpMessage request, IPAddress remote, IPAddress local, CancellationToken cancellation)
    {
        if (_attempts.IsExhausted(remote))
            throw new JoinException("rate-limited", "too many refused requests from this address: wait a minute");
        var parts = request.StartLine.Split(' ');
        if (parts is not ["POST", var path, "HTTP/1.1"] || !path.StartsWith(Calls.Prefix, StringComparison.Ordinal))
        {
            _attempts.Failed(remote);
            throw JoinException.Malformed("this port answers the requests of a join and no others");
        }
        var call = path[Calls.Prefix.Length..];
        try
        {
            switch (call)
            {
                case Calls.Describe:
                    return Describe(Read(request, JoinCompactJson.Default.DescribeRequest), remote);
                case Calls.Probe:
                    return await ProbeAsync(Read(request, JoinCompactJson.Default.ProbeRequest), remote, local, cancellation);
                case Calls.ProbeResult:
                    var wanted = Read(request, JoinCompactJson.Default.ProbeResultRequest);
                    Proven(wanted.Credential, remote);
                    return Json(await _probes.ResultAsync(wanted, cancellation), JoinCompactJson.Default.ProbeResultAnswer);
            }
            await _one.WaitAsync(cancellation);
            try
            {
                return call switch
                {
                    Calls.Begin => Begin(Read(request, JoinCompactJson.Default.BeginRequest), request, remote),
                    Calls.Finish => Finish(Read(request, JoinCompactJson.Default.FinishRequest), request, remote),
                    Calls.Confirm => Confirm(Read(request, JoinCompactJson.Default.PlainRequest), request, remote),
                    Calls.Cancel => Cancel(Read(request, JoinCompactJson.Default.PlainRequest), request, remote),
                    _ => throw JoinException.Malformed("a join has no such request"),
                };
            }
            finally
            {
                _one.Release();
            }
        }
        catch (JoinException e) when (e.Code is "token-unknown" or "token-edited" or "token-used" or "malformed")
        {
            _attempts.Failed(remote);
            throw;
        }
    }

    private byte[] Describe(DescribeRequest request, IPAddress remote)
    {
        var record = Proven(request.Credential, remote);
        return Json(new DescribeAnswer(Own(out _), options.Time.GetUtcNow(), record.Expires, record.Allowed, record.Taker),
            JoinCompactJson.Default.DescribeAnswer);
    }

    private async Task<byte[]> ProbeAsync(ProbeRequest request, IPAddress remote, IPAddress local, CancellationToken cancellation)
    {
        Proven(request.Credential, remote);
        return Json(await _probes.StartAsync(request, remote, local, cancellation), JoinCompactJson.Default.ProbeAnswer);
    }

    private byte[] Begin(BeginRequest request, HttpMessage message, IPAddress remote)
    {
        var record = Proven(request.Credential, remote);
        var key = TakerSignature.PublicKeyOf(request.Request);
        var bound = Convert.ToHexStringLower(key);
        if (!TakerSignature.Verify(key, Calls.Begin, message.Body, message.Header(TakerSignature.Header)))
            throw new JoinException("malformed", "the request is not signed by the key that it asks a certificate for");
        if (record.BoundKey is not null && record.BoundKey != bound)
            throw Taken(record);
        var taker = request.Taker;
        if (taker.Fault() is { } fault)
            throw JoinException.Malformed($"the joining cluster describes itself in a way that cannot be: {fault}");
        if (record.Taker is { } only && only != taker.Name)
            throw new JoinException("token-taker", $"this token is for {only}, not for {taker.Name}: ask for one of your own");
        if (record.TakerFacts is { } earlier && earlier.Name != taker.Name)
            throw Taken(record);
        var facts = Own(out var own);
        var refused = MeshChecks.Compare(facts, taker).Where(finding => finding.Severity == Severity.Fault
            && !(finding.CanBeForced && record.Allowed.Contains(finding.Check))).ToList();
        if (refused.Count > 0)
            throw new JoinException("refused", $"{facts.Name} refuses: {string.Join("; ", refused.Select(f => $"{f.Check}: {f.Text}"))}"
                + (refused.All(f => f.CanBeForced)
                    ? $" (a token made with {string.Join(' ', refused.Select(f => $"--allow {f.Check}").Distinct())} would pass)" : ""));
        var ownKey = record.OwnKey ?? Pki.CertificateRequests.Create(own.Name).KeyPem;
        var certificate = OwnPki.Sign(options.PkiDirectory ?? own.Pki, request.Request, own.UserOf(taker.Name), options.Time);
        options.Step("bind token");
        ledger.Update(record.Id, old => old with
        {
            State = old.State == TokenState.Unused ? TokenState.Bound : old.State,
            BoundKey = bound,
            TakerFacts = taker,
            OwnKey = ownKey,
        });
        options.Step("token bound");
        return Json(new BeginAnswer(facts, certificate, Pki.CertificateRequests.Create(own.Name, ownKey)),
            JoinCompactJson.Default.BeginAnswer);
    }

    private byte[] Finish(FinishRequest request, HttpMessage message, IPAddress remote)
    {
        var record = Signed(request.Credential, Calls.Finish, message, remote);
        var taker = record.TakerFacts!;
        Own(out var own);
        if (record.State == TokenState.Bound)
        {
            if (request.Certificate.Length > ClusterFacts.PemMax || record.OwnKey is null
                || !Pki.CertificateRequests.IsFor(request.Certificate, record.OwnKey))
                throw JoinException.Malformed("the certificate is not for the key that it was asked for");
            var journal = new Journal
            {
                Operation = Journal.Accept,
                Peer = taker.Name,
                Phase = JournalPhase.Planned,
                Began = options.Time.GetUtcNow(),
                TokenId = record.Id,
                PeerFacts = taker,
            };
            using (DirectoryLock.Take(options.JoinDirectory))
            {
                // Interrupted before: what was worked out then holds, because the files may be half written.
                if (Journal.Load(options.JoinDirectory, taker.Name, accepted: true) is { } begun && begun.TokenId == record.Id)
                    journal = begun;
                else
                {
                    var changes = PeerFiles.Connected(own, taker, request.Certificate, record.OwnKey, record.Direct);
                    journal = journal with { Changes = changes, MadeDirectories = Journal.MissingDirectories(changes) };
                    options.Step("journal accept");
                    journal.Save(options.JoinDirectory);
                }
            }
            Write(journal);
            counters.Join();
            options.Log($"join of {taker.Name} (id {taker.Id}): written");
        }
        return Done("accepted");
    }

    private void Write(Journal journal)
    {
        using (DirectoryLock.Take(options.JoinDirectory))
        {
            journal.Apply(ChangeStage.Grant, options.Step);
            journal.Apply(ChangeStage.Peer, options.Step);
            options.Step("journal applied");
            (journal with { Phase = JournalPhase.Done }).Save(options.JoinDirectory);
        }
        options.Step("token accepted");
        if (journal.TokenId is { } id)
            ledger.Update(id, old => old with { State = old.State == TokenState.Used ? old.State : TokenState.Accepted, OwnKey = null });
    }

    private byte[] Confirm(PlainRequest request, HttpMessage message, IPAddress remote)
    {
        var record = Signed(request.Credential, Calls.Confirm, message, remote);
        if (record.State == TokenState.Bound)
            throw new JoinException("not-finished", "nothing was written here yet: send `finish` first");
        options.Step("token used");
        ledger.Update(record.Id, old => old with { State = TokenState.Used });
        return Done("used");
    }

    private byte[] Cancel(PlainRequest request, HttpMessage message, IPAddress remote)
    {
        var record = Signed(request.Credential, Calls.Cancel, message, remote);
        IReadOnlyList<string> left = [];
        using (DirectoryLock.Take(options.JoinDirectory))
        {
            if (record.TakerFacts is { } taker && Journal.Load(options.JoinDirectory, taker.Name, accepted: true) is { } journal
                && journal.TokenId == record.Id)
            {
                left = journal.Undo(options.Step);
                Own(out var own);
                if (PeerFiles.Peers(own).All(known => known.Name != taker.Name))
                    OwnPki.Forget(own.Pki, own.UserOf(taker.Name), options.Time);
                Journal.Remove(options.JoinDirectory, taker.Name, accepted: true);
                options.Log($"join of {taker.Name}: taken back by its own request");
            }
        }
        foreach (var line in left)
            options.Log(line);
        ledger.Update(record.Id, old => old with { State = TokenState.Used, OwnKey = null });
        return Done("cancelled");
    }

    private static byte[] Done(string state) => Json(new PlainAnswer(state), JoinCompactJson.Default.PlainAnswer);

    private ClusterFacts Own(out ClusterDescription own)
    {
        var directory = ledger.Read().ClusterDirectory
            ?? throw new JoinException("ledger", "the ledger does not say which cluster it belongs to: make a new token");
        own = ClusterDescription.Load(directory);
        if (options.PkiDirectory is { } pki)
            own = own with { Pki = pki };
        return own.Facts();
    }

    /// <summary>The token, if the caller has its secret and it is not expired.</summary>
    private TokenRecord Proven(Credential credential, IPAddress remote)
    {
        var record = ledger.Read().Tokens.FirstOrDefault(token => token.Id == credential.TokenId);
        // As much work for a token that is not there as for one that is.
        var matches = (record ?? Nobody).Matches(credential.Secret);
        if (record is null)
        {
            options.Log($"join listener: {remote} came with a token that is not known here");
            throw new JoinException("token-unknown",
                "this cluster did not make that token, or made it too long ago: check which cluster the token is from, or make a new one");
        }
        if (!matches)
        {
            options.Log($"join listener: {remote} came with token {record.Id} and a wrong secret");
            throw new JoinException("token-edited", "the token's secret is not the one that was given out: paste the whole line, or make a new token");
        }
        if (options.Time.GetUtcNow() >= record.Expires)
            throw new JoinException("token-expired", $"the token expired at {record.Expires:yyyy-MM-dd HH:mm:ss}Z: make a new one");
        return record.State == TokenState.Used ? throw Taken(record) : record;
    }

    private TokenRecord Signed(Credential credential, string call, HttpMessage message, IPAddress remote)
    {
        var record = Proven(credential, remote);
        if (record.BoundKey is null || record.TakerFacts is null)
            throw new JoinException("not-begun", "this join has not begun: send `begin` first");
        return TakerSignature.Verify(Convert.FromHexString(record.BoundKey), call, message.Body, message.Header(TakerSignature.Header))
            ? record : throw Taken(record);
    }

    private static JoinException Taken(TokenRecord record) => new("token-used", record.TakerFacts is { } taker
        ? $"the token has been taken by {taker.Name} already; one token joins one cluster: make a new one"
        : "the token was revoked: make a new one");

    private static readonly TokenRecord Nobody = new()
    {
        Id = "",
        SecretHash = TokenRecord.HashOf(""),
        Created = default,
        Expires = default,
    };

    private static T Read<T>(HttpMessage request, JsonTypeInfo<T> type)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(request.Body, type) ?? throw JoinException.Malformed("the request is empty");
        }
        catch (JsonException e)
        {
            throw JoinException.Malformed($"the request: {InWords.Of(e)}");
        }
    }

    private static byte[] Json<T>(T answer, JsonTypeInfo<T> type) => JsonSerializer.SerializeToUtf8Bytes(answer, type);

    private static string StatusOf(string code) => code switch
    {
        "token-unknown" or "token-edited" => "401 Unauthorized",
        "token-expired" => "410 Gone",
        "token-used" or "token-taker" or "refused" or "not-begun" or "not-finished" => "409 Conflict",
        "oversize" => "413 Content Too Large",
        "rate-limited" => "429 Too Many Requests",
        "malformed" => "400 Bad Request",
        _ => "500 Internal Server Error",
    };
}
