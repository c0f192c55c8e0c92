using System.Diagnostics;
using System.Threading.Channels;
using Mesh.ClusterMesh.Config;
using Xunit;

namespace Mesh.ClusterMesh.Tests.Config;

public sealed class ConfigDirectoryTests : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private const string Peer = "endpoints:\n- https://10.0.0.1:2379\n";

    private readonly string _path = Directory.CreateTempSubdirectory("mesh-config-").FullName;
    private readonly CancellationTokenSource _stop = new();
    private readonly Channel<string> _seen = Channel.CreateUnbounded<string>();
    private ConfigDirectory? _directory;
    private Task? _watching;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        if (_watching is not null)
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => _watching);
        _stop.Dispose();
        if (Directory.Exists(_path))
            Directory.Delete(_path, recursive: true);
    }

    private void Watch()
    {
        var directory = _directory = new ConfigDirectory(_path, "local", TimeProvider.System);
        _watching = Task.Run(async () =>
        {
            await foreach (var change in directory.WatchAsync(_stop.Token))
            {
                var what = change.Config?.Text.Trim().Replace('\n', ' ') ?? change.Problem;
                await _seen.Writer.WriteAsync($"{change.Kind} {change.Name} {what}".Trim());
            }
        });
    }

    private async Task UntilAsync(Func<string?, bool> problem)
    {
        using var deadline = new CancellationTokenSource(Patience);
        while (!problem(_directory!.Problem))
            await Task.Delay(10, deadline.Token);
    }

    private void Write(string name, string text) => File.WriteAllText(Path.Combine(_path, name), text);

    private async Task SeeAsync(string expected)
    {
        using var deadline = new CancellationTokenSource(Patience);
        Assert.Equal(expected, await _seen.Reader.ReadAsync(deadline.Token));
    }

    [Fact]
    public async Task Peers_come_change_and_go()
    {
        Write("osaka", Peer);
        Watch();
        await SeeAsync("Set osaka endpoints: - https://10.0.0.1:2379");
        Write("tokyo", "endpoints: [a]");
        await SeeAsync("Set tokyo endpoints: [a]");
        Write("tokyo", "endpoints: [b]");
        await SeeAsync("Set tokyo endpoints: [b]");
        File.Delete(Path.Combine(_path, "osaka"));
        await SeeAsync("Removed osaka");
    }

    [Fact]
    public async Task A_file_named_like_the_local_cluster_is_ignored()
    {
        Write("local", Peer);
        Write("zurich", Peer);
        Watch();
        await SeeAsync("Set zurich endpoints: - https://10.0.0.1:2379");
    }

    [Fact]
    public async Task Certificates_and_a_rewrite_of_the_same_text_are_no_change()
    {
        Write("osaka", Peer);
        Watch();
        await SeeAsync("Set osaka endpoints: - https://10.0.0.1:2379");
        Write("common-etcd-client.crt", "-----BEGIN CERTIFICATE-----");
        Write("osaka", Peer);
        Write("zurich", "endpoints: [z]");
        await SeeAsync("Set zurich endpoints: [z]");
    }

    [Fact]
    public async Task A_file_emptied_while_it_is_rewritten_is_no_removal()
    {
        Write("osaka", Peer);
        Watch();
        await SeeAsync("Set osaka endpoints: - https://10.0.0.1:2379");
        Write("osaka", "");
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Write("osaka", Peer);
        Write("zurich", "endpoints: [z]");
        await SeeAsync("Set zurich endpoints: [z]");
    }

    [Fact]
    public async Task A_file_that_is_spoilt_keeps_the_peer_and_says_so_until_it_is_mended_or_removed()
    {
        Write("osaka", Peer);
        Watch();
        await SeeAsync("Set osaka endpoints: - https://10.0.0.1:2379");
        Write("osaka", "]]{");
        await UntilAsync(problem => problem?.Contains("osaka cannot be read or names no endpoints", StringComparison.Ordinal) == true);
        // Longer than a missing file would have to be missing.
        await Task.Delay(TimeSpan.FromSeconds(1), TestContext.Current.CancellationToken);
        Write("zurich", "endpoints: [z]");
        await SeeAsync("Set zurich endpoints: [z]");
        Write("osaka", Peer);
        await UntilAsync(problem => problem is null);
        Write("osaka", "");
        File.Delete(Path.Combine(_path, "osaka"));
        await SeeAsync("Removed osaka");
    }

    [Fact]
    public async Task An_impossible_cluster_name_is_reported()
    {
        Write("Osaka_1", Peer);
        Watch();
        using var deadline = new CancellationTokenSource(Patience);
        Assert.Contains("may hold only a-z", await _seen.Reader.ReadAsync(deadline.Token));
        File.Delete(Path.Combine(_path, "Osaka_1"));
        await SeeAsync("Removed Osaka_1");
    }

    [Fact]
    public async Task A_mounted_ConfigMap_swaps_all_files_at_once()
    {
        Mount("v1", ("osaka", "endpoints: [1]"));
        Directory.CreateSymbolicLink(Path.Combine(_path, "..data"), "v1");
        File.CreateSymbolicLink(Path.Combine(_path, "osaka"), "..data/osaka");
        Watch();
        await SeeAsync("Set osaka endpoints: [1]");
        Mount("v2", ("osaka", "endpoints: [2]"));
        Directory.CreateSymbolicLink(Path.Combine(_path, "..data_tmp"), "v2");
        // rename(2), which .NET does not offer for a link to a directory.
        using (var move = Process.Start("mv", ["-T", Path.Combine(_path, "..data_tmp"), Path.Combine(_path, "..data")]))
            await move.WaitForExitAsync(TestContext.Current.CancellationToken);
        await SeeAsync("Set osaka endpoints: [2]");
    }

    private void Mount(string version, params (string Name, string Text)[] files)
    {
        Directory.CreateDirectory(Path.Combine(_path, version));
        foreach (var (name, text) in files)
            Write($"{version}/{name}", text);
    }

    [Fact]
    public async Task A_directory_that_appears_later_is_found()
    {
        Directory.Delete(_path);
        Watch();
        await Task.Delay(50, TestContext.Current.CancellationToken);
        Directory.CreateDirectory(_path);
        Write("osaka", Peer);
        await SeeAsync("Set osaka endpoints: - https://10.0.0.1:2379");
    }
}
