using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Text;
using Mesh.Joining.Listening;
using Mesh.Joining.Protocol;
using Mesh.Joining.Tokens;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.Joining.Tests;

/// <summary>Whoever comes with a wrong token, or with no sense at all, gets a clear answer and is counted; others are served on.</summary>
public sealed class ListenerTests : IAsyncLifetime
{
    private TestCluster _tokyo = null!;
    private TestCluster _osaka = null!;
    private JoinListener _listener = null!;

    private static CancellationToken Cancel => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync()
    {
        _tokyo = TestCluster.Create("tokyo", 1);
        _osaka = TestCluster.Create("osaka", 2);
        _listener = _tokyo.Listen();
        return ValueTask.CompletedTask;
    }

    public async ValueTask DisposeAsync()
    {
        await _tokyo.DisposeAsync();
        await _osaka.DisposeAsync();
    }

    private async Task RefusedAsync(JoinToken token, string code, string text, TestCluster? taker = null)
    {
        var e = await Assert.ThrowsAsync<PlanException>(() => (taker ?? _osaka).Join(token).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Contains(text, e.Message);
        Assert.Equal(1, _listener.Counters.Refused[code]);
    }

    private async Task OthersAreServedAsync() =>
        Assert.Equal(JoinState.Connected, (await _osaka.Join(_tokyo.Token()).ConnectAsync(ConnectRequest.Plain, Cancel)).State);

    [Fact]
    public async Task A_replayed_token()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        var token = _tokyo.Token();
        // Another token keeps the listener open.
        _tokyo.Token();
        await kyoto.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel);
        await RefusedAsync(token, "token-used", "the token has been taken by kyoto already");
        await OthersAreServedAsync();
    }

    [Fact]
    public async Task A_token_that_somebody_else_has_begun_with()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        var token = _tokyo.Token();
        await Assert.ThrowsAsync<InvalidOperationException>(() => kyoto.Join(token, step =>
        {
            if (step == "journal answered")
                throw new InvalidOperationException(step);
        }).ConnectAsync(ConnectRequest.Plain, Cancel));
        var e = await Assert.ThrowsAsync<JoinException>(() => _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Equal("token-used", e.Code);
        Assert.Empty(Directory.GetFiles($"{_osaka.Root}/join/journal"));
        // The first one may still go on.
        Assert.Equal(JoinState.Connected, (await kyoto.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel)).State);
    }

    [Fact]
    public async Task An_edited_token()
    {
        var token = _tokyo.Token();
        await RefusedAsync(token with { Secret = token.Secret[..^1] + (token.Secret[^1] == 'A' ? 'B' : 'A') }, "token-edited", "secret is not the one");
        await OthersAreServedAsync();
    }

    [Fact]
    public async Task A_token_of_another_cluster()
    {
        await using var kyoto = TestCluster.Create("kyoto", 3);
        _tokyo.Token();
        var foreign = kyoto.Token() with { Addresses = [_tokyo.Description.JoinListen!] };
        var e = await Assert.ThrowsAsync<PlanException>(() => _osaka.Join(foreign).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Contains("not signed by the authority", e.Message);
        // Even with an authority that fits it is not known.
        await RefusedAsync(foreign with { Authorities = OwnPki.AuthoritiesDer(_tokyo.Description.Pki) }, "token-unknown", "did not make that token");
        await OthersAreServedAsync();
    }

    [Fact]
    public async Task A_token_for_another_taker()
    {
        var token = _tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1), "kyoto", [], []));
        var e = await Assert.ThrowsAsync<PlanException>(() => _osaka.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Contains("the token is for kyoto", e.Message);
        // Whoever removes that from the text is refused by the issuer.
        var refused = await Assert.ThrowsAsync<JoinException>(() => _osaka.Join(token with { Taker = null }).ConnectAsync(ConnectRequest.Plain, Cancel));
        Assert.Equal("token-taker", refused.Code);
        Assert.Equal(1, _listener.Counters.Refused["token-taker"]);
    }

    [Fact]
    public async Task A_revoked_token()
    {
        var token = _tokyo.Token();
        _tokyo.Token();
        Assert.True(new TokenLedger(_tokyo.Description.JoinDirectory, TimeProvider.System).Revoke(token.Id));
        await RefusedAsync(token, "token-used", "the token was revoked");
        await OthersAreServedAsync();
    }

    [Fact]
    public async Task An_expired_token()
    {
        await _listener.DisposeAsync();
        var time = new FakeTimeProvider(DateTimeOffset.UtcNow);
        await using var listener = _listener = _tokyo.Listen(time);
        var token = _tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(1)), time);
        _tokyo.Token(new TokenRequest(TimeSpan.FromMinutes(10)), time);
        time.Advance(TimeSpan.FromMinutes(2));
        await RefusedAsync(token, "token-expired", "the token expired at");
        time.Advance(TimeSpan.FromMinutes(9));
        await JoinTests.Eventually(() => !listener.IsOpen, "the listener closes when the last token has expired");
    }

    [Fact]
    public async Task The_port_is_shut_until_there_is_a_token()
    {
        using var early = new TcpClient();
        await Assert.ThrowsAsync<SocketException>(() => early.ConnectAsync(Listen, Cancel).AsTask());
        _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "a token opens the port");
        using var late = new TcpClient();
        await late.ConnectAsync(Listen, Cancel);
    }

    private IPEndPoint Listen => IPEndPoint.Parse(_tokyo.Description.JoinListen!);

    private async Task<SslStream> DialAsync(SslProtocols protocols = SslProtocols.None)
    {
        var client = new TcpClient();
        await client.ConnectAsync(Listen, Cancel);
        var tls = new SslStream(client.GetStream());
        await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
        {
            EnabledSslProtocols = protocols,
            RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate is not null,
        }, Cancel);
        return tls;
    }

    [Theory]
    [InlineData("GET / HTTP/1.1\r\n\r\n", "malformed", "400")]
    [InlineData("nonsense\r\n\r\n", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: 3\r\n\r\n{]}", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: 4\r\n\r\nnull", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "malformed", "400")]
    [InlineData("POST /v1/join/destroy HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "oversize", "413")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", "malformed", "400")]
    [InlineData("POST /v1/join/begin HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", "malformed", "400")]
    public async Task Nonsense_gets_an_answer_and_is_counted(string request, string code, string status)
    {
        _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "open");
        await using (var tls = await DialAsync())
        {
            await tls.WriteAsync(Encoding.ASCII.GetBytes(request), Cancel);
            var answer = await HttpMessage.ReadAsync(tls, 1 << 16, Cancel);
            Assert.StartsWith($"HTTP/1.1 {status} ", answer!.StartLine);
            Assert.Contains($"\"code\":\"{code}\"", Encoding.UTF8.GetString(answer.Body));
        }
        Assert.Equal(1, _listener.Counters.Refused[code]);
        await OthersAreServedAsync();
    }

    [Fact]
    public async Task A_head_without_an_end_is_refused()
    {
        _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "open");
        await using var tls = await DialAsync();
        await tls.WriteAsync(Encoding.ASCII.GetBytes("POST / HTTP/1.1\r\nA: " + new string('x', 20000)), Cancel);
        Assert.StartsWith("HTTP/1.1 400", (await HttpMessage.ReadAsync(tls, 1 << 16, Cancel))!.StartLine);
    }

    [Fact]
    public async Task Those_who_connect_and_say_nothing_hold_up_nobody()
    {
        _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "open");
        var silent = new List<TcpClient>();
        for (var i = 0; i < 40; i++)
        {
            var client = new TcpClient();
            await client.ConnectAsync(Listen, Cancel);
            silent.Add(client);
        }
        await OthersAreServedAsync();
        silent.ForEach(client => client.Dispose());
        await JoinTests.Eventually(() => _listener.Counters.HandshakeFailures == 40, "each is counted");
    }

    [Fact]
    public async Task An_old_TLS_is_refused_and_a_plain_word_too()
    {
        _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "open");
#pragma warning disable CA5397, SYSLIB0039 // That it is refused is the test.
        await Assert.ThrowsAnyAsync<Exception>(() => DialAsync(SslProtocols.Tls11));
#pragma warning restore CA5397, SYSLIB0039
        using (var plain = new TcpClient())
        {
            await plain.ConnectAsync(Listen, Cancel);
            await plain.GetStream().WriteAsync("POST /v1/join/begin HTTP/1.1\r\n\r\n"u8.ToArray(), Cancel);
            await JoinTests.Eventually(() => _listener.Counters.HandshakeFailures >= 1, "counted");
        }
        await using (await DialAsync(SslProtocols.Tls12))
            await OthersAreServedAsync();
    }

    [Fact]
    public async Task Who_guesses_is_not_listened_to_any_more_and_others_are()
    {
        var token = _tokyo.Token();
        await JoinTests.Eventually(() => _listener.IsOpen, "open");
        var codes = new List<string>();
        for (var i = 0; i < 14; i++)
        {
            try
            {
                var open = _osaka.Environment_().OpenSocket;
                await using var client = await JoinClient.ConnectAsync(token with { Secret = $"guess{i}" }, open, TimeProvider.System, Cancel);
                await client.DescribeAsync(Cancel);
            }
            catch (JoinException e)
            {
                codes.Add(e.Code);
            }
        }
        Assert.Equal(Enumerable.Repeat("token-edited", 10).Concat(Enumerable.Repeat("rate-limited", 4)), codes);
        await using var kyoto = TestCluster.Create("kyoto", 3);
        Assert.Equal(JoinState.Connected, (await kyoto.Join(token).ConnectAsync(ConnectRequest.Plain, Cancel)).State);
    }

    [Fact]
    public async Task A_taker_that_describes_itself_as_it_cannot_be_changes_nothing()
    {
        var token = _tokyo.Token();
        var before = _tokyo.Checksum();
        var facts = _osaka.Description.Facts();
        var (request, key) = Pki.CertificateRequests.Create("remote-osaka");
        var number = 0;
        foreach (var wrong in new[]
        {
            facts with { Name = "../../etc" }, facts with { Id = 0 }, facts with { Id = 4711 },
            facts with { PodCIDRs = [] }, facts with { PodCIDRs = ["10.0.0.0/99"] },
            facts with { DoorAddresses = ["https://1.2.3.4:2379\n- evil: true"] }, facts with { Authorities = "no PEM" }, facts with { TunnelPort = 0 },
            facts with { PodCIDRs = [.. Enumerable.Repeat("10.2.0.0/16", 65)] },
        })
        {
            // From an address each: failures of one are limited.
            var from = IPAddress.Parse($"127.9.9.{++number}");
            OpenSocket open = (family, type, protocol) =>
            {
                var socket = new Socket(family, type, protocol);
                socket.Bind(new IPEndPoint(from, 0));
                return socket;
            };
            await using var client = await JoinClient.ConnectAsync(token, open, TimeProvider.System, Cancel);
            Assert.Equal("malformed", (await Assert.ThrowsAsync<JoinException>(() => client.BeginAsync(wrong, request, key, Cancel))).Code);
        }
        Assert.Equal(before, _tokyo.Checksum());
        Assert.Equal(TokenState.Unused, new TokenLedger(_tokyo.Description.JoinDirectory, TimeProvider.System).Tokens.Single().State);
        await OthersAreServedAsync();
    }
}
