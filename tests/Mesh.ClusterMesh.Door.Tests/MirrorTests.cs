using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Etcdserverpb;
using Google.Protobuf;
using Grpc.Core;
using Mesh.TestKit;
using Microsoft.Extensions.Time.Testing;
using Xunit;

namespace Mesh.ClusterMesh.Door.Tests;

/// <summary>The cache view: who sees it, what a commit is, and what a restart keeps.</summary>
public sealed partial class MirrorTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mesh-mirror-").FullName;
    private readonly List<string> _log = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private string JournalFile => Path.Combine(_directory, "relay-cache.journal");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private MirrorView Open(int history = 16_384) => MirrorView.Open(
        new MirrorOptions { StateDir = _directory, HistoryRevisions = history }, TimeProvider.System, _log.Add);

    private static MirrorChange Put(string key, string value) => new(key, Encoding.UTF8.GetBytes(value));

    private static Task<MirrorCommit> CommitAsync(MirrorView mirror, params MirrorChange[] changes) =>
        mirror.CommitAsync(changes, Cancellation).AsTask();

    private static string Content(MirrorView mirror) =>
        string.Join(' ', mirror.KeysBelow("").Select(key => $"{key}={Encoding.UTF8.GetString(mirror.Get(key)!.Value.Span)}"));

    [Fact]
    public async Task A_commit_is_one_revision_of_real_differences()
    {
        await using var mirror = Open();
        var first = await CommitAsync(mirror, Put("a", "1"), Put("b", "2"), Put("a", "3"));
        Assert.Equal(new MirrorCommit(2, 2, 2, 4), first);
        Assert.Equal(new MirrorCommit(2, 0, 0, 0), await CommitAsync(mirror, Put("a", "3"), new MirrorChange("c", null)));
        Assert.Equal(new MirrorCommit(3, 2, -1, 1), await CommitAsync(mirror, Put("a", "1234"), new MirrorChange("b", null)));
        Assert.Equal("a=1234", Content(mirror));
        Assert.Equal((1, 5L), (mirror.Status.Keys, mirror.Status.Bytes));
    }

    [Fact]
    public async Task Each_role_finds_its_own_view_behind_one_port()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using (var store = etcd.NewStore())
            await store.WriteAsync([new("cilium/state/nodes/v1/falcon/n1", new byte[] { 1 }), new("cilium/.heartbeat", new byte[] { 1 })], Cancellation);
        await using var mirror = Open();
        await CommitAsync(mirror, Put("cilium/cache/nodes/v1/osprey/n9", "9"), Put("cilium/.heartbeat", "now"));
        await using var door = await DoorUnderTest.OpenAsync(mirror, etcd);
        Assert.Equal("cilium/.heartbeat cilium/state/nodes/v1/falcon/n1", await KeysAsync(door, "admin-falcon", "cilium/"));
        Assert.Equal("cilium/state/nodes/v1/falcon/n1", await KeysAsync(door, "remote", "cilium/state/"));
        Assert.Equal("cilium/cache/nodes/v1/osprey/n9", await KeysAsync(door, "local-falcon", "cilium/cache/"));
        Assert.Equal("PermissionDenied", await KeysAsync(door, "local-falcon", "cilium/state/"));
        Assert.Equal("PermissionDenied", await KeysAsync(door, "remote", "cilium/cache/"));
        Assert.Equal(mirror.Status.ClusterId, (await HeaderAsync(door, "local-falcon")).ClusterId);
        Assert.NotEqual(mirror.Status.ClusterId, (await HeaderAsync(door, "remote")).ClusterId);
        Assert.Equal(mirror.Status, door.Door.Status.Cache);
    }

    [Fact]
    public async Task A_door_with_a_cache_alone_has_nothing_for_other_clusters()
    {
        await using var mirror = Open();
        await using var door = await DoorUnderTest.OpenAsync(mirror);
        Assert.Equal("PermissionDenied", await KeysAsync(door, "remote", "cilium/.heartbeat"));
        Assert.Equal("", await KeysAsync(door, "local-falcon", "cilium/.heartbeat"));
        Assert.Equal("", await KeysAsync(door, "admin-falcon", "cilium/"));
        var status = await new Maintenance.MaintenanceClient(door.Channel("admin-falcon")).StatusAsync(new StatusRequest(), cancellationToken: Cancellation);
        Assert.Equal(mirror.Status.ClusterId, status.Header.ClusterId);
    }

    [Fact]
    public async Task A_reader_that_changes_its_role_leaves_its_view()
    {
        await using var etcd = await EtcdServer.StartAsync();
        await using var mirror = Open();
        await using var door = await DoorUnderTest.OpenAsync(mirror, etcd);
        using var watch = new Watch.WatchClient(door.Channel("remote-osprey")).Watch(cancellationToken: Cancellation);
        await watch.RequestStream.WriteAsync(new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") },
        }, Cancellation);
        Assert.True(await watch.ResponseStream.MoveNext(Cancellation));
        await File.WriteAllTextAsync(door.UsersFile, "users:\n- name: remote-osprey\n  role: local\n", Cancellation);
        Assert.True(await watch.ResponseStream.MoveNext(Cancellation));
        Assert.True(watch.ResponseStream.Current.Canceled);
        Assert.Equal(mirror.Status.ClusterId, (await HeaderAsync(door, "remote-osprey")).ClusterId);
    }

    [Fact]
    public async Task Every_answer_says_that_it_is_a_doors()
    {
        await using var mirror = Open();
        await using var door = await DoorUnderTest.OpenAsync(mirror);
        var channel = door.Channel("local-falcon");
        using var allowed = new KV.KVClient(channel).RangeAsync(
            new RangeRequest { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") }, cancellationToken: Cancellation);
        Assert.Equal("1", (await allowed.ResponseHeadersAsync).GetValue("mesh-door"));
        await allowed;
        using var refused = new KV.KVClient(channel).PutAsync(new PutRequest { Key = ByteString.CopyFromUtf8("a") }, cancellationToken: Cancellation);
        Assert.Equal("1", (await refused.ResponseHeadersAsync).GetValue("mesh-door"));
        await Assert.ThrowsAsync<RpcException>(async () => await refused);
        using var watch = new Watch.WatchClient(channel).Watch(cancellationToken: Cancellation);
        await watch.RequestStream.WriteAsync(new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") },
        }, Cancellation);
        Assert.Equal("1", (await watch.ResponseHeadersAsync).GetValue("mesh-door"));
    }

    [Fact]
    public async Task A_killed_process_goes_on_where_its_readers_are()
    {
        var killed = Open();
        await CommitAsync(killed, Put("a", "1"), Put("cilium/synced/x/y", ""));
        await CommitAsync(killed, Put("b", "2"));
        await CommitAsync(killed, new MirrorChange("a", null));
        var before = killed.Status;
        // What a kill leaves: the file as it is, and half of a record that nobody was served.
        var bytes = await ReadAsync(JournalFile);
        await killed.DisposeAsync();
        await File.WriteAllBytesAsync(JournalFile, [.. bytes, 200, 0, 0, 0, 1, 2, 3], Cancellation);
        await using var mirror = Open();
        Assert.Equal("b=2 cilium/synced/x/y=", Content(mirror));
        Assert.Equal((before.ClusterId, before.Revision, 1L), (mirror.Status.ClusterId, mirror.Status.Revision, mirror.Status.OldestRevision));
        await using var door = await DoorUnderTest.OpenAsync(mirror);
        using var watch = new Watch.WatchClient(door.Channel("admin-falcon")).Watch(cancellationToken: Cancellation);
        await watch.RequestStream.WriteAsync(new WatchRequest
        {
            CreateRequest = new WatchCreateRequest { Key = ByteString.CopyFrom(0), RangeEnd = ByteString.CopyFrom(0), StartRevision = 3 },
        }, Cancellation);
        await CommitAsync(mirror, Put("c", "3"));
        var events = new List<string>();
        while (events.Count < 3 && await watch.ResponseStream.MoveNext(Cancellation))
            events.AddRange(watch.ResponseStream.Current.Events.Select(e => $"{e.Type} {e.Kv.Key.ToStringUtf8()}@{e.Kv.ModRevision}"));
        Assert.Equal(["Put b@3", "Delete a@4", "Put c@5"], events);
    }

    [Theory]
    [InlineData("another boot")]
    [InlineData("a flipped bit")]
    public async Task Where_continuity_cannot_be_proved_readers_list_again_and_canaries_wait(string what)
    {
        ulong before;
        await using (var first = Open())
        {
            await CommitAsync(first, Put("a", "1"), Put("cilium/synced/x/y", ""));
            await CommitAsync(first, Put("b", "2"));
            before = first.Status.ClusterId;
        }
        var bytes = await ReadAsync(JournalFile);
        if (what == "another boot")
            RewriteBoot(bytes);
        else
            bytes[^3] ^= 1;
        await File.WriteAllBytesAsync(JournalFile, bytes, Cancellation);
        await using (var mirror = Open())
        {
            Assert.NotEqual(before, mirror.Status.ClusterId);
            Assert.Equal(what == "another boot" ? "a=1 b=2" : "a=1", Content(mirror));
            before = mirror.Status.ClusterId;
        }
        // The control: the next start is an ordinary one.
        await using var again = Open();
        Assert.Equal(before, again.Status.ClusterId);
    }

    [Fact]
    public async Task A_journal_of_nonsense_is_set_aside()
    {
        await File.WriteAllTextAsync(JournalFile, "nothing of ours", Cancellation);
        await using var mirror = Open();
        Assert.Equal("", Content(mirror));
        Assert.True(File.Exists(JournalFile + ".broken"));
        Assert.Contains(_log, line => line.Contains("cannot be used", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Two_processes_do_not_share_a_journal()
    {
        await using var mirror = Open();
        Assert.Throws<IOException>(() => Open());
    }

    [Fact]
    public async Task A_journal_that_grew_is_shortened_to_what_readers_can_resume()
    {
        await using (var mirror = Open(history: 16))
        {
            var value = new string('x', 1 << 20);
            for (var i = 0; i < 68; i++)
                await CommitAsync(mirror, Put($"k{i % 4}", $"{i}{value}"));
            await Wait.UntilAsync(() => mirror.Status.JournalBytes < 50 << 20, "the journal is shortened");
            await CommitAsync(mirror, Put("end", ""));
        }
        await using var again = Open(history: 16);
        Assert.Equal((70L, 5), (again.Status.Revision, again.Status.Keys));
        Assert.InRange(again.Status.OldestRevision, 55, 70);
    }

    [Fact]
    public async Task A_journal_that_cannot_be_written_costs_the_name_and_nothing_else()
    {
        var time = new FakeTimeProvider();
        await using var mirror = MirrorView.Open(new MirrorOptions { StateDir = _directory, Gathering = TimeSpan.Zero }, time, _log.Add);
        await CommitAsync(mirror, Put("a", "1"));
        var first = mirror.Status.ClusterId;
        FillDisk(JournalFile);
        await CommitAsync(mirror, Put("b", "2"));
        var second = mirror.Status;
        Assert.Equal("a=1 b=2", Content(mirror));
        Assert.NotEqual(first, second.ClusterId);
        Assert.Contains("No space left", second.Problem, StringComparison.Ordinal);
        // What an earlier name's readers have is what its journal has.
        await CommitAsync(mirror, Put("c", "3"));
        time.Advance(TimeSpan.FromSeconds(11));
        await CommitAsync(mirror, Put("d", "4"));
        Assert.Equal((second.ClusterId, null), (mirror.Status.ClusterId, mirror.Status.Problem));
        await mirror.DisposeAsync();
        await using var again = Open();
        Assert.Equal("a=1 b=2 c=3 d=4", Content(again));
        Assert.Equal((second.ClusterId, 5L), (again.Status.ClusterId, again.Status.Revision));
    }

    /// <summary>The open file becomes one that is always full.</summary>
    private static void FillDisk(string path)
    {
        var descriptor = Directory.EnumerateFiles("/proc/self/fd").First(fd => File.ResolveLinkTarget(fd, false)?.FullName == path);
        using var full = File.OpenHandle("/dev/full", FileMode.Open, FileAccess.ReadWrite);
        Assert.NotEqual(-1, Dup2((int)full.DangerousGetHandle(), int.Parse(Path.GetFileName(descriptor), CultureInfo.InvariantCulture)));
    }

    [LibraryImport("libc", EntryPoint = "dup2", SetLastError = true)]
    private static partial int Dup2(int from, int to);

    [Fact]
    public async Task An_audit_is_answered_from_the_revisions_since()
    {
        await using var mirror = Open();
        await CommitAsync(mirror, [.. Enumerable.Range(0, 50_000).Select(i => Put($"cilium/cache/ip/v1/osprey/{i:d6}", "x"))]);
        await using var door = await DoorUnderTest.OpenAsync(mirror);
        for (var i = 0; i < 10; i++)
            await CommitAsync(mirror, Put($"cilium/cache/ip/v1/osprey/{i * 7:d6}", $"{i}"), Put("cilium/.heartbeat", $"{i}"));
        await CommitAsync(mirror, new MirrorChange("cilium/cache/ip/v1/osprey/000007", null));
        var kv = new KV.KVClient(door.Channel("local-falcon"));
        var request = new RangeRequest
        {
            Key = ByteString.CopyFromUtf8("cilium/cache/ip/v1/osprey/"),
            RangeEnd = ByteString.CopyFromUtf8("cilium/cache/ip/v1/osprey0"),
            KeysOnly = true,
            MinModRevision = 3,
        };
        var answer = await kv.RangeAsync(request, cancellationToken: Cancellation);
        Assert.Equal(49_999, answer.Count);
        Assert.Equal(Enumerable.Range(0, 10).Where(i => i != 1).Select(i => $"cilium/cache/ip/v1/osprey/{i * 7:d6}"),
            answer.Kvs.Select(found => found.Key.ToStringUtf8()));
        async Task<double> CostAsync(long since)
        {
            request.MinModRevision = since;
            var before = GC.GetTotalAllocatedBytes(precise: true);
            var clock = System.Diagnostics.Stopwatch.StartNew();
            for (var i = 0; i < 20; i++)
                await kv.RangeAsync(request, cancellationToken: Cancellation);
            return clock.Elapsed.TotalMilliseconds / 20;
        }
        _ = await CostAsync(3);
        var recent = await CostAsync(3);
        // The control: a revision whose list is all there is makes it walk over every key.
        var all = await CostAsync(1);
        Assert.True(recent * 5 < all, $"since revision 3: {recent:f2} ms, since 1: {all:f2} ms");
    }

    private static async Task<string> KeysAsync(DoorUnderTest door, string user, string prefix)
    {
        try
        {
            var range = new RangeRequest { Key = ByteString.CopyFromUtf8(prefix), RangeEnd = ByteString.CopyFromUtf8(prefix[..^1] + (char)(prefix[^1] + 1)) };
            var answer = await new KV.KVClient(door.Channel(user)).RangeAsync(range, cancellationToken: Cancellation);
            return string.Join(' ', answer.Kvs.Select(kv => kv.Key.ToStringUtf8()));
        }
        catch (RpcException e)
        {
            return e.StatusCode.ToString();
        }
    }

    private static async Task<ResponseHeader> HeaderAsync(DoorUnderTest door, string user) =>
        (await new KV.KVClient(door.Channel(user)).RangeAsync(
            new RangeRequest { Key = ByteString.CopyFromUtf8("cilium/.heartbeat") }, cancellationToken: Cancellation)).Header;

    private static async Task<byte[]> ReadAsync(string path)
    {
        // The journal is locked against another writer, which .NET's own reading counts as.
        using var copy = System.Diagnostics.Process.Start("cp", [path, path + ".copy"]);
        await copy.WaitForExitAsync(Cancellation);
        return await File.ReadAllBytesAsync(path + ".copy", Cancellation);
    }

    /// <summary>Another boot ID in the first record, with its checksum.</summary>
    private static void RewriteBoot(byte[] journal)
    {
        journal[8 + 1 + 16] ^= 1;
        var crc = uint.MaxValue;
        var payload = journal.AsSpan(8, 33);
        for (; payload.Length >= 8; payload = payload[8..])
            crc = System.Numerics.BitOperations.Crc32C(crc, BitConverter.ToUInt64(payload));
        foreach (var b in payload)
            crc = System.Numerics.BitOperations.Crc32C(crc, b);
        BitConverter.TryWriteBytes(journal.AsSpan(4), ~crc);
    }
}
