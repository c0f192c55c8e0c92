using Mesh.ClusterMesh.ApiServer.Commands;
using Mesh.ClusterMesh.ApiServer.Relaying;
using Mesh.ClusterMesh.Tests.Remote;
using Mesh.KVStore;
using Mesh.TestKit;
using Xunit;

namespace Mesh.ClusterMesh.Relay.Tests;

/// <summary>Where agents read through the relay, it is the relay that holds the certificates towards the peers, and tells of them.</summary>
public sealed class CertificateTests
{
    [Fact]
    public async Task The_relay_tells_what_ends_soon_and_which_file_is_broken()
    {
        await using var etcd = await EtcdServer.StartAsync(tls: true);
        await using var store = new EtcdKVStore(etcd.Options);
        await new Producer(store, "falcon", 7).EverythingAsync();
        await using var tokyo = await RelayUnderTest.StartedAsync();
        var options = etcd.OptionsFor("remote-tokyo");
        tokyo.Add("falcon", options);
        await tokyo.UntilReadyAsync("falcon");

        var status = tokyo.Status("falcon");
        Assert.Equal("remote-tokyo", status.Tls!.ClientName);
        Assert.NotNull(status.Tls.ServerNotAfter);
        Assert.Contains("remote-tokyo expires within a day", status.CertificateExpiry, StringComparison.Ordinal);
        Assert.Single(tokyo.Log, line => line.EndsWith(status.CertificateExpiry!, StringComparison.Ordinal));

        await File.WriteAllTextAsync(options.KeyFile!, "not a key", TestContext.Current.CancellationToken);
        await tokyo.UntilAsync(() => tokyo.Status("falcon").Tls?.Problem is not null, "the alarm", 30);
        Assert.True(tokyo.Status("falcon").Ready);
        Assert.Contains(tokyo.Log, line => line.Contains(options.KeyFile!, StringComparison.Ordinal));

        // Where operators look: the page, and the tool, though the cluster is ready.
        var row = RelayBody.Of(tokyo.Status("falcon"));
        Assert.Contains(row.Problems!, problem => problem.Contains(options.KeyFile!, StringComparison.Ordinal));
        Assert.Contains($"└  ⚠️  {tokyo.Status("falcon").Tls!.Problem}\n",
            KvstoremeshDbgCommand.Text([row], verbose: false, DateTimeOffset.UtcNow), StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_relay_tells_of_an_import_file_that_is_not_in_force_until_it_is()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var store = new EtcdKVStore(etcd.Options);
        await new Producer(store, "falcon", 7).EverythingAsync();
        await using var tokyo = await RelayUnderTest.StartedAsync();
        tokyo.Limit("falcon", "{}");
        tokyo.Add("falcon", etcd.Options);
        await tokyo.UntilReadyAsync("falcon");
        Assert.Null(RelayBody.Of(tokyo.Status("falcon")).Problems);
        tokyo.Limit("falcon", "{");
        await tokyo.UntilAsync(() => RelayBody.Of(tokyo.Status("falcon")).Problems is [var only] && only.Contains("is not JSON"), "the alarm");
        File.Delete(Path.Combine(tokyo.Peers, "falcon.imports.json"));
        await tokyo.UntilAsync(() => RelayBody.Of(tokyo.Status("falcon")).Problems is [var only] && only.Contains("is gone"), "the other alarm");
        tokyo.Limit("falcon", "{}");
        await tokyo.UntilAsync(() => tokyo.Status("falcon") is { Ready: true, ImportsProblem: null }, "quiet again");
        Assert.Null(RelayBody.Of(tokyo.Status("falcon")).Problems);
    }
}
