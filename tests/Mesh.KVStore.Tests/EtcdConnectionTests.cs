using System.Diagnostics;
using System.Net;
using System.Text;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Who may connect, and what a human is told when it does not work.</summary>
public sealed class EtcdConnectionTests : IAsyncLifetime
{
    private EtcdServer _server = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => _server = await EtcdServer.StartAsync(tls: true);

    public ValueTask DisposeAsync() => _server.DisposeAsync();

    [Fact]
    public async Task A_client_certificate_of_the_right_authority_opens_the_store()
    {
        await using var store = _server.NewStore();
        await store.WriteAsync([Put("a", "1")], Cancellation);
        Assert.NotNull(await store.GetAsync("a", Cancellation));
        Assert.True(store.Status.Connected);
        Assert.Null(store.Status.Error);
        Assert.NotEqual(0UL, store.Status.ClusterId);
    }

    [Fact]
    public async Task A_server_of_another_authority_is_refused_with_its_name_and_the_file()
    {
        using var other = CertificateAuthority.Create("somebody else", TimeSpan.FromDays(1));
        var file = Path.Combine(_server.WorkDirectory, "other-ca.crt");
        await File.WriteAllTextAsync(file, other.CertificatePem, Cancellation);
        await FailsAsync(_server.Options with { TrustedCaFile = file }, _server.Endpoint, "does not verify", file);
    }

    [Fact]
    public async Task A_client_certificate_of_another_authority_fails_with_the_endpoint_and_the_servers_words()
    {
        using var other = CertificateAuthority.Create("somebody else", TimeSpan.FromDays(1));
        var issued = other.Issue("root", [], [], TimeSpan.FromDays(1));
        var path = Path.Combine(_server.WorkDirectory, "other");
        await File.WriteAllTextAsync(path + ".crt", issued.CertificatePem, Cancellation);
        await File.WriteAllTextAsync(path + ".key", issued.KeyPem, Cancellation);
        await FailsAsync(_server.Options with { CertFile = path + ".crt", KeyFile = path + ".key" },
            _server.Endpoint, "client certificate");
    }

    [Fact]
    public async Task A_missing_certificate_file_is_named() =>
        await FailsAsync(_server.Options with { CertFile = "/nonexistent/c.crt", KeyFile = "/nonexistent/c.key" },
            _server.Endpoint, "/nonexistent/c.crt");

    [Fact]
    public async Task A_name_that_the_server_certificate_does_not_list_is_refused()
    {
        await using var proxy = new TcpProxy(new Uri(_server.Endpoint).Port, IPAddress.Parse("127.0.0.2"));
        await FailsAsync(_server.Options with { Endpoints = [$"https://127.0.0.2:{proxy.Port}"] }, "127.0.0.2", "not made for");
    }

    [Fact]
    public async Task A_refused_connection_names_the_endpoint()
    {
        var dead = $"http://127.0.0.1:{EtcdServer.FreePort()}";
        await FailsAsync(new EtcdOptions { Endpoints = [dead] }, dead, "refused");
    }

    [Fact]
    public async Task A_renewed_client_certificate_is_used_without_a_restart()
    {
        var options = _server.OptionsFor("rotating");
        var good = await File.ReadAllTextAsync(options.CertFile!, Cancellation);
        File.Delete(options.CertFile!);
        await using var store = new EtcdKVStore(options with { RetryAttempts = 1 });
        await Assert.ThrowsAsync<KVStoreException>(() => store.GetAsync("a", Cancellation));
        await File.WriteAllTextAsync(options.CertFile!, good, Cancellation);
        Assert.Null(await store.GetAsync("a", Cancellation));
    }

    [Fact]
    public async Task A_dead_endpoint_first_in_the_list_costs_little()
    {
        for (var seed = 0; seed < 4; seed++)
        {
            var options = _server.Options with { Endpoints = [$"https://127.0.0.1:{EtcdServer.FreePort()}", _server.Endpoint] };
            await using var store = new EtcdKVStore(options, random: new Random(seed));
            var clock = Stopwatch.StartNew();
            await store.WriteAsync([Put("a", "1")], Cancellation);
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(3), $"{clock.Elapsed}");
            await using var reader = new Reader(store, "a");
            await reader.UntilAsync("a=1");
            Assert.Equal(_server.Endpoint, store.Status.Endpoint);
        }
    }

    [Fact]
    public async Task A_reader_without_rights_is_told_so_and_one_with_rights_reads()
    {
        foreach (var command in (string[][])
        [
            ["user", "add", "root", "--no-password"], ["user", "add", "remote", "--no-password"], ["role", "add", "remote"],
            ["role", "grant-permission", "remote", "--prefix=true", "read", "open/"], ["user", "grant-role", "remote", "remote"],
            ["user", "grant-role", "root", "root"], ["put", "open/a", "1"], ["auth", "enable"],
        ])
        {
            await _server.EtcdctlAsync(command);
        }
        await using var store = new EtcdKVStore(_server.OptionsFor("remote"));
        await using var reader = new Reader(store, "open/");
        await reader.UntilAsync("open/a=1");
        var write = await Assert.ThrowsAsync<KVStoreException>(() => store.WriteAsync([Put("open/a", "2")], Cancellation));
        Assert.True(write.PermissionDenied);
        await using var denied = new Reader(store, "closed/");
        var failure = await Assert.ThrowsAsync<KVStoreException>(() => denied.UntilAsync("never"));
        Assert.True(failure.PermissionDenied);
        Assert.Contains("closed/", failure.Message, StringComparison.Ordinal);
        // Rights that are taken away from a watch that stands: etcd tells it only when it opens again.
        await _server.EtcdctlAsync("role", "revoke-permission", "remote", "--prefix=true", "open/");
        await _server.RestartAsync();
        Assert.True((await Assert.ThrowsAsync<KVStoreException>(() => reader.UntilAsync("never"))).PermissionDenied);
    }

    [Fact]
    public async Task User_and_password_survive_a_restart_of_the_server()
    {
        foreach (var command in (string[][])
        [
            ["user", "add", "root:secret"], ["role", "add", "root"], ["user", "grant-role", "root", "root"], ["auth", "enable"],
        ])
        {
            await _server.EtcdctlAsync(command);
        }
        await using var store = new EtcdKVStore(_server.OptionsFor("nobody") with { Username = "root", Password = "secret" });
        await using var reader = new Reader(store, "a");
        await store.WriteAsync([Put("a", "1")], Cancellation);
        await reader.UntilAsync("a=1");
        await _server.RestartAsync();
        await store.WriteAsync([Put("a", "2")], Cancellation);
        await reader.UntilAsync("a=2");
        await using var wrong = new EtcdKVStore(_server.OptionsFor("nobody") with { Username = "root", Password = "guess" });
        var failure = await Assert.ThrowsAsync<KVStoreException>(() => wrong.GetAsync("a", Cancellation));
        Assert.True(failure.PermissionDenied);
        Assert.DoesNotContain("guess", failure.Message, StringComparison.Ordinal);
    }

    private static async Task FailsAsync(EtcdOptions options, params string[] named)
    {
        await using var store = new EtcdKVStore(options with { RetryAttempts = 2 });
        var failure = await Assert.ThrowsAsync<KVStoreException>(() => store.GetAsync("a", Cancellation));
        Assert.All(named, n => Assert.Contains(n, failure.Message, StringComparison.OrdinalIgnoreCase));
        Assert.False(store.Status.Connected);
        Assert.All(named, n => Assert.Contains(n, store.Status.Error, StringComparison.OrdinalIgnoreCase));
    }

    private static WriteOperation Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));
}
