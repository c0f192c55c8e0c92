using System.Net;
using Mesh.Pki;
using Mesh.TestKit;
using Xunit;

namespace Mesh.KVStore.Tests;

/// <summary>Certificates of a client change under it: what it shows and trusts at the next handshake, and what an accident costs.</summary>
public sealed class EtcdCertificateTests : IAsyncLifetime
{
    private static readonly TimeSpan Life = TimeSpan.FromDays(1);
    private EtcdServer _server = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync() => _server = await EtcdServer.StartAsync(tls: true);

    public ValueTask DisposeAsync() => _server.DisposeAsync();

    /// <summary>A client of its own files, whose status looks at them at once.</summary>
    private EtcdOptions OwnFiles()
    {
        var issued = _server.OptionsFor("reader");
        var ca = Path.Combine(_server.WorkDirectory, "reader-ca.crt");
        File.Copy(issued.TrustedCaFile!, ca, overwrite: true);
        return issued with { TrustedCaFile = ca, CertificateCheckInterval = TimeSpan.Zero };
    }

    public static TheoryData<string> Accidents => ["key", "another key", "no certificate", "no authority", "authority", "half an authority", "expired"];

    private static string Break(EtcdOptions options, string accident)
    {
        switch (accident)
        {
            case "key":
                File.WriteAllText(options.KeyFile!, "not a key");
                return options.KeyFile!;
            case "another key":
                File.WriteAllText(options.KeyFile!, CertificateRequests.Create("x").KeyPem);
                return options.KeyFile!;
            case "no certificate":
                File.Delete(options.CertFile!);
                return options.CertFile!;
            case "no authority":
                File.WriteAllText(options.TrustedCaFile!, "");
                return options.TrustedCaFile!;
            case "authority":
                File.WriteAllText(options.TrustedCaFile!, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
                return options.TrustedCaFile!;
            case "half an authority":
                using (var other = CertificateAuthority.Create("other", Life))
                    File.WriteAllText(options.TrustedCaFile!, other.CertificatePem + "\n" + File.ReadAllText(options.TrustedCaFile!)[..^40]);
                return options.TrustedCaFile!;
            default:
                using (var authority = CertificateAuthority.Create("yesterday", Life, new Yesterday()))
                {
                    var expired = authority.Issue("reader", CertificateNames.None, CertificateUse.Client, TimeSpan.FromHours(1));
                    File.WriteAllText(options.CertFile!, expired.CertificatePem);
                    File.WriteAllText(options.KeyFile!, expired.KeyPem);
                }
                return options.CertFile!;
        }
    }

    [Theory]
    [MemberData(nameof(Accidents))]
    public async Task A_broken_new_file_leaves_the_last_good_one_in_use_and_is_an_alarm_until_it_is_mended(string accident)
    {
        var options = OwnFiles();
        var good = Array.ConvertAll([options.CertFile!, options.KeyFile!, options.TrustedCaFile!], file => (file, File.ReadAllText(file)));
        await using var store = new EtcdKVStore(options);
        await using var reader = new Reader(store, "a");
        await _server.EtcdctlAsync("put", "a", "1");
        await reader.UntilAsync("a=1");
        Assert.Null(store.Status.Tls!.Problem);

        var file = Break(options, accident);

        // Noticed while the connection stands, and in force at the next handshakes.
        Assert.Contains(file, store.Status.Tls!.Problem, StringComparison.Ordinal);
        await _server.RestartAsync();
        await _server.EtcdctlAsync("put", "a", "2");
        await reader.UntilAsync("a=2");
        Assert.Equal("reader", store.Status.Tls!.ClientName);
        Assert.True(store.Status.Connected);
        Assert.Contains("last good", store.Status.Tls!.Problem, StringComparison.Ordinal);

        foreach (var (name, content) in good)
            await File.WriteAllTextAsync(name, content, Cancellation);
        Assert.Null(store.Status.Tls!.Problem);
    }

    [Theory]
    [MemberData(nameof(Accidents))]
    public async Task With_no_last_good_one_the_same_file_is_the_end(string accident)
    {
        var options = OwnFiles();
        var file = Break(options, accident);
        await using var store = new EtcdKVStore(options with { RetryAttempts = 1 });
        var failure = await Assert.ThrowsAsync<KVStoreException>(() => store.GetAsync("a", Cancellation));
        Assert.Contains(file, failure.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_status_tells_the_ends_of_all_three_certificates()
    {
        var options = OwnFiles();
        await using var store = new EtcdKVStore(options);
        await store.GetAsync("a", Cancellation);
        var tls = store.Status.Tls!;
        Assert.Equal("reader", tls.ClientName);
        Assert.Equal("CN=server", tls.ServerName);
        Assert.All([tls.ClientNotAfter, tls.ServerNotAfter, tls.AuthorityNotAfter],
            end => Assert.InRange(end!.Value, DateTimeOffset.UtcNow.AddHours(23), DateTimeOffset.UtcNow.AddHours(25)));
        await using var plain = new EtcdKVStore(new EtcdOptions { Endpoints = ["http://127.0.0.1:1"] });
        Assert.Null(plain.Status.Tls);
    }

    [Fact]
    public async Task The_authorities_between_go_out_with_the_certificate_on_both_sides()
    {
        using var root = CertificateAuthority.Create("root", Life);
        using var between = Below(root);
        var server = between.Issue("server", new CertificateNames(["localhost"], [IPAddress.Loopback]), CertificateUse.ServerAndClient, Life);
        var client = between.Issue("reader", CertificateNames.None, CertificateUse.Client, Life);
        await Write("server", server.CertificatePem, server.KeyPem);
        await File.WriteAllTextAsync(_server.CaFile, root.CertificatePem, Cancellation);
        await Write("reader", client.CertificatePem, client.KeyPem);
        await Write("root", client.CertificatePem, client.KeyPem);
        await _server.RestartAsync();

        await using var store = new EtcdKVStore(_server.OptionsFor("reader"));
        Assert.Null(await store.GetAsync("a", Cancellation));

        // The same leaf alone, as it went out before: the server does not know who issued its issuer.
        await Write("reader", client.CertificatePem[..(client.CertificatePem.IndexOf("-----END", StringComparison.Ordinal) + 26)], client.KeyPem);
        await using var alone = new EtcdKVStore(_server.OptionsFor("reader") with { RetryAttempts = 1 });
        await Assert.ThrowsAsync<KVStoreException>(() => alone.GetAsync("a", Cancellation));
    }

    private static CertificateAuthority Below(CertificateAuthority root)
    {
        var (csr, key) = CertificateRequests.Create("between");
        return CertificateAuthority.Load(root.IssueAuthority(csr, "between", Life), key);
    }

    private async Task Write(string name, string certificate, string key)
    {
        await File.WriteAllTextAsync(Path.Combine(_server.WorkDirectory, name + ".crt"), certificate, Cancellation);
        await File.WriteAllTextAsync(Path.Combine(_server.WorkDirectory, name + ".key"), key, Cancellation);
    }

    private sealed class Yesterday : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => DateTimeOffset.UtcNow.AddDays(-1).AddHours(-2);
    }
}
