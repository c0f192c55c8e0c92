using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Mesh.Joining.Checks;
using Mesh.Joining.Files;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;

namespace Mesh.Joining;

/// <summary>
/// The taker's side of a join. Each step is in the journal before it is done, so that after any interruption the same call goes on where
/// it ended, and <see cref="RollbackAsync"/> goes back to byte-identical files. The order: our key; the peer's answer; all files worked
/// out; the peer may read us; the peer writes its side; our readers are told; the token is done with.
/// </summary>
public sealed class TokenJoin(ClusterDescription own, JoinToken token, JoinEnvironment environment)
{
    /// <summary>Looks at everything and changes nothing.</summary>
    public Task<PlanReport> PlanAsync(CancellationToken cancellation) => new JoinPlan(own, token, environment).RunAsync(cancellation);

    /// <summary>Joins, or completes a join that was interrupted.</summary>
    /// <exception cref="JoinException">It was refused (the code is plan: nothing was changed) or interrupted (run it again, or roll back).</exception>
    public async Task<JoinOutcome> ConnectAsync(ConnectRequest request, CancellationToken cancellation)
    {
        var clock = environment.Time.GetTimestamp();
        using var alone = DirectoryLock.Take(own.JoinDirectory, $"connect-{token.ClusterName}.lock");
        var journal = Journal.Load(own.JoinDirectory, token.ClusterName);
        if (journal is { Operation: Journal.Connect, Phase: JournalPhase.Done } && journal.TokenId == token.Id)
            return new JoinOutcome(own.Name, token.ClusterName, JoinState.AlreadyConnected, null, environment.Time.GetElapsedTime(clock));
        Finding.RequireKnown("--force", request.Forced, Finding.Forceable);
        PlanReport? plan = null;
        if (journal is not { Operation: Journal.Connect } || journal.TokenId != token.Id)
        {
            if (journal is { Phase: not JournalPhase.Done })
                await UndoAsync(journal, own, environment, cancellation);
            plan = await PlanAsync(cancellation);
            if (plan.Standing(request.Forced) is { Count: > 0 } standing)
                throw new PlanException(plan, standing);
            journal = new Journal
            {
                Operation = Journal.Connect,
                Peer = token.ClusterName,
                Phase = JournalPhase.Begun,
                Began = environment.Time.GetUtcNow(),
                TokenId = token.Id,
                Token = token.ToString(),
                Key = Pki.CertificateRequests.Create(own.Name).KeyPem,
                Direct = request.Direct,
            };
            environment.Step("journal begun");
            journal.Save(own.JoinDirectory);
        }
        await AdvanceAsync(journal, cancellation);
        return new JoinOutcome(own.Name, token.ClusterName, JoinState.Connected, plan, environment.Time.GetElapsedTime(clock));
    }

    private async Task AdvanceAsync(Journal journal, CancellationToken cancellation)
    {
        JoinClient? client = null;
        try
        {
            async Task<JoinClient> PeerAsync() =>
                client ??= await JoinClient.ConnectAsync(token, environment.OpenSocket, environment.Time, cancellation);

            if (journal.Phase == JournalPhase.Begun)
                journal = Saved(await BeginAsync(await PeerAsync(), journal, cancellation), "journal answered");
            if (journal.Phase == JournalPhase.Answered)
            {
                using (DirectoryLock.Take(own.JoinDirectory))
                {
                    var changes = PeerFiles.Connected(own, journal.PeerFacts!, journal.Certificate!, journal.Key!, journal.Direct);
                    journal = Saved(journal with
                    {
                        Phase = JournalPhase.Planned,
                        Changes = changes,
                        MadeDirectories = Journal.MissingDirectories(changes),
                    }, "journal planned");
                    journal.Apply(ChangeStage.Grant, environment.Step);
                    journal = Saved(journal with { Phase = JournalPhase.Granted }, "journal granted");
                }
            }
            if (journal.Phase == JournalPhase.Planned)
            {
                using (DirectoryLock.Take(own.JoinDirectory))
                    journal.Apply(ChangeStage.Grant, environment.Step);
                journal = Saved(journal with { Phase = JournalPhase.Granted }, "journal granted");
            }
            if (journal.Phase == JournalPhase.Granted)
            {
                environment.Step("finish");
                await (await PeerAsync()).FinishAsync(journal.IssuedCertificate!, journal.Key!, cancellation);
                journal = Saved(journal with { Phase = JournalPhase.Finished }, "journal finished");
            }
            if (journal.Phase == JournalPhase.Finished)
            {
                using (DirectoryLock.Take(own.JoinDirectory))
                    journal.Apply(ChangeStage.Peer, environment.Step);
                journal = Saved(journal with { Phase = JournalPhase.Applied }, "journal applied");
            }
            await ConfirmAsync(PeerAsync, journal, cancellation);
            Saved(journal with { Phase = JournalPhase.Done, Token = null }, "journal done");
        }
        finally
        {
            if (client is not null)
                await client.DisposeAsync();
        }
    }

    private async Task<Journal> BeginAsync(JoinClient client, Journal journal, CancellationToken cancellation)
    {
        BeginAnswer answer;
        try
        {
            environment.Step("begin");
            answer = await client.BeginAsync(
                own.Facts(), Pki.CertificateRequests.Create(own.Name, journal.Key!), journal.Key!, cancellation);
        }
        catch (JoinException e) when (e.Code != "join-interrupted")
        {
            // Refused before anything was written here: there is nothing to go on with.
            Journal.Remove(own.JoinDirectory, journal.Peer);
            throw;
        }
        if (answer.Issuer.Fault() is { } fault)
            throw new JoinException("malformed", $"{token.ClusterName} describes itself in a way that cannot be: {fault}");
        if (answer.Issuer.Name != token.ClusterName || answer.Issuer.Id != token.ClusterId)
            throw new JoinException("malformed", $"the token is of {token.ClusterName} and {answer.Issuer.Name} answers: make a new token");
        RequireUsable(answer, journal.Key!);
        return journal with
        {
            Phase = JournalPhase.Answered,
            PeerFacts = answer.Issuer,
            Certificate = answer.Certificate,
            IssuedCertificate = OwnPki.Sign(own.Pki, answer.Request, own.UserOf(token.ClusterName), environment.Time),
        };
    }

    /// <summary>The certificate is for our key, under our name, and of an authority that the peer itself names.</summary>
    private void RequireUsable(BeginAnswer answer, string key)
    {
        if (answer.Certificate.Length > ClusterFacts.PemMax || !Pki.CertificateRequests.IsFor(answer.Certificate, key))
            throw new JoinException("malformed", $"{token.ClusterName} answered with a certificate for another key");
        using var authorities = ClusterFacts.ReadAuthorities(answer.Issuer.Authorities);
        var all = new X509Certificate2Collection();
        try
        {
            all.ImportFromPem(answer.Certificate);
            using var chain = new X509Chain();
            chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            chain.ChainPolicy.CustomTrustStore.AddRange(authorities.Certificates);
            chain.ChainPolicy.ExtraStore.AddRange(all);
            chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
            chain.ChainPolicy.VerificationTime = environment.Time.GetUtcNow().UtcDateTime;
            if (!chain.Build(all[0]))
                throw new JoinException("malformed", $"{token.ClusterName} answered with a certificate that its own authorities do not vouch for: "
                    + string.Join(", ", chain.ChainStatus.Select(status => status.StatusInformation.Trim())));
        }
        catch (CryptographicException e)
        {
            throw new JoinException("malformed", $"{token.ClusterName} answered with something that is not a certificate", e);
        }
        finally
        {
            foreach (var certificate in all)
                certificate.Dispose();
        }
    }

    /// <summary>Both sides are written; only the token is still open, and it closes by itself when it expires.</summary>
    private async Task ConfirmAsync(Func<Task<JoinClient>> peer, Journal journal, CancellationToken cancellation)
    {
        try
        {
            environment.Step("confirm");
            await (await peer()).ConfirmAsync(journal.Key!, cancellation);
        }
        catch (JoinException e)
        {
            environment.Log($"{journal.Peer} was not told that its token is done with, it stays open until it expires: {e.Message}");
        }
    }

    private Journal Saved(Journal journal, string step)
    {
        environment.Step(step);
        journal.Save(own.JoinDirectory);
        return journal;
    }

    /// <summary>Takes back the last join or disconnection of a peer, whether it was interrupted or is done.</summary>
    /// <param name="peer">Null for the only one that was interrupted.</param>
    /// <exception cref="JoinException">There is nothing to take back.</exception>
    public static async Task<RollbackOutcome> RollbackAsync(
        ClusterDescription own, string? peer, JoinEnvironment environment, CancellationToken cancellation)
    {
        var candidates = Journal.All(own.JoinDirectory)
            .Where(journal => peer is null ? journal.Phase != JournalPhase.Done : journal.Peer == peer).ToList();
        if (candidates is not [var journal])
        {
            throw new JoinException("rollback", candidates.Count == 0
                ? peer is null ? $"nothing of {own.Name} was interrupted: name the peer whose join is to be taken back"
                    : $"{own.Name} has no join of {peer} that could be taken back; `mesh clustermesh disconnect {peer}` removes a peer"
                : $"several were interrupted, name one: {string.Join(", ", candidates.Select(candidate => candidate.Peer))}");
        }
        using var alone = DirectoryLock.Take(own.JoinDirectory, $"connect-{journal.Peer}.lock");
        return await UndoAsync(Journal.Load(own.JoinDirectory, journal.Peer) ?? journal, own, environment, cancellation);
    }

    private static async Task<RollbackOutcome> UndoAsync(
        Journal journal, ClusterDescription own, JoinEnvironment environment, CancellationToken cancellation)
    {
        var notes = new List<string>();
        if (journal.PeerCancelled)
        {
            // An earlier rollback came so far.
        }
        else if (journal is { Operation: Journal.Connect, Token: { } text, Key: { } key })
        {
            try
            {
                environment.Step("cancel");
                await using var client = await JoinClient.ConnectAsync(
                    JoinToken.Parse(text), environment.OpenSocket, environment.Time, cancellation, patient: false);
                await client.CancelAsync(key, cancellation);
                environment.Step("journal cancelled");
                (journal = journal with { PeerCancelled = true }).Save(own.JoinDirectory);
            }
            catch (JoinException e) when (e.Code == "not-begun")
            {
                // It never heard of us.
            }
            catch (JoinException e)
            {
                notes.Add($"{journal.Peer} could not be told ({e.Message}): if it lists {own.Name}, run `mesh clustermesh disconnect {own.Name}` there");
            }
        }
        else if (journal.Operation == Journal.Connect)
            notes.Add($"{journal.Peer} was not told: run `mesh clustermesh disconnect {own.Name}` there");
        using (DirectoryLock.Take(own.JoinDirectory))
        {
            notes.AddRange(journal.Undo(environment.Step));
            if (PeerFiles.Peers(own).All(known => known.Name != journal.Peer))
                OwnPki.Forget(own.Pki, own.UserOf(journal.Peer), environment.Time);
            environment.Step("journal removed");
            Journal.Remove(own.JoinDirectory, journal.Peer);
        }
        return new RollbackOutcome(own.Name, journal.Peer, notes);
    }
}

/// <param name="Forced">Findings of the plan that shall not stop it.</param>
/// <param name="Direct">Our agents shall read the peer's door themselves, although there is a relay.</param>
public sealed record ConnectRequest(IReadOnlyCollection<string> Forced, bool Direct = false)
{
    public static ConnectRequest Plain { get; } = new([]);
}

public enum JoinState
{
    Connected,
    AlreadyConnected,
}

/// <param name="Plan">What was found before; null when an interrupted join was completed.</param>
public sealed record JoinOutcome(string Cluster, string Peer, JoinState State, PlanReport? Plan, TimeSpan Took);

/// <param name="Notes">What could not be put back, or not told.</param>
public sealed record RollbackOutcome(string Cluster, string Peer, IReadOnlyList<string> Notes);

/// <summary>The plan found faults; nothing was changed.</summary>
public sealed class PlanException(PlanReport plan, IReadOnlyList<Finding> standing) : Exception(
    $"{plan.Cluster} and {plan.Peer} were not connected, nothing was changed: "
    + string.Join("; ", standing.Select(finding => $"{finding.Check}: {finding.Text}")))
{
    public PlanReport Plan => plan;

    public IReadOnlyList<Finding> Standing => standing;
}
