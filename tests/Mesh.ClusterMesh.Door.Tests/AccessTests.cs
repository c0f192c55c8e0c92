using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mesh.ClusterMesh.Door.Access;
using Mesh.ClusterMesh.Door.Cache;
using Mesh.KVStore;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>Who gets in, who stays, and that the port opens only on proof.</summary>
public sealed class AccessTests : IAsyncLifetime
{
    private static readonly TimeSpan Life = TimeSpan.FromDays(1);
    private static readonly RangeRequest Heartbeat = new() { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") };
    private EtcdServer _etcd = null!;
    private DoorUnderTest _door = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        _etcd = await EtcdServer.StartAsync();
        _door = await DoorUnderTest.OpenAsync(_etcd);
    }

    public async ValueTask DisposeAsync()
    {
        await _door.DisposeAsync();
        await _etcd.DisposeAsync();
    }

    private async Task<StatusCode> ReadAsync(string user, CertificateAuthority? issuer = null)
    {
        try
        {
            await new KV.KVClient(_door.Channel(user, issuer)).RangeAsync(Heartbeat, deadline: DateTime.UtcNow.AddSeconds(10), cancellationToken: Cancellation);
            return StatusCode.OK;
        }
        catch (RpcException e)
        {
            return e.StatusCode;
        }
    }

    private async Task<AsyncDuplexStreamingCall<WatchRequest, WatchResponse>> WatchAsync(string user)
    {
        var call = new Watch.WatchClient(_door.Channel(user)).Watch(cancellationToken: Cancellation);
        await call.RequestStream.WriteAsync(new WatchRequest { CreateRequest = new WatchCreateRequest { Key = Heartbeat.Key } }, Cancellation);
        Assert.True(await call.ResponseStream.MoveNext(Cancellation));
        Assert.False(call.ResponseStream.Current.Canceled);
        return call;
    }

    /// <summary>How a stream ended; fails when it did not within 5 s.</summary>
    private static async Task<StatusCode> EndAsync(AsyncDuplexStreamingCall<WatchRequest, WatchResponse> call)
    {
        try
        {
            while (await call.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(TimeSpan.FromSeconds(5)))
                continue;
            return StatusCode.OK;
        }
        catch (RpcException e)
        {
            return e.StatusCode;
        }
    }

    [Theory]
    [InlineData(AuthenticationMode.Legacy, "remote", StatusCode.OK)]
    [InlineData(AuthenticationMode.Legacy, "remote-osprey", StatusCode.PermissionDenied)]
    [InlineData(AuthenticationMode.Migration, "remote", StatusCode.OK)]
    [InlineData(AuthenticationMode.Migration, "remote-osprey", StatusCode.OK)]
    [InlineData(AuthenticationMode.Migration, "remote-kestrel", StatusCode.PermissionDenied)]
    [InlineData(AuthenticationMode.Cluster, "remote", StatusCode.OK)]
    [InlineData(AuthenticationMode.Cluster, "remote-osprey", StatusCode.OK)]
    [InlineData(AuthenticationMode.Cluster, "local-falcon", StatusCode.OK)]
    [InlineData(AuthenticationMode.Cluster, "local-osprey", StatusCode.PermissionDenied)]
    [InlineData(AuthenticationMode.Cluster, "admin-falcon", StatusCode.OK)]
    [InlineData(AuthenticationMode.Cluster, "admin-osprey", StatusCode.PermissionDenied)]
    [InlineData(AuthenticationMode.Cluster, "root", StatusCode.PermissionDenied)]
    public async Task A_mode_knows_its_users(AuthenticationMode mode, string user, StatusCode expected)
    {
        await _door.ReopenAsync(options => options with { Mode = mode });
        Assert.Equal(expected, await ReadAsync(user));
    }

    [Fact]
    public async Task The_shared_remote_can_be_shut()
    {
        await _door.ReopenAsync(options => options with { Mode = AuthenticationMode.Cluster, RefuseSharedRemote = true });
        Assert.Equal(StatusCode.PermissionDenied, await ReadAsync("remote"));
        Assert.Equal(StatusCode.OK, await ReadAsync("remote-osprey"));
    }

    [Fact]
    public async Task A_user_taken_from_the_file_loses_its_streams_and_others_keep_theirs()
    {
        var gone = await WatchAsync("remote-osprey");
        var stays = await WatchAsync("remote");
        await File.WriteAllTextAsync(_door.UsersFile, "users: []\n", Cancellation);
        Assert.Equal(StatusCode.PermissionDenied, await EndAsync(gone));
        Assert.Equal(StatusCode.PermissionDenied, await ReadAsync("remote-osprey"));
        var next = stays.ResponseStream.MoveNext(Cancellation);
        await _etcd.EtcdctlAsync("put", "cilium/.heartbeat", "later");
        Assert.True(await next.WaitAsync(TimeSpan.FromSeconds(5), Cancellation));
        await File.WriteAllTextAsync(_door.UsersFile, "users:\n- name: remote-osprey\n  role: remote\n", Cancellation);
        await Wait.UntilAsync(() => ReadAsync("remote-osprey").GetAwaiter().GetResult() == StatusCode.OK, "the user to come back");
    }

    [Fact]
    public async Task A_user_added_a_moment_ago_is_let_in_at_the_first_call()
    {
        for (var i = 0; i < 8; i++)
        {
            await File.WriteAllTextAsync(_door.UsersFile, $"users:\n- name: remote-new{i}\n  role: remote\n", Cancellation);
            await new KV.KVClient(_door.Channel($"remote-new{i}")).RangeAsync(
                new RangeRequest { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") }, cancellationToken: Cancellation);
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("users: [")]
    [InlineData("user:\n- name: x\n")]
    [InlineData("users:\n- name: remote-osprey\n")]
    [InlineData("users:\n- name: remote-osprey\n  role: root\n")]
    [InlineData("users:\n- name: remote-osprey\n  role: remote\n- name: remote-osprey\n  role: local\n")]
    public async Task A_users_file_that_cannot_be_used_keeps_the_last_good_one_and_says_so(string content)
    {
        var stays = await WatchAsync("remote-osprey");
        await File.WriteAllTextAsync(_door.UsersFile, content, Cancellation);
        await Wait.UntilAsync(() => _door.Door.Status.Problems.Count > 0, "the alarm");
        Assert.Contains("users.yaml", _door.Door.Status.Problems[0], StringComparison.Ordinal);
        var next = stays.ResponseStream.MoveNext(Cancellation);
        await _etcd.EtcdctlAsync("put", "cilium/.heartbeat", "later");
        Assert.True(await next.WaitAsync(TimeSpan.FromSeconds(5), Cancellation));
        await File.WriteAllTextAsync(_door.UsersFile, "users:\n- name: remote-osprey\n  role: remote\n", Cancellation);
        await Wait.UntilAsync(() => _door.Door.Status.Problems.Count == 0, "the alarm to end");
    }

    [Fact]
    public async Task A_revoked_certificate_is_cut_and_stays_out_and_its_user_s_other_certificate_stays_in()
    {
        await File.WriteAllTextAsync(_door.FileOf("revoked"), "# none yet\n", Cancellation);
        await _door.ReopenAsync(options => options with { RevokedFile = _door.FileOf("revoked") });
        var revoked = await WatchAsync("remote");
        using var certificate = X509CertificateLoader.LoadCertificateFromFile(_door.As("remote").CertFile!);
        await File.WriteAllTextAsync(_door.FileOf("revoked"), certificate.GetCertHashString(HashAlgorithmName.SHA256) + " # lost laptop\n", Cancellation);
        Assert.NotEqual(StatusCode.OK, await EndAsync(revoked));
        Assert.NotEqual(StatusCode.OK, await ReadAsync("remote"));
        _door.Write("remote", _door.Authority.Issue("remote", [], [], Life));
        Assert.Equal(StatusCode.OK, await ReadAsync("remote"));
    }

    [Fact]
    public async Task An_authority_taken_from_the_bundle_takes_its_clients_along_and_a_staged_one_brings_them()
    {
        using var next = CertificateAuthority.Create("mesh 2", Life);
        Assert.NotEqual(StatusCode.OK, await ReadAsync("remote", next));
        // Staged: both are trusted.
        var old = await WatchAsync("remote");
        await File.WriteAllTextAsync(_door.CaFile, _door.Authority.CertificatePem + "\n" + next.CertificatePem, Cancellation);
        Assert.Equal(StatusCode.OK, await ReadAsync("remote", next));
        Assert.Equal(StatusCode.OK, await ReadAsync("remote"));
        await File.WriteAllTextAsync(_door.CaFile, next.CertificatePem, Cancellation);
        Assert.NotEqual(StatusCode.OK, await EndAsync(old));
    }

    [Theory]
    [InlineData(0.5)]
    [InlineData(0.99)]
    public async Task A_bundle_that_was_written_by_half_cuts_nobody_and_is_an_alarm(double half)
    {
        using var next = CertificateAuthority.Create("mesh 2", Life);
        var staged = next.CertificatePem + "\n" + _door.Authority.CertificatePem;
        await File.WriteAllTextAsync(_door.CaFile, staged, Cancellation);
        var stays = await WatchAsync("remote");
        var cut = staged[..(staged.Length - (int)(_door.Authority.CertificatePem.Length * (1 - half)) - 4)];
        await File.WriteAllTextAsync(_door.CaFile, cut, Cancellation);
        await Wait.UntilAsync(() => _door.Door.Status.Problems.Any(problem => problem.Contains("ca.crt", StringComparison.Ordinal)), "the alarm");
        var told = stays.ResponseStream.MoveNext(Cancellation);
        await _etcd.EtcdctlAsync("put", "cilium/.heartbeat", "later");
        Assert.True(await told.WaitAsync(TimeSpan.FromSeconds(5), Cancellation));
        await File.WriteAllTextAsync(_door.CaFile, staged, Cancellation);
        await Wait.UntilAsync(() => _door.Door.Status.Problems.Count == 0, "the alarm to end");
    }

    [Fact]
    public async Task A_user_taken_from_the_file_does_not_get_the_rest_of_a_list_either()
    {
        await using (var store = _etcd.NewStore())
        {
            for (var i = 0; i < 200; i += 20)
            {
                var keys = Enumerable.Range(i, 20);
                await store.WriteAsync([.. keys.Select(key => new WriteOperation($"cilium/state/{key}", new byte[50_000]))], Cancellation);
            }
        }
        await using var slow = await RawReader.ConnectAsync(
            "127.0.0.1", _door.Door.Address!.Port, DoorUnderTest.TlsTo(_door.As("remote-osprey")), 64 << 10, Cancellation);
        await slow.OpenAsync(1, "/etcdserverpb.KV/Range");
        var list = new RangeRequest { Key = ByteString.CopyFromUtf8("cilium/state/"), RangeEnd = ByteString.CopyFromUtf8("cilium/state0") };
        await slow.SendAsync(1, list.ToByteArray(), end: true);
        await Wait.UntilAsync(() => _door.Door.Status.Ranges > 0, "the list to be under way");
        await File.WriteAllTextAsync(_door.UsersFile, "users: []\n", Cancellation);
        await Wait.UntilAsync(() => _door.Log.Any(line => line.Contains("users.yaml changed", StringComparison.Ordinal)), "the file to be seen");
        await Wait.UntilAsync(() => ReadAsync("remote-osprey").GetAwaiter().GetResult() == StatusCode.PermissionDenied, "the user to be gone");
        var (whole, trailers) = (0, new System.Collections.Concurrent.ConcurrentQueue<string>());
        slow.OnMessage = (_, _) => Interlocked.Increment(ref whole);
        slow.OnFrame = (kind, _, payload) =>
        {
            if (kind == RawFrame.Headers)
                trailers.Enqueue(Encoding.Latin1.GetString(payload));
        };
        using var stop = new CancellationTokenSource();
        var reading = slow.ReadAsync(stop.Token);
        await Wait.UntilAsync(() => trailers.Any(text => text.Contains("grpc-status", StringComparison.Ordinal)), "the end of the answer");
        Assert.Contains(trailers, text => text.Contains("permission denied", StringComparison.Ordinal));
        Assert.Equal(0, Volatile.Read(ref whole));
        await stop.CancelAsync();
        await reading.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
    }

    [Fact]
    public async Task A_new_server_certificate_is_shown_at_the_next_handshake_and_a_broken_one_is_not()
    {
        var before = await ServerCertificateAsync();
        _door.Write("server", _door.Authority.Issue("clustermesh-apiserver.cilium.io", ["localhost"], [IPAddress.Loopback], Life));
        var after = await ServerCertificateAsync();
        Assert.NotEqual(before, after);
        await File.WriteAllTextAsync(_door.FileOf("server.key"), "not a key", Cancellation);
        Assert.Equal(after, await ServerCertificateAsync());
        Assert.Contains("server.crt", Assert.Single(_door.Door.Status.Problems), StringComparison.Ordinal);
        Assert.Equal(StatusCode.OK, await ReadAsync("remote"));
    }

    private async Task<string> ServerCertificateAsync()
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(_door.Door.Address!, Cancellation);
        await using var tls = new SslStream(socket.GetStream());
        var options = DoorUnderTest.TlsTo(_door.As("remote"));
        options.TargetHost = "localhost";
        await tls.AuthenticateAsClientAsync(options, Cancellation);
        return tls.RemoteCertificate!.GetCertHashString();
    }

    [Fact]
    public async Task Without_a_certificate_or_below_TLS_1_2_nobody_gets_an_answer()
    {
        Assert.False(await AnswersAsync(options => options.ClientCertificates = null));
#pragma warning disable CA5397, SYSLIB0039, CA5398 // Deprecated protocols are the point.
        Assert.False(await AnswersAsync(options => options.EnabledSslProtocols = SslProtocols.Tls11));
#pragma warning restore CA5397, SYSLIB0039
        Assert.True(await AnswersAsync(options => options.EnabledSslProtocols = SslProtocols.Tls12));
#pragma warning restore CA5398
        Assert.True(await AnswersAsync(_ => { }));
    }

    /// <summary>Whether GET /version is answered over a connection with these options.</summary>
    private async Task<bool> AnswersAsync(Action<SslClientAuthenticationOptions> change)
    {
        using var socket = new TcpClient();
        await socket.ConnectAsync(_door.Door.Address!, Cancellation);
        await using var tls = new SslStream(socket.GetStream());
        var options = DoorUnderTest.TlsTo(_door.As("remote"));
        options.TargetHost = "localhost";
        change(options);
        try
        {
            await tls.AuthenticateAsClientAsync(options, Cancellation);
            await tls.WriteAsync("GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"u8.ToArray(), Cancellation);
            using var text = new StreamReader(tls);
            return (await text.ReadToEndAsync(Cancellation)).StartsWith("HTTP/1.1 200", StringComparison.Ordinal);
        }
        catch (Exception e) when (e is IOException or AuthenticationException)
        {
            return false;
        }
    }

    [Fact]
    public async Task A_door_that_would_let_too_much_through_does_not_open()
    {
        var port = EtcdServer.FreePort();
        var everything = new Roles([new("remote", Grants.Everything), new("local", Roles.Cilium("falcon").Find("local")!), new("root", Grants.Everything)]);
        var shut = await Assert.ThrowsAsync<DoorShutException>(() =>
            _door.ReopenAsync(options => options with { Listen = new IPEndPoint(IPAddress.Loopback, port) }, everything));
        Assert.Contains("remote reading all keys was not refused", shut.Message, StringComparison.Ordinal);
        Assert.Null(_door.Door.Address);
        using var socket = new TcpClient();
        await Assert.ThrowsAsync<SocketException>(async () => await socket.ConnectAsync(IPAddress.Loopback, port, Cancellation));
        // The same door with the right roles opens there.
        await _door.ReopenAsync(options => options with { Listen = new IPEndPoint(IPAddress.Loopback, port) });
        Assert.Equal(StatusCode.OK, await ReadAsync("remote"));
    }

    [Fact]
    public async Task A_door_that_refuses_everybody_does_not_open_either()
    {
        var nothing = new Roles([new("remote", Grants.None), new("local", Grants.None), new("root", Grants.Everything)]);
        var shut = await Assert.ThrowsAsync<DoorShutException>(() => _door.ReopenAsync(roles: nothing));
        Assert.Contains("remote reading the heartbeat failed", shut.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Grants_hold_their_edges()
    {
        var remote = Roles.Cilium("falcon").Find("remote")!;
        KeyRange Of(string key, string end = "") => KeyRange.Of(Encoding.UTF8.GetBytes(key), Encoding.UTF8.GetBytes(end));
        Assert.True(remote.Allows(Of("cilium/state/identities/v1/id", "cilium/state/identities/v1/ie")));
        Assert.True(remote.Allows(Of("cilium/.heartbeat", "cilium/.heartbeau")));
        Assert.True(remote.Allows(Of("cilium/cluster-config/falcon")));
        Assert.True(remote.Allows(Of("cilium/synced/falcon/", "cilium/synced/falcon0")));
        Assert.False(remote.Allows(Of("cilium/cluster-config/falcon2")));
        Assert.False(remote.Allows(Of("cilium/cluster-config/falcon", "cilium/cluster-config/falcoo")));
        Assert.False(remote.Allows(Of("cilium/synced/falcon", "cilium/synced/falcoo")));
        Assert.False(remote.Allows(Of("cilium/state/", "\0")));
        Assert.False(remote.Allows(Of("cilium/state", "cilium/state0")));
        Assert.True(Grants.Of(Of("a", "c"), Of("c", "e")).Allows(Of("b", "d")));
        Assert.False(Grants.Of(Of("a", "c"), Of("d", "e")).Allows(Of("b", "e")));
    }
}
