using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using Mesh.Joining.Listening;
using Mesh.Joining.Protocol;

namespace Mesh.Joining.Checks;

/// <summary>
/// A door as somebody outside finds it: name, TCP, TLS, and whether the certificate it shows is signed by the authority told, is valid
/// now, and is for the address that will be dialled. No client certificate is shown and nothing is asked.
/// </summary>
internal static class DoorTrials
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    public static async Task<IReadOnlyList<DoorTrial>> TryAsync(
        IReadOnlyList<string> addresses, string authoritiesPem, OpenSocket open, TimeProvider time, CancellationToken cancellation)
    {
        using var authorities = ClusterFacts.ReadAuthorities(authoritiesPem);
        return await Task.WhenAll(addresses.Select(address => TryOneAsync(address, authorities, open, time, cancellation)));
    }

    private static async Task<DoorTrial> TryOneAsync(
        string address, Authorities authorities, OpenSocket open, TimeProvider time, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(Patience);
        var uri = new Uri(address);
        var host = uri.Host.Trim('[', ']');
        var stage = "dns";
        var verdict = new Verdict("tls", "the door ended the handshake before it showed a certificate");
        try
        {
            var ip = IPAddress.TryParse(host, out var literal) ? literal : (await Dns.GetHostAddressesAsync(host, patience.Token))[0];
            stage = "tcp";
            using var socket = open(ip.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            await socket.ConnectAsync(new IPEndPoint(ip, uri.Port), patience.Token);
            stage = "tls";
            await using var stream = new NetworkStream(socket, ownsSocket: false);
            await using var tls = new SslStream(stream);
            await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = host,
                EnabledSslProtocols = SslProtocols.Tls12 | SslProtocols.Tls13,
                CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
                RemoteCertificateValidationCallback = (_, certificate, chain, _) =>
                {
                    verdict = ServerCertificate.Judge(certificate as X509Certificate2, chain, authorities, host, time);
                    return verdict.IsGood;
                },
            }, patience.Token);
            return new DoorTrial(address, verdict.Class, verdict.Text, verdict.DaysLeft);
        }
        catch (Exception e) when (e is SocketException or IOException or AuthenticationException
            || e is OperationCanceledException && !cancellation.IsCancellationRequested)
        {
            if (stage == "tls" && verdict.DaysLeft is not null)
                return new DoorTrial(address, verdict.Class, verdict.Text, verdict.DaysLeft);
            var reason = e is OperationCanceledException ? $"no answer in {Patience.TotalSeconds:0} s" : InWords.Of(e);
            return new DoorTrial(address, stage, stage == "tls" ? $"{verdict.Text}: {reason}" : reason);
        }
    }
}
