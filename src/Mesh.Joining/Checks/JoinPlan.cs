using System.Security.Cryptography.X509Certificates;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;

namespace Mesh.Joining.Checks;

/// <summary>
/// Looks at everything that a join needs, from the taker's side, and changes nothing on either: the token stays unused. What could not be
/// looked at is a warning that says so, never an "ok".
/// </summary>
internal sealed class JoinPlan(ClusterDescription own, JoinToken token, JoinEnvironment environment)
{
    private const int WarningDays = 30;
    private readonly List<Finding> _findings = [];

    public async Task<PlanReport> RunAsync(CancellationToken cancellation)
    {
        var facts = OwnCertificates();
        if (token.Taker is { } only && only != own.Name)
            Add(Finding.Fault(Finding.Names.Token, $"the token is for {only}, not for {own.Name}", $"ask for a token of your own on {token.ClusterName}"));
        else if (facts is not null)
        {
            try
            {
                await using var client = await JoinClient.ConnectAsync(token, environment.OpenSocket, environment.Time, cancellation);
                await LookAsync(client, facts, cancellation);
            }
            catch (JoinException e)
            {
                Add(Refused(e));
            }
        }
        return new PlanReport(own.Name, token.ClusterName, _findings);
    }

    private async Task LookAsync(JoinClient client, ClusterFacts facts, CancellationToken cancellation)
    {
        var asked = environment.Time.GetTimestamp();
        var answer = await client.DescribeAsync(cancellation);
        var half = environment.Time.GetElapsedTime(asked) / 2;
        var now = environment.Time.GetUtcNow();
        var issuer = answer.Issuer;
        if (issuer.Fault() is { } fault)
        {
            Add(Finding.Fault(Finding.Names.Token, $"{token.ClusterName} describes itself in a way that cannot be: {fault}", "compare the versions of both"));
            return;
        }
        if (issuer.Name != token.ClusterName || issuer.Id != token.ClusterId)
        {
            Add(Finding.Fault(Finding.Names.Token, $"the token is of {token.ClusterName} (id {token.ClusterId}) and its listener is {issuer.Name} "
                + $"(id {issuer.Id})", "make a new token"));
            return;
        }
        Add(Finding.Ok(Finding.Names.Token, $"{token.Id} of {issuer.Name} (id {issuer.Id}), unused, valid until {answer.Expires:yyyy-MM-dd HH:mm:ss}Z"));
        Expiry(Finding.Names.JoinTls, $"the certificate of {issuer.Name}'s join listener {client.Remote}", client.Certificate.DaysLeft ?? 0,
            $"`mesh ca issue` on {issuer.Name}");
        _findings.AddRange(MeshChecks.Compare(facts, issuer));
        Add(MeshChecks.Clock(answer.Now - (now - half), half, issuer.Name));
        Authority(issuer);
        var doors = DoorTrials.TryAsync(issuer.DoorAddresses, issuer.Authorities, environment.OpenSocket, environment.Time, cancellation);
        await new PathPlan(own, facts, issuer, client, environment, _findings).RunAsync(cancellation);
        _findings.Add(PathPlan.Doors(Finding.Names.DoorOut, own.Name, issuer.Name, await doors));
    }

    private void Authority(ClusterFacts issuer)
    {
        using var told = token.ReadAuthorities();
        using var present = ClusterFacts.ReadAuthorities(issuer.Authorities);
        var common = present.Certificates.Where(a => told.Certificates.Any(b => a.RawDataMemory.Span.SequenceEqual(b.RawDataMemory.Span))).ToList();
        if (common.Count == 0)
            Add(Finding.Warning(Finding.Names.Authority, $"{issuer.Name} has changed its authority since the token was made", "make a new token"));
        foreach (var authority in present.Certificates)
            Expiry(Finding.Names.Authority, $"{issuer.Name}'s authority '{authority.Subject}'", Days(authority), $"`mesh ca rotate` on {issuer.Name}");
    }

    private ClusterFacts? OwnCertificates()
    {
        try
        {
            using var authorities = OwnPki.Authorities(own.Pki);
            foreach (var authority in authorities.Certificates)
                Expiry(Finding.Names.OwnPki, $"{own.Name}'s authority '{authority.Subject}'", Days(authority), "`mesh ca rotate`");
            foreach (var name in own.RelayConfig is null ? new[] { "server" } : ["server", "local"])
            {
                using var pair = OwnPki.Pair(own.Pki, name);
                var verdict = Trust(pair, authorities);
                if (verdict is null)
                    Expiry(Finding.Names.OwnPki, $"{own.Name}'s {name} certificate", Days(pair), "`mesh ca issue`");
                else
                    Add(Finding.Fault(Finding.Names.OwnPki, $"{own.Pki}/{name}.crt: {verdict}", "`mesh ca issue`"));
            }
            OwnPki.RequireSigner(own.Pki, environment.Time);
            return own.Facts();
        }
        catch (JoinException e)
        {
            Add(Finding.Fault(Finding.Names.OwnPki, e.Message, $"mend {own.Pki}"));
            return null;
        }
    }

    /// <summary>Null when it is signed by one of the authorities, whatever its dates.</summary>
    private string? Trust(X509Certificate2 certificate, Authorities authorities)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.AddRange(authorities.Certificates);
        chain.ChainPolicy.ExtraStore.AddRange(OwnPki.Chain(own.Pki, "server"));
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.VerificationTime = environment.Time.GetUtcNow().UtcDateTime;
        chain.Build(certificate);
        return chain.ChainStatus.Any(status => status.Status != X509ChainStatusFlags.NotTimeValid) ? "it is not signed by the authority in ca.crt" : null;
    }

    private int Days(X509Certificate2 certificate) =>
        (int)Math.Floor((certificate.NotAfter.ToUniversalTime() - environment.Time.GetUtcNow().UtcDateTime).TotalDays);

    private void Expiry(string check, string what, int days, string mend) => Add(days < 0
        ? Finding.Fault(check, $"{what} has expired", $"renew it: {mend}")
        : days < WarningDays ? Finding.Warning(check, $"{what} expires in {days} days", $"renew it: {mend}")
        : Finding.Ok(check, $"{what} is valid for {days} more days"));

    private Finding Refused(JoinException e) => e.Code switch
    {
        "join-unreachable" or "join-interrupted" => Finding.Fault(Finding.Names.JoinTls, e.Message, "nothing behind it could be looked at"),
        "certificate-authority" => Finding.Fault(Finding.Names.JoinTls, e.Message,
            "either something else answers there, or the authority was replaced since: make a new token; the secret was not sent"),
        "certificate-expired" => Finding.Fault(Finding.Names.JoinTls, e.Message, $"renew it on {token.ClusterName} (`mesh ca issue`), or set the clock"),
        "certificate-name" or "certificate-tls" => Finding.Fault(Finding.Names.JoinTls, e.Message, "see `mesh clustermesh token create --address`"),
        _ => Finding.Fault(Finding.Names.Token, e.Message, $"make a new token on {token.ClusterName}: `mesh clustermesh token create`"),
    };

    private void Add(Finding finding) => _findings.Add(finding);
}
