using Mesh.ClusterMesh.Config;
using Mesh.ClusterMesh.Remote;
using Mesh.KVStore;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Remote;

/// <summary>Files in → peers connected, changed and drained.</summary>
public sealed class RemoteClustersTests : IAsyncDisposable
{
    private readonly string _path = Directory.CreateTempSubdirectory("mesh-peers-").FullName;
    private readonly InMemoryKVStore _falconStore = new();
    private readonly InMemoryKVStore _ospreyStore = new();
    private readonly RecordingSink _sink = new();
    private readonly CancellationTokenSource _stop = new();
    private readonly RemoteClusters _clusters;
    private readonly Task _run;
    private readonly Producer _falcon;
    private readonly Producer _osprey;

    public RemoteClustersTests()
    {
        _falcon = new Producer(_falconStore, "falcon", 7);
        _osprey = new Producer(_ospreyStore, "osprey", 8);
        _clusters = new RemoteClusters(
            Following.Options, new ConfigDirectory(_path, "local", TimeProvider.System), Open, _sink, TimeProvider.System, Random.Shared);
        _run = _clusters.RunAsync(_stop.Token);
    }

    private Borrowed Open(PeerConfig config) => config.Text switch
    {
        "endpoints: falcon" => new Borrowed(_falconStore),
        "endpoints: osprey" => new Borrowed(_ospreyStore),
        _ => throw new FormatException($"{config.Path}: no such endpoint"),
    };

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _run;
        _stop.Dispose();
        Directory.Delete(_path, recursive: true);
    }

    private void Write(string name, string text) => File.WriteAllText(Path.Combine(_path, name), text);

    [Fact]
    public async Task A_file_connects_its_peer_and_its_removal_drains_it()
    {
        await _falcon.EverythingAsync();
        await _osprey.EverythingAsync();
        Write("falcon", "endpoints: falcon");
        Write("osprey", "endpoints: osprey");
        await _sink.UntilReadyAsync("falcon");
        await _sink.UntilReadyAsync("osprey");
        Assert.Equal(["falcon", "osprey"], _clusters.Statuses.Select(status => status.Name));
        File.Delete(Path.Combine(_path, "falcon"));
        await _sink.UntilAsync(sink => sink.Drains.Contains(("falcon", 7)), "falcon is drained");
        Assert.Equal(_osprey.Records, _sink.Text);
        Assert.Equal(["osprey"], _clusters.Statuses.Select(status => status.Name));
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
    }

    [Fact]
    public async Task A_changed_file_connects_anew_without_forgetting()
    {
        await _falcon.EverythingAsync();
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
        Write("falcon", "endpoints: nowhere");
        await _sink.UntilStatusAsync("falcon", "no such endpoint");
        Assert.Equal(_falcon.Records, _sink.Text);
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
        Assert.Empty(_sink.Drains);
        Assert.Equal(0, _sink.Deletions);
    }

    [Fact]
    public async Task An_impossible_name_is_shown_and_never_connected()
    {
        Write("Falcon", "endpoints: falcon");
        await _sink.UntilStatusAsync("Falcon", "may hold only a-z");
        Assert.Contains("rename the file", Assert.Single(_clusters.Statuses).Status);
        File.Delete(Path.Combine(_path, "Falcon"));
        await _sink.UntilAsync(sink => !sink.Statuses.ContainsKey("Falcon"), "the status is gone");
        Assert.Empty(_clusters.Statuses);
    }

    [Fact]
    public async Task An_import_file_is_taken_over_live_and_a_malformed_one_changes_nothing_but_the_status()
    {
        await _falcon.EverythingAsync();
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
        Write("falcon.imports.json", """{"podCIDRs":["10.9.0.0/16"]}""");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 0 && sink.Services.Count == 0, "what is outside the pins is gone at once");
        Assert.Equal(2, Assert.Single(_clusters.Clusters).Quarantined.Count);

        Write("falcon.imports.json", """{"podCIDR":["10.7.0.0/16"]}""");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].ImportsProblem?.Contains("'podCIDR' is unknown") == true, "the problem");
        Assert.Contains("the last good one is in force", _clusters.Statuses[0].ImportsProblem);
        await _sink.UntilReadyAsync("falcon");
        await _sink.UntilStatusAsync("falcon", "'podCIDR' is unknown");
        Assert.Equal(0, _sink.Read(sink => sink.IpEntries.Count));

        Write("falcon.imports.json", """{"podCIDRs":["10.7.0.0/16"],"nodeCIDRs":["192.0.2.0/24"]}""");
        await _sink.UntilAsync(sink => sink.Text == _falcon.Records && sink.Statuses["falcon"].ImportsProblem is null, "everything under the new pins");
        Assert.Empty(_sink.Drains);
    }

    [Fact]
    public async Task A_peer_that_loses_its_import_file_stays_pinned_and_is_named_until_somebody_writes_what_he_means()
    {
        await _falcon.EverythingAsync();
        Write("falcon.imports.json", """{"podCIDRs":["10.7.0.0/16"],"nodeCIDRs":["192.0.2.0/24"]}""");
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
        File.Delete(Path.Combine(_path, "falcon.imports.json"));
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].ImportsProblem?.Contains("is gone, falcon is not pinned by any file") == true, "the alarm");
        await _sink.UntilReadyAsync("falcon");
        await _falcon.IpAsync("10.9.0.1");
        await _falcon.IpAsync("10.7.0.10");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 2, "what the lost file allowed");
        Assert.DoesNotContain("10.9.0.1", _sink.Text);
        Assert.True(_clusters.Statuses[0].Pinned);
        Assert.Equal(PeerFault.None, _clusters.Statuses[0].Health!.Fault);

        // The control: a file without the ranges lifts them.
        Write("falcon.imports.json", """{"nodeCIDRs":["192.0.2.0/24"]}""");
        await _sink.UntilAsync(sink => sink.IpEntries.Count == 3 && sink.Statuses["falcon"].ImportsProblem is null, "no limits any more");
        Assert.Empty(_sink.Drains);
    }

    [Fact]
    public async Task A_peer_whose_import_file_was_never_good_is_not_connected_until_it_is()
    {
        await _falcon.EverythingAsync();
        Write("falcon.imports.json", "{");
        Write("falcon", "endpoints: falcon");
        await _sink.UntilStatusAsync("falcon", "falcon.imports.json: it is not JSON");
        Assert.Contains("the peer is not connected until it is mended", Assert.Single(_clusters.Statuses).Status);
        Assert.Equal("", _sink.Text);
        Write("falcon.imports.json", "{}");
        await _sink.UntilAsync(sink => sink.Statuses["falcon"].ImportsProblem is null && sink.Statuses["falcon"].ConfigRetrieved, "connected");
    }

    [Fact]
    public async Task Nobody_may_claim_what_is_pinned_to_another()
    {
        await _falcon.EverythingAsync();
        await _osprey.EverythingAsync();
        await _osprey.IpAsync("10.7.0.66");
        Write("falcon.imports.json", """{"podCIDRs":["10.7.0.0/16"]}""");
        Write("falcon", "endpoints: falcon");
        await _sink.UntilReadyAsync("falcon");
        Write("osprey", "endpoints: osprey");
        await _sink.UntilReadyAsync("osprey");
        Assert.DoesNotContain("10.7.0.66", _sink.Text);
        Assert.Contains("is in a range pinned to cluster falcon", _clusters.Clusters[1].Quarantined.Single().Text);
    }
}
