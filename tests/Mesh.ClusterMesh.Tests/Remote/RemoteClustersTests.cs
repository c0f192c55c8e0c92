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
}
