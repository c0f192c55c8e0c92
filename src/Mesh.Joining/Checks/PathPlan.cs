using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Mesh.Joining.Protocol;

namespace Mesh.Joining.Checks;

/// <summary>
/// Probes the network between the two control planes, each direction alone: the other's door, datagrams to the tunnel's port, and their
/// largest size. It proves the path between the two hosts that run the join; whether each node's own firewall is open shows only when
/// tunnels carry traffic, and the texts say no more than that.
/// </summary>
internal sealed class PathPlan(
    ClusterDescription own, ClusterFacts facts, ClusterFacts issuer, JoinClient client, JoinEnvironment environment, List<Finding> findings)
{
    private static readonly TimeSpan HearPatience = TimeSpan.FromMilliseconds(600);
    private static readonly TimeSpan BindPatience = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan BindPause = TimeSpan.FromMilliseconds(10);

    public async Task RunAsync(CancellationToken cancellation)
    {
        var nonceText = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(8));
        var nonce = ProbeEar.ParseNonce(nonceText);
        var (ear, deaf) = await OpenEarAsync(cancellation);
        try
        {
            ear?.Expect(nonce);
            var answer = await client.ProbeAsync(
                new ProbeRequest(client.Credential, nonceText, own.TunnelPort, ear is not null, own.DoorAddresses, facts.Authorities), cancellation);
            var (mtu, sent, failure) = (0, Array.Empty<int>(), (string?)null);
            try
            {
                (mtu, sent) = ProbeDatagram.Send(environment.OpenSocket, client.Local, new IPEndPoint(client.Remote.Address, own.TunnelPort), nonce);
            }
            catch (SocketException e)
            {
                failure = e.Message;
            }
            var heardHere = ear is null ? [] : await ear.HeardAsync(nonce, answer.Sent, HearPatience, cancellation);
            var result = await client.ProbeResultAsync(new ProbeResultRequest(client.Credential, nonceText, sent), cancellation);
            Direction(Finding.Names.UdpOut, Finding.Names.MtuOut, own.Name, client.Local, issuer.Name, client.Remote.Address,
                answer.Listening ? failure : answer.Reason, mtu, sent, result.Received);
            Direction(Finding.Names.UdpIn, Finding.Names.MtuIn, issuer.Name, client.Remote.Address, own.Name, client.Local,
                deaf ?? (answer.Sent.Count == 0 ? answer.Reason ?? "nothing was sent" : null), answer.Mtu, answer.Sent, heardHere);
            findings.Add(Doors(Finding.Names.DoorIn, issuer.Name, own.Name, result.Doors));
        }
        catch (JoinException e) when (e.Code is "busy" or "not-begun")
        {
            foreach (var check in new[] { Finding.Names.UdpOut, Finding.Names.UdpIn, Finding.Names.DoorIn })
                findings.Add(Finding.Warning(check, $"not proven: {e.Message}", "run plan again"));
        }
        finally
        {
            if (ear is not null)
                await ear.DisposeAsync();
        }
    }

    /// <summary>What the trials of a door, from outside, come to.</summary>
    public static Finding Doors(string check, string from, string to, IReadOnlyList<DoorTrial> trials)
    {
        var good = trials.Where(trial => trial.Class == "ok").ToList();
        var bad = trials.Where(trial => trial.Class != "ok").ToList();
        var texts = $"from {from} to the door of {to}: " + string.Join("; ", trials.Select(trial => $"{trial.Address} "
            + (trial.Class == "ok" ? "answers, " : "") + trial.Detail));
        if (bad.Count == 0 && trials.Count > 0)
        {
            var days = trials.Min(trial => trial.DaysLeft ?? 0);
            return days < 30 ? Finding.Warning(check, texts, $"renew the server certificate on {to}: `mesh ca issue`") : Finding.Ok(check, texts);
        }
        var mend = (bad.Count == 0 ? "tcp" : bad[0].Class) switch
        {
            "dns" => "use a name that both sides can resolve, or an address",
            "tcp" => $"start the API server of {to}, and open its port for {from}",
            "authority" => $"give the door of {to} a certificate of the authority in its pki directory",
            "expired" => $"renew the server certificate on {to}: `mesh ca issue`",
            "name" => $"issue the server certificate of {to} again, for the address that others dial",
            _ => $"look at the log of the API server of {to}",
        };
        return good.Count > 0 ? Finding.Warning(check, texts, mend) : Finding.Fault(check, texts, mend);
    }

    private void Direction(string udp, string mtuCheck, string from, IPAddress fromAddress, string to, IPAddress toAddress,
        string? unproven, int mtu, IReadOnlyList<int> sent, IReadOnlyList<int> received)
    {
        var way = $"{from} ({fromAddress}) to {to} ({toAddress})";
        if (unproven is not null)
        {
            findings.Add(Finding.Warning(udp, $"not proven from {way}, UDP {own.TunnelPort}: {unproven}",
                "run it where no tunnel holds the port (the control plane's host), or test by hand"));
            return;
        }
        if (received.Count == 0)
        {
            findings.Add(Finding.Fault(udp, $"none of {sent.Count} sizes of datagrams arrived from {way}, UDP {own.TunnelPort}",
                $"open UDP {own.TunnelPort} in that direction, between these hosts and between all nodes"));
            return;
        }
        findings.Add(Finding.Ok(udp, $"datagrams arrive from {way}, UDP {own.TunnelPort}; the firewalls of single nodes are not proven by this"));
        var largest = received.Max();
        var wanted = sent.Max();
        if (largest >= wanted)
            findings.Add(Finding.Ok(mtuCheck,
                $"packets of {largest} bytes pass whole from {way}" + (wanted < mtu ? $" (larger ones, up to the interface's {mtu}, were not tried)" : "")));
        else
            findings.Add(Finding.Fault(mtuCheck, $"packets of {largest} bytes pass from {way}, those of "
                + $"{sent.Where(size => size > largest).Min()} do not, and {from} sends up to {mtu}: large packets of pods would be lost",
                $"set the MTU of the nodes' interfaces to {largest}, or let the path carry {mtu}"));
    }

    private async Task<(ProbeEar? Ear, string? Reason)> OpenEarAsync(CancellationToken cancellation)
    {
        var began = TimeProvider.System.GetTimestamp();
        while (true)
        {
            var (ear, reason) = ProbeEar.Open(environment.OpenSocket, new IPEndPoint(client.Local, own.TunnelPort));
            if (ear is not null || TimeProvider.System.GetElapsedTime(began) > BindPatience)
                return (ear, reason);
            await Task.Delay(BindPause, cancellation);
        }
    }
}
