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
        Assert.Single(tokyo.Log, line => line.Contains("remote-tokyo expires within a day", StringComparison.Ordinal));

        await File.WriteAllTextAsync(options.KeyFile!, "not a key", TestContext.Current.CancellationToken);
        await tokyo.UntilAsync(() => tokyo.Status("falcon").Tls?.Problem is not null, "the alarm", 30);
        Assert.True(tokyo.Status("falcon").Ready);
        Assert.Contains(tokyo.Log, line => line.Contains(options.KeyFile!, StringComparison.Ordinal));
    }
}
